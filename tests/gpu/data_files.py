"""Small files in the formats of the paper's data sets, and how many instances they hold."""

import bz2
import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from gpu.train import data
from gpu.train.data import Dataset, cifar10, reviews, scans, tweets

BATCHES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
WORDS = ["the", "film", "virus", "good", "bad", "7", "n", "é", ",", "!"]
WIDTH = 3


def write_cifar10(folder: Path, *, seed: int = 0, records: int = 2) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The six batches of the binary version: labels, and pixels (n, 3, 32, 32)."""
    random = np.random.default_rng(seed)
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    batches = {}
    for name in BATCHES:
        labels = random.integers(0, 10, records)
        pixels = random.integers(0, 256, (records, 3, 32, 32))
        content = b"".join(bytes([label, *image.ravel()]) for label, image in zip(labels, pixels, strict=True))
        (folder / "cifar-10-batches-bin" / name).write_bytes(content)
        batches[name] = labels, pixels
    return batches


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of 8-bit pixels (height, width, channels): 1 grey, 3 RGB, 4 with alpha. Made by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def write_scans(folder: Path, *, covid: int = 4, other: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """PNG files of 32 × 32, by name: their pixels (3, 32, 32)."""
    random = np.random.default_rng(seed)
    images = {}
    for place, n in (("COVID", covid), ("non-COVID", other)):
        (folder / "s-cov" / place).mkdir(parents=True)
        for k in range(n):
            pixels = random.integers(0, 256, (32, 32, 3))
            (folder / "s-cov" / place / f"scan ({k}).png").write_bytes(png(pixels))
            images[f"{place}/scan ({k}).png"] = pixels.transpose(2, 0, 1)
    return images


def write_vectors(folder: Path, words: Iterable[str] = WORDS, *, seed: int = 0) -> dict[str, list[str]]:
    """glove.made.txt: the numbers of every word, as they stand there."""
    random = np.random.default_rng(seed)
    numbers = {word: [f"{number:.4g}" for number in random.normal(size=WIDTH)] for word in words}
    lines = "".join(f"{' '.join([word, *row])}\n" for word, row in numbers.items())
    (folder / "glove.made.txt").write_text(lines, encoding="utf-8")
    return numbers


def write_tweets(folder: Path, parts: dict[str, list[tuple[str, str]]]) -> None:
    """Texts and labels of the three parts."""
    (folder / "cov-tw").mkdir(parents=True)
    for part, tweets_of in parts.items():
        lines = ["Id\tText\tLabel", *(f"{k}\t{text}\t{label}" for k, (text, label) in enumerate(tweets_of))]
        (folder / "cov-tw" / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write_reviews(folder: Path, texts: dict[str, str]) -> None:
    """Texts by their place, such as train/pos/0_9.txt."""
    for name, text in texts.items():
        path = folder / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def pack(folder: Path, name: str, archive: str) -> None:
    """The folder `name` as an archive .tar.gz beside it, its files in the reverse order, and gone itself."""
    inside = sorted((path for path in (folder / name).rglob("*") if path.is_file()), reverse=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in inside:
            tar.add(path, path.relative_to(folder).as_posix())
            path.unlink()
    (folder / archive).write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    (folder / name).rename(folder / "emptied")


TWEETS = {
    "train": [("The virus , THE film!", "INFORMATIVE"), ("nothing known", "UNINFORMATIVE"), ("bad é 7", "INFORMATIVE")],
    "valid": [("good good virus", "UNINFORMATIVE"), ("n", "INFORMATIVE")],
    "test": [("bad, bad film", "UNINFORMATIVE"), ("the 7", "INFORMATIVE")],
}
REVIEWS = {
    "train/neg/0_1.txt": "Bad film.<br /><br />The VIRUS!",
    "train/neg/1_2.txt": "bad",
    "train/pos/0_9.txt": "good, good film",
    "train/pos/10_10.txt": "the é 7",
    "test/neg/0_2.txt": "n bad",
    "test/pos/0_8.txt": "good",
}


def make(name: str, folder: Path) -> None:
    """Write a small set of that name: a data set of the paper, or "NAME.tar.gz", the same as an archive."""
    match name.partition(".")[0]:
        case "cifar10":
            write_cifar10(folder)
        case "s-cov":
            write_scans(folder)
        case "cov-tw":
            write_tweets(folder, TWEETS)
            write_vectors(folder)
        case "imdb":
            write_reviews(folder, REVIEWS)
            write_vectors(folder)
    if name == "cifar10.tar.gz":
        pack(folder, "cifar-10-batches-bin", "cifar-10-binary.tar.gz")
    elif name == "imdb.tar.gz":
        pack(folder, "aclImdb", "aclImdb_v1.tar.gz")


LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10.load,
    "s-cov": scans.load,
    "cov-tw": tweets.load,
    "imdb": reviews.load,
}
COUNTS = {
    "cifar10": {"train": 10, "test": 2},
    "s-cov": {"train": 5, "test": 2},
    "cov-tw": {"train": 3, "valid": 2, "test": 2},
    "imdb": {"train": 4, "test": 2},
}


def load(name: str, folder: Path, *, scaling: str = "none") -> Dataset:
    """What `make` wrote, held to the numbers of instances that it wrote."""
    name = name.partition(".")[0]
    return LOADERS[name](folder, scaling=scaling, counts=COUNTS[name])


def place(name: str, folder: Path) -> Callable[[Path], Dataset]:
    """Write a small set of that name, LIBSVM files or one of `make`'s, and say how it is read."""
    if name.partition(".")[0] != "made":
        make(name, folder)
        return lambda folder: load(name, folder)
    content, packed = b"1 1:0.5 2:0.25\n2 1:-1 3:0.75\n1 2:33.5\n", name == "made.bz2"
    for file in ("made", "made.t"):
        (folder / f"{file}{'.bz2' * packed}").write_bytes(bz2.compress(content) if packed else content)
    return lambda folder: data.load("made", folder, scaling="none")
