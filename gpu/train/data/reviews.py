"""IMDb: the Large Movie Review Dataset (Maas et al., 2011), one .txt file a review, in folders or as given out."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gpu.train.data import files, text, vectors
from gpu.train.data.dataset import Dataset
from gpu.train.data.table1 import Counts, require_counts
from gpu.train.errors import DataError

FOLDER, ARCHIVE = "aclImdb", "aclImdb_v1.tar.gz"
PUT = f"{ARCHIVE}, or its folder {FOLDER}; python -m gpu fetch imdb, or https://ai.stanford.edu/~amaas/data/sentiment/"
PARTS, LABELS = ("train", "test"), ("neg", "pos")
PLACES = {f"{FOLDER}/{part}/{label}": (part, label) for part in PARTS for label in LABELS}
LENGTH = 256  # words


def load(folder: Path | None, *, scaling: str, counts: Counts) -> Dataset:
    """Raises DataError, naming the file."""
    folder = files.require_folder(folder, "imdb", f"{PUT}; and {vectors.PUT}")
    if (folder / FOLDER).exists():
        reviews = _from_folder(folder)
    else:
        reviews = _from_archive(files.require_file(folder / ARCHIVE, PUT))
    glove = vectors.find(folder)
    corpus = text.Corpus()
    numbered = [(name, corpus.numbered(files.decoded(content, where))) for name, content, where in reviews]
    for name, words in sorted(numbered):  # an archive has its files in another order than a folder
        part, label = PLACES[_place(name)]
        corpus.parts[part].append((words, LABELS.index(label)))
    require_counts(f"imdb in {folder}", counts, **{part: len(corpus.parts[part]) for part in PARTS})
    return text.dataset("imdb", corpus, partial(vectors.read, glove), length=LENGTH, scaling=scaling, classes=LABELS)


def _from_folder(folder: Path) -> Iterator[tuple[str, bytes, str]]:
    """Name within the data folder, content, and what errors call it."""
    paths = []
    for place in PLACES:
        if not (folder / place).is_dir():
            raise DataError(f"{folder / place}: no such folder; expected {PUT}")
        paths += sorted((folder / place).glob("*.txt"))
    size = 0
    for path in files.tracked(paths, "reading reviews", len(paths)):
        size += files.require_file(path, "a review; get it again").stat().st_size
        files.require_room(folder / FOLDER, size, text.PER_BYTE)
        yield path.relative_to(folder).as_posix(), path.read_bytes(), str(path)


def _from_archive(path: Path) -> Iterator[tuple[str, bytes, str]]:
    """The same, of the archive."""
    for name, content in files.members(path, _is_review, text.PER_BYTE, PUT):
        where = f"{path}: {name}"
        if not content:
            raise DataError(f"{where}: an empty file; get it again")
        yield name, content, where


def _is_review(name: str) -> bool:
    return _place(name) in PLACES and name.endswith(".txt")


def _place(name: str) -> str:
    return name.rpartition("/")[0]
