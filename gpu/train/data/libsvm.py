"""LIBSVM files NAME and NAME.t, plain or packed (.bz2, .gz)."""

from pathlib import Path
from typing import Any

import numpy as np

from gpu.train.data import files
from gpu.train.data.build import Part, tabular
from gpu.train.data.dataset import Dataset
from gpu.train.data.table1 import Counts, require_counts
from gpu.train.errors import DataError

MAX_ENTRIES = 2**30  # 8 GiB in float64: data is held dense
PER_BYTE = 8  # bytes of memory: "1:1 " makes an index and a number, both copied once


def load(name: str, folder: Path | None, *, scaling: str, counts: Counts | None) -> Dataset:
    """counts: what Table 1 says of data of the paper. Raises DataError, with the file's name and what to do."""
    train, test = _both(name, folder)
    if counts is not None:
        require_counts(name, counts, train=len(train[1]))
        require_counts(f"{name}.t", counts, test=len(test[1]))
    return tabular(name, train, test, scaling)


def _both(name: str, folder: Path | None) -> tuple[Part, Part]:
    folder = files.require_folder(folder, name, f"the files {name} and {name}.t")
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
    """A LIBSVM file as (sparse X, features numbered as in the file; labels)."""
    from sklearn.datasets import load_svmlight_file  # type: ignore[import-untyped]

    files.require_file(path, "a LIBSVM file; get it again")
    try:
        with files.unpacked(path, PER_BYTE) as stream:
            X, y = load_svmlight_file(stream, zero_based=True)
    except DataError:
        raise
    except files.UNREADABLE as error:
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
    most = min(MAX_ENTRIES, files.MEMORY // 16)  # in float64, and scaled
    if instances * width > most:
        raise DataError(f"{path}: {instances} × {width} features are too many to be held dense (up to {most})")


def _dense(path: Path, X: Any, y: np.ndarray, first: int, width: int) -> Part:
    _require_dense(path, X.shape[0], width)  # the other file's width may be the larger
    X.resize(X.shape[0], width)
    return X[:, first:].toarray(), y
