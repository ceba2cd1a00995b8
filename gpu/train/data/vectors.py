"""Word vectors in GloVe's text format: a line is a word and its numbers, separated by single blanks."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from gpu.train.data import files
from gpu.train.errors import DataError

PUT = (
    "one file of word vectors, glove*.txt, such as glove.6B.100d.txt; python -m gpu fetch glove, or "
    "https://nlp.stanford.edu/projects/glove/"
)
LONGEST = 2**20  # bytes a line
NUMBER = rb" [-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def find(folder: Path) -> Path:
    """The folder's one file of word vectors."""
    found = sorted(folder.glob("glove*.txt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder / 'glove*.txt'}: expected {PUT}, got {names}")
    return files.require_file(found[0], PUT)


def read(path: Path, wanted: Collection[str]) -> tuple[list[str], np.ndarray]:
    """Those of the wanted words that the file has, in its order, and their vectors (words, d) in float32.

    The file is streamed: every line's dimension is checked, the numbers of the wanted words alone are read. Raises
    DataError, naming file and line.
    """
    known = {word.encode() for word in wanted}
    lines: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    width = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
            where = f"{path}, line {number}"
            if not line.endswith(b"\n"):
                raise DataError(f"{where}: cut short, or longer than {LONGEST} bytes; expected {PUT}")
            word, *rest = line.rstrip(b"\r\n").split(b" ", 1)
            given = rest[0].count(b" ") + 1 if rest else 0
            width = width or given
            if not given or given != width:
                raise DataError(f"{where}: expected a word and {width or 'its'} numbers, got {given}; expected {PUT}")
            if word in known:
                if word in lines:
                    raise DataError(f"{where}: the word {word.decode()!r} was there before, in line {lines[word]}")
                lines[word] = number
                rows.append(_vector(rest[0], width, where))
    return [word.decode() for word in lines], np.array(rows, np.float32).reshape(len(rows), width)


def _vector(text: bytes, width: int, where: str) -> np.ndarray:
    if not re.fullmatch(rb"(?:%s){%d}" % (NUMBER, width), b" " + text):
        raise DataError(f"{where}: expected {width} numbers separated by single blanks; expected {PUT}")
    with np.errstate(over="ignore"):
        vector = np.array([float(field) for field in text.split(b" ")]).astype(np.float32)
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: expected numbers that float32 holds; expected {PUT}")
    return vector
