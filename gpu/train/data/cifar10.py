"""CIFAR-10 in its binary version: records of 3,073 bytes, a label and 32 × 32 pixels of red, then green, then blue."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpu.train.data import files
from gpu.train.data.build import Part, images
from gpu.train.data.dataset import Dataset
from gpu.train.data.table1 import Counts, require_counts
from gpu.train.errors import DataError

FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
PUT = (
    f"{ARCHIVE}, or its folder {FOLDER}, of the binary version; python -m gpu fetch cifar10, or "
    "https://www.cs.toronto.edu/~kriz/cifar.html"
)
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
CLASSES, SHAPE = 10, (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
PER_BYTE = 8  # bytes of memory: as it was read, joined, and in float32


def load(folder: Path | None, *, scaling: str, counts: Counts) -> Dataset:
    """Raises DataError, naming file and record."""
    folder = files.require_folder(folder, "cifar10", PUT)
    if (folder / FOLDER).exists():
        batches = dict(_from_folder(folder / FOLDER))
    else:
        archive = files.require_file(folder / ARCHIVE, PUT)
        batches = dict(_from_archive(archive))
        for name in (*TRAIN, TEST):
            if name not in batches:
                raise DataError(f"{archive}: holds no {FOLDER}/{name}; expected {PUT}")
    X, y = zip(*(batches[name] for name in TRAIN), strict=True)
    train, test = (np.concatenate(X), np.concatenate(y)), batches[TEST]
    require_counts(f"cifar10 in {folder}", counts, train=len(train[1]), test=len(test[1]))
    return images("cifar10", train, test, scaling, CLASSES)


def _from_folder(folder: Path) -> Iterator[tuple[str, Part]]:
    paths = [files.require_file(folder / name, PUT) for name in (*TRAIN, TEST)]
    files.require_room(folder, sum(path.stat().st_size for path in paths), PER_BYTE)
    for path in paths:
        yield path.name, _records(path.read_bytes(), path)


def _from_archive(path: Path) -> Iterator[tuple[str, Part]]:
    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN, TEST)}
    for name, content in files.members(path, wanted.__contains__, PER_BYTE, PUT):
        yield wanted[name], _records(content, f"{path}: {name}")


def _records(content: bytes, where: object) -> Part:
    """Images (n, 3, 32, 32) of bytes, and labels (n,)."""
    whole, rest = divmod(len(content), RECORD)
    if rest or not whole:
        raise DataError(
            f"{where}, record {whole + 1}: has {rest} bytes of {RECORD}; the file is cut short, or no batch of the "
            f"binary version; expected {PUT}"
        )
    records = np.frombuffer(content, np.uint8).reshape(whole, RECORD)
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= CLASSES)
    if len(wrong):
        raise DataError(
            f"{where}, record {wrong[0] + 1}: the label is {labels[wrong[0]]}, expected 0 to {CLASSES - 1}; "
            f"expected {PUT}"
        )
    return records[:, 1:].reshape(whole, *SHAPE), labels
