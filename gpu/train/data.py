"""Data sets: scikit-learn's bundled digits, and LIBSVM files NAME and NAME.t, plain or packed (.bz2, .gz).

Scaling is one affine map for all features, x → (x − offset)/factor, taken from the training data. Pixels keep their
relation to each other, and as far as an RBF kernel is concerned the scalings differ in γ alone.
"""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.train.errors import DataError

SCALINGS = ("none", "unit", "symmetric", "standard")
MAX_ENTRIES = 2**30  # 8 GiB in float64: data is held dense


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features (n, d) in float32, labels (n,) in int64, numbered in the order of `classes`."""

    name: str
    X_train: Tensor
    y_train: Tensor
    X_test: Tensor
    y_test: Tensor
    classes: tuple[float, ...]

    @property
    def features(self) -> int:
        return self.X_train.shape[1]

    def to(self, device: str) -> "Dataset":
        """The same data on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("X_train", "y_train", "X_test", "y_test")}
        return replace(self, **moved)

    def fingerprint(self) -> str:
        """A digest of every bit of features and labels."""
        digest = hashlib.sha256()
        for part in (self.X_train, self.y_train, self.X_test, self.y_test):
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()


def load(name: str, folder: Path | None = None, *, scaling: str = "unit") -> Dataset:
    """`digits`, or the LIBSVM files `name` and `name`.t in `folder`, scaled by the training data's range or moments.

    scaling: "none"; "unit" to [0, 1]; "symmetric" to [−1, 1]; "standard" to mean 0, variance 1.
    Raises DataError, with the file's name and what to do.
    """
    if scaling not in SCALINGS:
        raise DataError(f"scaling: expected one of {', '.join(SCALINGS)}, got {scaling!r}")
    train, test = _digits() if name == "digits" else _libsvm(name, folder)
    (X_train, labels), (X_test, test_labels) = train, test
    offset, factor = _affine(X_train, scaling)
    classes, y_train = np.unique(labels, return_inverse=True)
    unknown = np.setdiff1d(test_labels, classes)
    if len(unknown):
        raise DataError(
            f"{name}.t: label {unknown[0]:g} does not occur in the training data, whose labels are {classes}"
        )
    return Dataset(
        name,
        _scaled(name, X_train, offset, factor),
        torch.from_numpy(y_train.astype(np.int64)),
        _scaled(f"{name}.t", X_test, offset, factor),
        torch.from_numpy(np.searchsorted(classes, test_labels)),
        tuple(classes.tolist()),
    )


def hold_out(n: int, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a random split of n instances: (those left to train on, the fraction held out for validation)."""
    held = round(n * fraction)
    if not 0 < held < n:
        raise DataError(
            f"validation: {fraction} of {n} training instances leaves nothing to train on or nothing to hold out"
        )
    order = torch.from_numpy(np.random.default_rng((seed, 1)).permutation(n))
    return order[held:], order[:held]


Part = tuple[np.ndarray, np.ndarray]


def _affine(X: np.ndarray, scaling: str) -> tuple[float, float]:
    """Offset and factor of x → (x − offset)/factor; a constant is only shifted."""
    low, high = float(X.min()), float(X.max())
    with np.errstate(over="ignore", invalid="ignore"):
        offset, factor = {
            "none": (0.0, 1.0),
            "unit": (low, high - low),
            "symmetric": (low + (high - low) / 2, (high - low) / 2),
            "standard": (float(X.mean()), float(X.std())),
        }[scaling]
    return offset, factor or 1.0


def _scaled(name: str, X: np.ndarray, offset: float, factor: float) -> Tensor:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = ((X - offset) / factor).astype(np.float32)
    if not (np.isfinite(factor) and np.isfinite(scaled).all()):
        raise DataError(f"{name}: expected features that float32 holds, got {X.min():.3g} to {X.max():.3g}; scale them")
    return torch.from_numpy(scaled)


def _digits() -> tuple[Part, Part]:
    """1,797 images of 8 × 8; every fifth, class by class, is for testing, the same ones always."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    return (X_train, y_train), (X_test, y_test)


def _libsvm(name: str, folder: Path | None) -> tuple[Part, Part]:
    if folder is None:
        raise DataError(
            f"data {name!r}: expected 'digits', or a data folder (--data-dir) with the files {name} and {name}.t"
        )
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of {name} and {name}.t, but this is no folder")
    paths = _find(folder, name), _find(folder, f"{name}.t")
    train, test = _read(paths[0]), _read(paths[1])
    # Sparse files leave out trailing zeros: the two may end at different features. Numbering starts at 1, or else at 0.
    width = max(train[0].shape[1], test[0].shape[1])
    first = 0 if any(X[:, :1].nnz for X, _ in (train, test)) else 1
    return _dense(paths[0], *train, first, width), _dense(paths[1], *test, first, width)


def _find(folder: Path, name: str) -> Path:
    for ending in ("", ".bz2", ".gz"):
        if (path := folder / (name + ending)).exists():
            return path
    raise DataError(
        f"{folder / name}: no such file, nor with .bz2 or .gz; get it from "
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/ or name another data folder"
    )


def _read(path: Path) -> tuple[Any, np.ndarray]:
    """A LIBSVM file as (sparse X, features numbered as in the file; labels); sklearn unpacks by the file's ending."""
    from sklearn.datasets import load_svmlight_file

    try:
        X, y = load_svmlight_file(str(path), zero_based=True)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise DataError(
            f"{path}: not a readable LIBSVM file ({error or type(error).__name__}); get it again"
        ) from error
    if not len(y) or not X.nnz:
        raise DataError(f"{path}: expected instances with features, got an empty file; get it again")
    if not np.isfinite(X.data).all() or not (np.isfinite(y) & (y == np.round(y))).all():
        raise DataError(
            f"{path}: expected finite features and whole numbers as class labels; is this a classification data set?"
        )
    _require_dense(path, *X.shape)
    return X, y


def _require_dense(path: Path, instances: int, width: int) -> None:
    if instances * width > MAX_ENTRIES:
        raise DataError(f"{path}: {instances} × {width} features are too many to be held dense (up to {MAX_ENTRIES})")


def _dense(path: Path, X: Any, y: np.ndarray, first: int, width: int) -> Part:
    _require_dense(path, X.shape[0], width)  # the other file's width may be the larger
    X.resize(X.shape[0], width)
    return X[:, first:].toarray(), y
