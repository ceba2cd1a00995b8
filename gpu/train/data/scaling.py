"""Scaling: x → (x − offset)/factor, taken from the training data; one map for all features, so that they keep their
relation to each other, and the scalings differ, as far as an RBF kernel is concerned, in γ alone.

Images scaled by "standard" have one such map a channel: the paper normalises them by mean and variance.
"""

import numpy as np
import torch
from torch import Tensor

from gpu.train.errors import DataError

SCALINGS = ("none", "unit", "symmetric", "standard")
LEVELS = 256
CHUNK = 1000  # images whose histogram is taken at once: NumPy counts in a copy eight times as large


def require_scaling(scaling: str) -> None:
    if scaling not in SCALINGS:
        raise DataError(f"scaling: expected one of {', '.join(SCALINGS)}, got {scaling!r}")


def affine(X: np.ndarray, scaling: str) -> tuple[float, float]:
    """Offset and factor of x → (x − offset)/factor; a constant is only shifted."""
    low, high = float(X.min()), float(X.max())
    with np.errstate(over="ignore", invalid="ignore"):
        return _offset_and_factor(scaling, low, high, float(X.mean()), float(X.std()))


def scaled(name: str, X: np.ndarray, offset: float, factor: float) -> Tensor:
    """The scaled features in float32; DataError where that does not hold them."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = ((X - offset) / factor).astype(np.float32)
    if not (np.isfinite(factor) and np.isfinite(scaled).all()):
        raise DataError(f"{name}: expected features that float32 holds, got {X.min():.3g} to {X.max():.3g}; scale them")
    return torch.from_numpy(scaled)


def scaled_images(train: np.ndarray, test: np.ndarray, scaling: str) -> tuple[Tensor, Tensor]:
    """Images of bytes (n, channels, height, width) as float32, scaled by the training images' range or moments."""
    channels = range(train.shape[1])
    chunks = [train[start : start + CHUNK] for start in range(0, len(train), CHUNK)]
    counts = np.array([sum(np.bincount(chunk[:, c].ravel(), minlength=LEVELS) for chunk in chunks) for c in channels])
    levels = np.arange(LEVELS, dtype=float)
    there = np.flatnonzero(counts.any(0))
    tables = np.empty((len(channels), LEVELS), np.float32)
    for c in channels:
        mean = float(counts[c] @ levels / counts[c].sum())
        sd = float(np.sqrt(counts[c] @ (levels - mean) ** 2 / counts[c].sum()))
        offset, factor = _offset_and_factor(scaling, float(there[0]), float(there[-1]), mean, sd)
        tables[c] = (levels - offset) / factor
    return _looked_up(tables, train), _looked_up(tables, test)


def _looked_up(tables: np.ndarray, images: np.ndarray) -> Tensor:
    values = np.empty(images.shape, np.float32)
    for c, table in enumerate(tables):
        values[:, c] = table[images[:, c]]
    return torch.from_numpy(values)


def _offset_and_factor(scaling: str, low: float, high: float, mean: float, sd: float) -> tuple[float, float]:
    offset, factor = {
        "none": (0.0, 1.0),
        "unit": (low, high - low),
        "symmetric": (low + (high - low) / 2, (high - low) / 2),
        "standard": (mean, sd),
    }[scaling]
    return offset, factor or 1.0
