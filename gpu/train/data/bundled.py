"""Data that need no network and no folder, and what they stand in for."""

from collections.abc import Callable, Collection

import numpy as np

from gpu.train.data import text
from gpu.train.data.build import Part, images, tabular
from gpu.train.data.dataset import Dataset

TOPICS, COMMON, WIDTH = 40, 120, 100  # words of one class, words of both, length of a word vector
TEXTS = {"train": 700, "valid": 100, "test": 200}
LENGTH = 24


def digits(scaling: str, stand_in: str) -> Dataset:
    """1,797 images of 8 × 8; every fifth, class by class, is for testing, the same ones always."""
    return tabular("digits", *_digits(), scaling, stand_in=stand_in)


def digits_32(scaling: str, stand_in: str) -> Dataset:
    """The digits as 3 × 32 × 32, each pixel a square of 4 × 4, the three channels alike, grey values 0 to 16."""
    train, test = ((_enlarged(X), y) for X, y in _digits())
    return images("digits-32", train, test, scaling, 10, stand_in=stand_in)


def words(scaling: str, stand_in: str) -> Dataset:
    """1,000 generated texts of two classes, of 8 to 24 words; 100 are given as validation, 200 for testing.

    There are 40 words of each class and 120 of both. A word of a text is, with probability 2/5, one of its own class,
    with 1/10 one of the other, and else one of both. A word's vector is standard normal in 100 dimensions; those
    of a class have ±1 added to the first number. Generator and seed are fixed.
    """
    random = np.random.default_rng(0)
    names = [f"{kind}{number}" for kind, n in (("a", TOPICS), ("b", TOPICS), ("c", COMMON)) for number in range(n)]
    table = random.standard_normal((len(names), WIDTH))
    table[:TOPICS, 0] += 1
    table[TOPICS : 2 * TOPICS, 0] -= 1
    corpus = text.Corpus()
    for part, n in TEXTS.items():
        for label in np.arange(n) % 2:
            m = int(random.integers(8, LENGTH + 1))
            u, v = random.random((2, m))
            own, other = (v * TOPICS).astype(int) + TOPICS * label, (v * TOPICS).astype(int) + TOPICS * (1 - label)
            both = (v * COMMON).astype(int) + 2 * TOPICS
            chosen = np.where(u < 0.4, own, np.where(u < 0.5, other, both))
            corpus.parts[part].append((corpus.numbered(" ".join(names[k] for k in chosen)), int(label)))

    def read(wanted: Collection[str]) -> tuple[list[str], np.ndarray]:
        found = [k for k, name in enumerate(names) if name in wanted]
        return [names[k] for k in found], table[found].astype(np.float32)

    return text.dataset("words", corpus, read, length=LENGTH, scaling=scaling, classes=("a", "b"), stand_in=stand_in)


def _digits() -> tuple[Part, Part]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    return (X_train, y_train), (X_test, y_test)


def _enlarged(X: np.ndarray) -> np.ndarray:
    large = X.astype(np.uint8).reshape(-1, 1, 8, 8).repeat(4, axis=2).repeat(4, axis=3)
    return large.repeat(3, axis=1)


# By name: how they are made, and what they stand in for.
BUNDLED: dict[str, tuple[Callable[[str, str], Dataset], str]] = {
    "digits": (digits, "mnist and usps"),
    "digits-32": (digits_32, "cifar10 and s-cov"),
    "words": (words, "cov-tw and imdb"),
}
