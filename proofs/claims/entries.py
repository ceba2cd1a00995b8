"""Entries of the tables that cannot be (section 4.2), and what the two versions of the paper say differently."""

import math
from collections.abc import Iterator
from fractions import Fraction

from proofs.certificates import equal, less, require
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.memory import TRAINED_ON
from proofs.claims.symbolic import SIZES, at_entries, identity, nonnegative, sp
from proofs.claims.tables import RUNS, Figure, figures, numbers, rows

SECOND, PUBLISHED, FIRST = "table2_second_order_submission", "table3_second_order_published", "table2_first_order"


def the_largest_deviation_of_bounded_numbers() -> Iterator[Line]:
    """Numbers in [0, 100] with mean μ: Σ(x − μ)² ≤ N·μ(100 − μ) (Bhatia and Davis)."""
    x, mu, top = sp.symbols("x μ c", real=True)
    yield identity(
        "μ(c − μ) − (x − μ)² = x(c − x) + (c − 2μ)(μ − x), summed over x",
        mu * (top - mu) - (x - mu) ** 2,
        sp.expand(x * (top - x) + (top - 2 * mu) * (mu - x)),
    )
    yield "the last terms sum to 0, the others are ≥ 0 for 0 ≤ x ≤ c: s² ≤ N/(N − 1)·μ(c − μ)"
    values = []
    entries = sp.IndexedBase(sp.Symbol("x", positive=True))
    for size in SIZES:
        drawn = at_entries(entries, size)
        mean = sum(drawn) / sp.Integer(size)
        values.append(size * mean * (9 - mean) - sum((value - mean) ** 2 for value in drawn))
    yield nonnegative("the direction, at N = 2, 3, 4 numbers in [0, 9]", values)


def an_accuracy_with_an_impossible_deviation() -> Iterator[Line]:
    """s-cov, ESGD, training: 99.99 ± 1.42 of five accuracies of at most 100, all roundings in its favour."""
    impossible = [
        where
        for where, figure in _accuracies().items()
        if _square_bound(figure) < max(figure.lowest_std, Fraction(0)) ** 2
    ]
    where = ("train_acc", "s-cov", "ESGD")
    yield require(
        "s-cov, ESGD, training accuracy, in both versions, and no other",
        impossible == [(f"{table}: train_acc", *where) for table in (SECOND, PUBLISHED)],
    )
    figure = figures(SECOND, "train_acc")["s-cov", "ESGD"]
    yield less(
        f"{figure}: the largest s² of five numbers ≤ 100", _square_bound(figure), "1.415²", Fraction("1.415") ** 2
    )


def deviations_too_small_for_so_few_images() -> Iterator[Line]:
    """An accuracy is k of N images: Σk over five runs fixes the smallest deviation that is not 0."""
    impossible = [where for where, figure in _accuracies().items() if not _countable(figure, _images(*where[1:3]))]
    yield require(
        "s-cov, R-L-BFGS (published), training and test accuracy, and no other",
        impossible == [(f"{PUBLISHED}: {kind}", kind, "s-cov", "R-L-BFGS") for kind in ("train_acc", "test_acc")],
    )
    for column, images in (("test_acc", 482), ("train_acc", 1600), ("train_acc", 2000)):
        figure = figures(PUBLISHED, column)["s-cov", "R-L-BFGS"]
        (total,) = _totals(figure, images)
        yield f"{figure} of {images} images: Σk = {total}, {total % RUNS} over a multiple of {RUNS}"
        yield less("0.015²", figure.highest_std**2, "the smallest s² but 0", _smallest_square(total, images))
        yield less("0, which is printed 0.00,", 0, "0.005", figure.lowest_std)


def _accuracies() -> dict[tuple[str, str, str, str], Figure]:
    """{(table and column, of training or test, data, optimizer): accuracy} of all tables."""
    columns = (
        *((table, column, column) for table in (SECOND, PUBLISHED) for column in ("train_acc", "test_acc")),
        (FIRST, "test_acc", "test_acc"),
        *(("layers_published", column, "test_acc") for column in ("last_test_acc", "all_test_acc")),
    )
    return {
        (f"{table}: {column}", kind, *key): figure
        for table, column, kind in columns
        for key, figure in figures(table, column).items()
    }


def _square_bound(figure: Figure) -> Fraction:
    mean = max(figure.mean - figure.digit / 2, Fraction(50))
    return Fraction(RUNS, RUNS - 1) * mean * (100 - mean)


def _images(column: str, data: str) -> list[int]:
    """How many images or texts an accuracy can be of: with and without the validation split."""
    (row,) = (row for row in rows("datasets") if row["data"] == data)
    return [int(row["test"])] if column == "test_acc" else sorted({TRAINED_ON[data], int(row["train"])})


