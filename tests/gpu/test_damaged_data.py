"""Files of every format, damaged in one place: an error, or what the file says, and never anything else."""

import bz2
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu.train.data import Dataset
from gpu.train.errors import DataError
from tests.gpu.data_files import BATCHES, place
from tests.gpu.spoken import heard, spoken

# What files say, read once more and in another way; an exception where they say nothing.


def said_of_cifar10(folder: Path) -> Any:
    said = []
    for name in BATCHES:
        content = (folder / "cifar-10-batches-bin" / name).read_bytes()
        said += [
            (content[start], [int(byte) for byte in content[start + 1 : start + 3073]])
            for start in range(0, len(content), 3073)
        ]
    return said


def found_in_images(made: Dataset) -> Any:
    pixels = torch.cat([made.X_train, made.X_test]).int().flatten(1).tolist()
    return list(zip(torch.cat([made.y_train, made.y_test]).tolist(), pixels, strict=True))


def said_of_scans(folder: Path) -> Any:
    said = []
    for label, name in enumerate(("COVID", "non-COVID")):
        for path in (folder / "s-cov" / name).iterdir():
            with Image.open(path) as image:
                small = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            said.append((label, np.moveaxis(np.array(small), 2, 0).ravel().tolist()))
    return sorted(said)


def numbers_of(folder: Path) -> dict[str, list[str]]:
    (path,) = folder.glob("glove*.txt")
    table: dict[str, list[str]] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        word, *numbers = line.split(b" ")
        try:
            table[word.decode()] = [number.decode() for number in numbers]
        except UnicodeDecodeError:
            continue
    return table


def said_of_tweets(folder: Path) -> Any:
    said = []
    for part in ("train", "valid", "test"):
        content = (folder / "cov-tw" / f"{part}.tsv").read_bytes().decode()
        lines = re.findall(r"[^\t\n]*\t([^\t\n]*)\t((?:UN)?INFORMATIVE)\r*(?:\n|\Z)", content)
        said.append([(spoken(text, numbers_of(folder), 64), label) for text, label in lines])
    return said


def said_of_reviews(folder: Path) -> Any:
    said = []
    for part in ("train", "test"):
        paths = sorted(path for path in (folder / "aclImdb" / part).glob("*/*.txt"))
        said.append([(spoken(path.read_bytes().decode(), numbers_of(folder), 256), path.parent.name) for path in paths])
    return said


def found_in_texts(made: Dataset) -> Any:
    parts = [(made.X_train, made.y_train), (made.X_valid, made.y_valid), (made.X_test, made.y_test)]
    return [list(zip(heard(made, X), [made.classes[k] for k in y], strict=True)) for X, y in parts if X is not None]


def said_of_libsvm(folder: Path) -> Any:
    said, first = [], 1
    for path in sorted(folder.glob("made*"), key=lambda path: ".t" in path.name):
        rows = []
        content = path.read_bytes()
        content = bz2.decompress(content) if path.suffix == ".bz2" else content
        for line in content.decode("latin-1").split("\n"):
            label, *entries = line.split("#")[0].split() or [None]
            if label is not None:
                pairs = [entry.split(":") for entry in entries]
                rows.append((float(label), {int(j): float(np.float32(float(x))) for j, x in pairs}))
                first = 0 if rows[-1][1].get(0) is not None else first
        said.append(rows)
    return [[(label, {j - first: x for j, x in row.items() if x}) for label, row in rows] for rows in said]


def found_in_table(made: Dataset) -> Any:
    return [
        [(made.classes[k], {j: x for j, x in enumerate(row.tolist()) if x}) for k, row in zip(y, X, strict=True)]
        for X, y in ((made.X_train, made.y_train), (made.X_test, made.y_test))
    ]


def jpeg(folder: Path) -> None:
    """The scans as JPEG files, which have no checksums."""
    for path in (folder / "s-cov").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()


# By format: the set, what is changed in it first, which files are damaged, what they say and what is found. None for
# the first of the last two: they have checksums, and nothing but what was written may be found.
FORMATS: dict[str, tuple[str, Callable[[Path], None] | None, str, Callable[[Path], Any] | None, Callable[..., Any]]] = {
    "cifar10": ("cifar10", None, "cifar-10-batches-bin/*", said_of_cifar10, found_in_images),
    "cifar10 packed": ("cifar10.tar.gz", None, "*.tar.gz", None, found_in_images),
    "scans, PNG": ("s-cov", None, "s-cov/*/*", None, found_in_images),
    "scans, JPEG": ("s-cov", jpeg, "s-cov/*/*", said_of_scans, lambda made: sorted(found_in_images(made))),
    "tweets": ("cov-tw", None, "cov-tw/*", said_of_tweets, found_in_texts),
    "reviews": ("imdb", None, "aclImdb/*/*/*", said_of_reviews, found_in_texts),
    "reviews packed": ("imdb.tar.gz", None, "*.tar.gz", None, found_in_texts),
    "word vectors": ("cov-tw", None, "glove*", said_of_tweets, found_in_texts),
    "LIBSVM": ("made", None, "made*", said_of_libsvm, found_in_table),
    "LIBSVM packed": ("made.bz2", None, "made*", said_of_libsvm, found_in_table),
}
LABELS = (b"UNINFORMATIVE", b"INFORMATIVE", b"9", b"-1", b"one", b"", b"\xff", b"nan")


def damage(path: Path, random: np.random.Generator) -> str:
    """Damage a file: a bit or some, its end, a label, all of it."""
    content = bytearray(path.read_bytes())
    kind = str(random.choice(["bit", "bit", "bits", "cut", "label", "empty", "folder", "other", "twice"]))
    match kind:
        case "bit" | "bits":
            for place in random.integers(len(content), size=1 if kind == "bit" else 5):
                content[place] ^= 1 << int(random.integers(8))
        case "cut":
            del content[int(random.integers(len(content))) :]
        case "label":
            label = LABELS[int(random.integers(len(LABELS)))]
            if path.suffix == ".tsv":
                content = content.replace(b"UNINFORMATIVE", label, 1)
            else:
                content[:1] = label or bytes([int(random.integers(256))])
        case "empty":
            content.clear()
        case "other":
            content = bytearray(random.integers(0, 256, int(random.integers(1, 9000)), dtype=np.uint8).tobytes())
        case "twice":
            content = content * 2
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    return kind


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_of_a_damaged_file_one_gets_an_error_or_what_it_says_and_never_anything_else(tmp_path, format):
    name, change, pattern, said, found = FORMATS[format]
    whole = tmp_path / "whole"
    whole.mkdir()
    read = place(name, whole)
    if change is not None:
        change(whole)
    original = found(read(whole))
    read_after_all = 0
    for case in range(200):
        random = np.random.default_rng(case)
        folder = tmp_path / str(case)
        shutil.copytree(whole, folder)
        paths = sorted(folder.glob(pattern))
        kind = damage(paths[int(random.integers(len(paths)))], random)
        started = time.perf_counter()
        try:
            made = read(folder)
        except DataError:
            continue
        finally:
            assert time.perf_counter() - started < 10, (case, kind)
        read_after_all += 1
        expected = original if said is None else said(folder)
        assert found(made) == expected, (case, kind)
    assert read_after_all < 200
