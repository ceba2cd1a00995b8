"""Data sets by name. One format a file; `names` holds the table of names; none knows of networks or optimizers."""

from gpu.train.data.dataset import Dataset, hold_out
from gpu.train.data.names import kind, load, stand_in
from gpu.train.data.scaling import SCALINGS

__all__ = ["SCALINGS", "Dataset", "hold_out", "kind", "load", "stand_in"]