def _countable(figure: Figure, images: list[int]) -> bool:
    """Whether the mean and deviation are not ruled out for one of these numbers of images."""
    return any(
        (total % RUNS == 0 and figure.lowest_std <= 0) or _smallest_square(total, count) <= figure.highest_std**2
        for count in images
        for total in _totals(figure, count)
    )


def _totals(figure: Figure, images: int) -> range:
    """Σk over the five runs whose mean, in percent, rounds to the printed one."""
    low, high = (RUNS * images * (figure.mean + side * figure.digit / 2) / 100 for side in (-1, 1))
    return range(math.ceil(low), math.floor(high) + 1)


def _smallest_square(total: int, images: int) -> Fraction:
    """The smallest s² > 0 of five k with this sum, over N rather than N − 1, which is in favour of the entry."""
    rest = total % RUNS
    squares = Fraction(rest * (RUNS - rest), RUNS) or Fraction(2)
    return squares / RUNS * Fraction(100, images) ** 2


def the_same_runs_with_other_deviations() -> Iterator[Line]:
    """s-cov, Kernel SGD: 73.40 ± 0.92 and 64 ± 75 in one table, 73.40 ± 1.11 and 64 ± 3 in the other."""
    one, other = figures(SECOND, "test_acc")["s-cov", "ours"], figures(PUBLISHED, "test_acc")["s-cov", "ours"]
    yield equal("mean", one.mean, "mean (published)", other.mean)
    yield less(f"submission {one}", one.std, f"published {other}", other.std)
    first = figures(FIRST, "time_s")["s-cov", "ours"]
    second = figures(PUBLISHED, "time_s")["s-cov", "ours"]
    yield less(
        f"published, second-order table: {second}", second.std, f"published, first-order table: {first}", first.std
    )


def the_kernels_of_cifar10() -> Iterator[Line]:
    """Polynomial kernel 83.95 and 83.51; a random matrix 10.07, as published 50 to 60."""
    cells = {(row["version"], row["kernel"]): row["test_acc"] for row in rows("kernels_cifar10")}
    yield less(
        "polynomial (published)",
        cells["published", "polynomial"],
        "polynomial (submission)",
        cells["submission", "polynomial"],
    )
    yield less(
        "random (submission)",
        cells["submission", "random PSD"],
        "random (published), at least about 50 without cifar10's",
        "50",
    )


def the_same_memory_for_two_histories() -> Iterator[Line]:
    """L-BFGS with history 3 (submission) and 10 (published): one and the same cells."""
    one, other = numbers(SECOND, "hessian_mib"), numbers(PUBLISHED, "hessian_mib")
    cells = [key for key in one if key[1] == "L-BFGS"]
    yield require("all six cells of L-BFGS are equal in both versions", all(one[key] == other[key] for key in cells))
    kept = figures(SECOND, "test_acc"), figures(PUBLISHED, "test_acc")
    yield require("and so are its accuracies", all(kept[0][key] == kept[1][key] for key in cells))
    missing = [row["data"] for row in rows(PUBLISHED) if row["optimizer"] == "L-BFGS" and not row["time_s"]]
    yield require(
        "its times on cov-tw and imdb, where it was faster, are left out as published", missing == ["cov-tw", "imdb"]
    )


CLAIMS = (
    Claim(
        name="possible-entries",
        where="4.2, Table 2; Table 3 (published)",
        statement="Every mean and standard deviation printed can be that of five accuracies.",
        verdict=Verdict.FAILS,
        condition=(
            "s² ≤ N/(N − 1)·μ(100 − μ): violated by 99.99 ± 1.42 (s-cov, ESGD, training); and k of 482 test images "
            "allows no 52.28 ± 0.01, nor 1600 or 2000 training images 62.54 ± 0.01 (s-cov, R-L-BFGS, published)"
        ),
        evidence=(
            Derivation(the_largest_deviation_of_bounded_numbers),
            Certificate(an_accuracy_with_an_impossible_deviation),
            Certificate(deviations_too_small_for_so_few_images),
        ),
    ),
    Claim(
        name="versions-agree",
        where="submission and published version",
        statement="Where both versions report the same experiment, they report the same result.",
        verdict=Verdict.FAILS,
        condition="not: s-cov's deviations, the polynomial kernel, the random matrix, L-BFGS's history with one result",
        evidence=(
            Certificate(the_same_runs_with_other_deviations),
            Certificate(the_kernels_of_cifar10),
            Certificate(the_same_memory_for_two_histories),
        ),
    ),
)
