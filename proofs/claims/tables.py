"""The paper's own tables as exact numbers, from `proofs/data`, for the claims that are arithmetic on them."""

import csv
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data"
DATA_SETS = ("mnist", "usps", "cifar10", "s-cov", "cov-tw", "imdb")
SIGNIFICANT = Fraction(53, 10)  # of t², see `squared_t`
RUNS = 5  # "repeated each experiment five times", section 4.1


@dataclass(frozen=True)
class Figure:
    """A mean and a standard deviation as printed; both rounded to `digit`."""

    mean: Fraction
    std: Fraction
    digit: Fraction

    def __str__(self) -> str:
        places = 0 if self.digit == 1 else 2
        return f"{float(self.mean):.{places}f} ± {float(self.std):.{places}f}"

    @property
    def lowest_std(self) -> Fraction:
        """The smallest that rounds to the printed one; below 0 where that is 0."""
        return self.std - self.digit / 2

    @property
    def highest_std(self) -> Fraction:
        """The largest that rounds to the printed one."""
        return self.std + self.digit / 2

    @property
    def squared_error(self) -> Fraction:
        """The square of the standard error of the mean of five runs."""
        return self.std**2 / RUNS


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a table."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@dataclass(frozen=True)
class Sentence:
    """A few words of a sentence of the paper, where it stands, and the names of the claims that check it."""

    section: str
    words: str
    claims: tuple[str, ...]


@cache
def sentences() -> tuple[Sentence, ...]:
    """The paper's checkable sentences in its order; without claims where there are no numbers to check them against."""
    return tuple(Sentence(row["section"], row["words"], tuple(row["claims"].split())) for row in rows("sentences"))


def sentences_of(claim: str) -> tuple[Sentence, ...]:
    """Those that a claim checks."""
    return tuple(sentence for sentence in sentences() if claim in sentence.claims)


def figures(name: str, column: str) -> dict[tuple[str, str], Figure]:
    """{(data, optimizer): mean ± standard deviation} of one column, cells that are empty left out.

    The optimizer is Kernel SGD, "ours", where a table has no other.
    """
    return {
        (row["data"], row.get("optimizer", "ours")): Figure(
            Fraction(row[column]),
            Fraction(row[f"{column}_std"]),
            Fraction(1, 100) if "." in row[column] else Fraction(1),
        )
        for row in rows(name)
        if row[column]
    }


def numbers(name: str, column: str) -> dict[tuple[str, str], Fraction]:
    """{(data, optimizer): number} of one column."""
    return {(row["data"], row["optimizer"]): Fraction(row[column]) for row in rows(name) if row[column]}


def squared_t(left: Figure, right: Figure) -> Fraction:
    """The square of Welch's t of two means of five runs each.

    At the 5 % level a two-sided test with 8 degrees of freedom, the most there can be, asks for t² > 5.3, and with 4,
    the fewest, for t² > 7.7. So no two-sided test calls two means different below 5.3 (a one-sided one may from 3.46).
    """
    return (left.mean - right.mean) ** 2 / (left.squared_error + right.squared_error)


def rounds_to(value: Fraction, printed: Fraction, digit: Fraction) -> bool:
    """Whether a printed number can be the value, rounded to its last digit."""
    return abs(value - printed) <= digit / 2
