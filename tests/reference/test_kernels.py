"""Gram matrices: the exact formulas, scikit-learn's, and what no kernel matrix may lack."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import pairwise

import reference
from tests.reference.bounds import U
from tests.support import ratios, strategies

Array = NDArray[np.float64]
Options = dict[str, object]

KERNELS = ("rbf", "linear", "polynomial")
MODERATE = ("plain", "random", "duplicates", "near-duplicates", "offset", "outlier")


@st.composite
def gram_inputs(draw: st.DrawFn, *kernels: str) -> tuple[Array, Options]:
    """Data and the keywords of a kernel, one of the named, that does not overflow on them."""
    options = draw(strategies.kernels(*kernels))
    bounded = options["kernel"] == "polynomial"
    kinds = strategies.BOUNDED_KINDS if bounded else strategies.DATA_KINDS
    return draw(strategies.data_matrices(kinds=kinds)), options


def mirrored(X: Array) -> Array:
    """X and −X: the mean row, from which the ratio measures, is the origin, from which a rotation does."""
    return np.concatenate((X, -X))


@st.composite
def data_of_any_range(draw: st.DrawFn) -> tuple[Array, float]:
    """Entries and a γ from anywhere in float64: ‖x−y‖² and ⟨x,y⟩ leave its range, with and without γ."""
    shape = draw(st.tuples(strategies.sizes(3), strategies.sizes(3)))
    exponents = st.sampled_from(draw(st.sampled_from(((520,), (-550,), (1000,), (-900, 900)))))
    numbers = st.builds(
        lambda s, e, more: s * 2.0 ** (e + more), st.sampled_from((-1.25, 1.0, 1.5)), exponents, st.integers(-8, 8)
    )
    X = draw(hnp.arrays("float64", shape, elements=st.just(0.0) | numbers, fill=st.nothing()))
    largest = float(np.abs(X).max()) or 1.0
    near = math.ldexp(1.0, max(-1070, min(1020, draw(st.integers(-6, 6)) - 2 * math.frexp(largest)[1])))
    return X, draw(st.sampled_from((near, 2.0**1000)))


def exact_gram(
    X: Array, kernel: str, *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0
) -> NDArray[np.float64]:
    """The formula in rational arithmetic (the exponential: 40 digits), rounded once."""

    def value(x: list[Fraction], y: list[Fraction]) -> float:
        if kernel == "rbf":
            exponent = -Fraction(gamma) * sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
            with localcontext(prec=40):
                return float((Decimal(exponent.numerator) / exponent.denominator).exp())
        inner = sum(a * b for a, b in zip(x, y, strict=True))
        return float(inner if kernel == "linear" else (Fraction(gamma) * inner + Fraction(coef0)) ** degree)

    rows = [[Fraction(entry) for entry in row] for row in X.tolist()]
    return np.array([[value(x, y) for y in rows] for x in rows])


@example(case=(np.array([[0.0], [1.5e155]]), 1e-310))
@given(case=data_of_any_range())
def test_only_what_the_exponential_is_taken_of_may_overflow(case: tuple[Array, float]) -> None:
    X, gamma = case
    H = reference.gram(X, gamma=gamma)
    for i, j in np.ndindex(H.shape):
        t = Fraction(gamma) * sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(X[i], X[j], strict=True))
        exact = math.exp(-float(min(t, 800)))
        assert abs(H[i, j] - exact) <= 2 * U * (1 + (X.shape[1] + 4) * float(min(t, 800))) * exact + 2.0**-1022


@given(case=data_of_any_range())
def test_only_gamma_times_the_product_may_overflow(case: tuple[Array, float]) -> None:
    X, gamma = case
    rows = [[Fraction(entry) for entry in row] for row in X.tolist()]
    exact = [[Fraction(gamma) * sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    sizes = [[Fraction(gamma) * sum(abs(a * b) for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    try:
        H = reference.gram(X, "polynomial", gamma=gamma, degree=1, coef0=0.0)
    except FloatingPointError:
        assert max(abs(value) for row in exact for value in row) >= Fraction(2) ** 1024 * (1 - Fraction(2) ** -53)
        return
    for i, j in np.ndindex(H.shape):
        off = abs(Fraction(float(H[i, j])) - exact[i][j])
        assert off <= Fraction(U) * (X.shape[1] + 3) * sizes[i][j] + Fraction(2) ** -1074


@pytest.mark.parametrize("kernel", KERNELS)
@given(st.data())
def test_gram_is_the_kernel_of_all_pairs(kernel: str, data: st.DataObject) -> None:
    X, options = data.draw(gram_inputs(kernel))
    ratios.assert_within(ratios.gram(reference.gram(X, **options), exact_gram(X, **options), X, **options))


@pytest.mark.parametrize("kernel", KERNELS)
@given(st.data())
def test_gram_is_scikit_learns_kernel(kernel: str, data: st.DataObject) -> None:
    X, options = data.draw(gram_inputs(kernel))
    X, theirs = mirrored(X), getattr(pairwise, f"{kernel}_kernel")
    parameters = {name: value for name, value in options.items() if name != "kernel"}
    ratios.assert_within(ratios.gram(reference.gram(X, **options), theirs(X, **parameters), X, **options))


@pytest.mark.parametrize("kernel", KERNELS)
@given(st.data())
def test_gram_is_symmetric_and_the_rbf_kernel_one_on_the_diagonal_bit_for_bit(kernel: str, data: st.DataObject) -> None:
    X, options = data.draw(gram_inputs(kernel))
    H = reference.gram(X, **options)
    assert np.array_equal(H, H.T)
    assert kernel != "rbf" or np.all(np.diag(H) == 1)


@given(gram_inputs())
def test_gram_is_positive_semidefinite_up_to_rounding(inputs: tuple[Array, Options]) -> None:
    X, options = inputs[0], dict(inputs[1])
    if options["kernel"] == "polynomial":
        options["coef0"] = abs(options["coef0"])
    H = reference.gram(X, **options)
    m, d = X.shape
    # No entry is wrong by more than degree·(d+3)·u·max H: for RBF because (1 + t)·exp(−t) ≤ 1, for the others because
    # |⟨x, y⟩| is largest on the diagonal. eigvalsh adds m·u·λ_max, and λ_max ≤ m·max H.
    rounding = m * U * (options.get("degree", 1) * (d + 3) + m) * np.abs(H).max()
    assert np.linalg.eigvalsh(H)[0] >= -rounding - m * d * np.finfo(np.float64).tiny


@given(
    strategies.data_matrices(kinds=("plain", "duplicates")).map(np.round),
    st.integers(-(2**40), 2**40),
    st.sampled_from(strategies.PAPER_GRID),
)
def test_translating_the_data_leaves_the_rbf_kernel_bit_for_bit(X: Array, shift: int, gamma: float) -> None:
    assert np.array_equal(reference.gram(X + shift, gamma=gamma), reference.gram(X, gamma=gamma))


@given(strategies.data_matrices().map(mirrored), strategies.seeds(), st.sampled_from(strategies.PAPER_GRID))
def test_rotating_the_data_leaves_the_rbf_kernel(X: Array, seed: int, gamma: float) -> None:
    d = X.shape[1]
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d))).Q
    ratios.assert_within(
        ratios.gram_rbf(reference.gram(X @ Q, gamma=gamma), reference.gram(X, gamma=gamma), X, gamma=gamma)
    )


@given(strategies.data_matrices(kinds=MODERATE), strategies.kernels(), st.integers(-20, 20))
def test_scaling_the_data_is_scaling_gamma_by_the_inverse_square_bit_for_bit(
    X: Array, options: Options, exponent: int
) -> None:
    if options["kernel"] == "linear":
        options = {"kernel": "polynomial", "gamma": 1.0, "degree": 1, "coef0": 0.0}
    scaled = options | {"gamma": options["gamma"] / 4.0**exponent}
    assert np.array_equal(reference.gram(2.0**exponent * X, **scaled), reference.gram(X, **options))


@given(st.lists(st.tuples(*2 * [st.integers(-9, 9)]), min_size=2, max_size=8, unique=True), st.floats(1, 1e300))
def test_rbf_kernel_of_distinct_rows_tends_to_the_identity(rows: list[tuple[int, int]], more: float) -> None:
    X = np.array(rows, dtype=float)
    nearest = min(np.sum((x - y) ** 2) for x, y in combinations(X, 2))
    # From γ‖x−y‖² = 746 on, exp underflows to 0; at a scale of 1e200 the squared distance overflows.
    assert np.array_equal(reference.gram(X, gamma=746 / nearest * more), np.eye(len(X)))
    assert np.array_equal(reference.gram(1e200 * X, gamma=1 / more), np.eye(len(X)))


@given(gram_inputs(), st.randoms(use_true_random=False))
def test_permuting_instances_permutes_the_gram_matrix_and_permuting_features_leaves_it(
    inputs: tuple[Array, Options], random: Random
) -> None:
    X, options = inputs
    rows, columns = (random.sample(range(size), size) for size in X.shape)
    permuted = X[np.ix_(rows, columns)]
    expected = reference.gram(X, **options)[np.ix_(rows, rows)]
    ratios.assert_within(ratios.gram(reference.gram(permuted, **options), expected, permuted, **options))


@given(strategies.stacks(strategies.data_matrices(rows=3, columns=2, kinds=MODERATE)), strategies.kernels())
def test_every_member_of_a_stack_has_the_gram_matrix_it_has_alone(X: Array, options: Options) -> None:
    H = reference.gram(X, **options)
    assert H.shape == (*X.shape[:-1], 3)
    assert all(np.array_equal(H[i], reference.gram(X[i], **options)) for i in np.ndindex(X.shape[:-2]))


@given(strategies.sizes(4), st.integers(0, 4), strategies.seeds())
def test_random_psd_is_seeded_symmetric_and_positive_semidefinite_of_the_given_rank(
    rank: int, more: int, seed: int
) -> None:
    m = 2 * rank + more  # a Gaussian matrix twice as high as wide has no tiny singular value
    P = reference.random_psd(m, seed, rank=rank)
    eigenvalues = np.linalg.eigvalsh(P)
    threshold = m * 2 * U * eigenvalues[-1]
    assert np.array_equal(P, P.T)
    assert np.array_equal(P, reference.random_psd(m, seed, rank=rank))
    assert not np.array_equal(P, reference.random_psd(m, seed + 1, rank=rank))
    assert eigenvalues[0] >= -threshold
    assert np.sum(eigenvalues > threshold) == rank


@pytest.mark.parametrize("rank", [1, 3, None, 20])
def test_random_psd_is_the_identity_on_average(rank: int | None) -> None:
    m, draws = 4, 1000
    mean = np.mean([reference.random_psd(m, seed, rank=rank) for seed in range(draws)], axis=0)
    # An entry of one matrix has a variance of at most 2/rank; six standard deviations of the mean.
    assert np.all(np.abs(mean - np.eye(m)) <= 6 * np.sqrt(2 / ((rank or m) * draws)))


def test_zeros_beside_tiny_entries_take_nothing_from_a_polynomial_value() -> None:
    H = reference.gram([[0.0, 1e-200]], "polynomial", gamma=1e300, degree=1, coef0=0.0)
    assert H[0, 0] == pytest.approx(1e-100, rel=1e-15, abs=0)
