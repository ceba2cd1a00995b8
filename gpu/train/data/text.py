"""From texts to what network and kernel see.

A text in lower case, "<br />" taken for a blank, is cut into runs of letters, digits and "_", and single other
characters. Words without a vector are left out. The network gets the numbers of the first `length` words; a shorter
text is filled up with 0 at its end.

The kernel cannot see numbers of words, and the paper does not say what it saw: here it is the mean of the word vectors
of those same words (zero where there are none), scaled as tabular data are.
"""

import re
from array import array
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch

from gpu.train.data.dataset import Dataset
from gpu.train.data.scaling import affine, scaled
from gpu.train.errors import DataError

TOKEN = re.compile(r"\w+|[^\w\s]")
PER_BYTE = 32  # bytes of memory: text is decoded, and every new word is kept

Reader = Callable[[Collection[str]], tuple[list[str], np.ndarray]]


class Corpus:
    """Texts as they are read, part by part: each as the numbers of its words, and its label."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.parts: dict[str, list[tuple[array[int], int]]] = {"train": [], "valid": [], "test": []}

    def numbered(self, text: str) -> "array[int]":
        return array("i", [self.words.setdefault(word, len(self.words)) for word in tokens(text)])


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text.lower().replace("<br />", " "))


def dataset(
    name: str,
    corpus: Corpus,
    read: Reader,
    *,
    length: int,
    scaling: str,
    classes: tuple[str, ...],
    stand_in: str = "",
) -> Dataset:
    """The data set of a corpus; `read` gives the words that have vectors, and these. Raises DataError."""
    found, rows = read(corpus.words.keys())
    row = np.zeros(len(corpus.words) + 1, np.int64)
    row[[corpus.words[word] for word in found]] = range(1, len(found) + 1)
    vectors = np.vstack([np.zeros((1, rows.shape[1]), np.float32), rows])
    X = {part: _indices([text for text, _ in texts], row, length) for part, texts in corpus.parts.items()}
    y = {part: torch.tensor([label for _, label in texts]) for part, texts in corpus.parts.items()}
    if not X["train"].any():
        raise DataError(f"{name}: none of the words of its training texts has a vector; are these vectors of English?")
    means = np.array([_mean_vector(vectors, indices) for indices in X["train"]])
    given = len(y["valid"]) > 0
    return Dataset(
        name,
        torch.from_numpy(X["train"]),
        y["train"],
        torch.from_numpy(X["test"]),
        y["test"],
        classes,
        stand_in,
        kernel_train=scaled(name, means, *affine(means, scaling)),
        vectors=torch.from_numpy(vectors),
        X_valid=torch.from_numpy(X["valid"]) if given else None,
        y_valid=y["valid"] if given else None,
    )


def _mean_vector(vectors: np.ndarray, indices: np.ndarray) -> np.ndarray:
    known = indices[indices > 0]
    mean: np.ndarray = vectors[known].mean(0, dtype=float) if len(known) else vectors[0].astype(float)
    return mean


def _indices(texts: "Sequence[array[int]]", row: np.ndarray, length: int) -> np.ndarray:
    """Texts as rows of the matrix of word vectors, (n, length)."""
    indices = np.zeros((len(texts), length), np.int64)
    for filled, text in zip(indices, texts, strict=True):
        known = row[np.array(text, dtype=np.int64)]
        known = known[known > 0][:length]
        filled[: len(known)] = known
    return indices
