"""Training as in the paper: data, networks, the loop, checkpoints, and studies over optimizers and seeds."""

from gpu.train.data import Dataset, load
from gpu.train.errors import CheckpointError, DataError, UsageError
from gpu.train.loop import Result, fit, train_epoch
from gpu.train.models import mlp
from gpu.train.settings import Settings
from gpu.train.study import Study

__all__ = [
    "CheckpointError",
    "DataError",
    "Dataset",
    "Result",
    "Settings",
    "Study",
    "UsageError",
    "fit",
    "load",
    "mlp",
    "train_epoch",
]
