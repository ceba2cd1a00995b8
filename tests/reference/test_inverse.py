"""The inverse of a Gram matrix: accuracy, what counts as singular and what is done then."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import EPS, U
from tests.support import ratios, strategies

Array = NDArray[np.float64]


def exact_inverse(H: Array) -> Array:
    """Gauss and Jordan's elimination in rational arithmetic (H positive definite: no pivoting), rounded once."""
    m = len(H)
    A = np.array([[Fraction(entry) for entry in row] for row in np.hstack((H, np.eye(m))).tolist()])
    for pivot in range(m):
        A[pivot] /= A[pivot, pivot]
        for row in range(m):
            if row != pivot:
                A[row] -= A[row, pivot] * A[pivot]
    return A[:, m:].astype(np.float64)


def norm(A: Array) -> float:
    return float(np.abs(A).sum(axis=0).max())


@st.composite
def stacks_with_one(draw: st.DrawFn, odd: st.SearchStrategy[Array]) -> tuple[Array, tuple[int, ...]]:
    """Invertible members with one of the `odd` 4 × 4 ones among them, and its index."""
    H = draw(strategies.stacks(strategies.gram_matrices(size=4), leading=st.just((2, 3))))
    index = tuple(draw(st.integers(0, size - 1)) for size in H.shape[:-2])
    H[index] = draw(odd)
    return H, index


@st.composite
def nearly_singular_matrices(draw: st.DrawFn, factors: tuple[float, ...]) -> tuple[Array, int]:
    """Eigenvalues from 1/100 to 1 and one of factor·m·eps, which belongs exactly to the returned coordinate."""
    m = draw(st.integers(2, 8))
    lonely = draw(st.integers(0, m - 1))
    others = np.delete(np.arange(m), lonely)
    H = np.zeros((m, m))
    H[np.ix_(others, others)] = draw(strategies.gram_matrices(size=m - 1, condition=100.0, scale=1.0))
    H[lonely, lonely] = draw(st.sampled_from(factors)) * m * EPS
    return H, lonely


def assert_is_pseudoinverse(X: Array, H: Array) -> None:
    """Penrose's equations; and, as they do not notice it, that no eigenvalue near 0 has been inverted."""
    ratios.assert_within(*ratios.pseudoinverse(X, H))
    assert np.abs(X).max() * 100 * len(H) * EPS * np.linalg.norm(H, 2) < 1


@given(strategies.gram_matrices())
def test_inverse_is_backward_and_forward_stable_at_every_condition_and_scale(H: Array) -> None:
    X = reference.inverse_gram(H)
    ratios.assert_within(ratios.inverse_backward(X, H), ratios.inverse_forward(X, exact_inverse(H), H))


@given(strategies.stacks(strategies.gram_matrices(size=4) | strategies.singular_gram_matrices(size=4)))
def test_every_member_of_a_stack_is_inverted_as_if_alone_and_symmetric_bit_for_bit(H: Array) -> None:
    X = reference.inverse_gram(H, singular="pinv")
    assert np.array_equal(X, X.swapaxes(-1, -2))
    assert all(np.array_equal(X[i], reference.inverse_gram(H[i], singular="pinv")) for i in np.ndindex(H.shape[:-2]))


@given(strategies.gram_matrices())
def test_pseudoinverse_of_an_invertible_matrix_is_its_inverse_bit_for_bit(H: Array) -> None:
    assert np.array_equal(reference.inverse_gram(H, singular="pinv"), reference.inverse_gram(H))


@given(strategies.singular_gram_matrices())
def test_pseudoinverse_satisfies_penroses_equations_and_leaves_out_what_is_zero(H: Array) -> None:
    assert_is_pseudoinverse(reference.inverse_gram(H, singular="pinv"), H)


@given(stacks_with_one(strategies.singular_gram_matrices(size=4)))
def test_singular_member_raises_with_its_index_and_eigenvalue_range(stack: tuple[Array, tuple[int, ...]]) -> None:
    H, index = stack
    with pytest.raises(np.linalg.LinAlgError, match=re.escape(f"member {index} is numerically singular")) as error:
        reference.inverse_gram(H)
    low, high = map(float, re.findall(r"eigenvalues from (\S+) to (\S+),", str(error.value))[0])
    largest = np.linalg.eigvalsh(H[index])[-1]
    assert abs(low) <= 4 * EPS * high
    assert abs(high - largest) <= 1e-5 * largest


@given(strategies.data_matrices(rows=st.integers(2, 8), kinds=("duplicates",)), strategies.kernels())
def test_gram_matrix_of_duplicate_instances_has_no_inverse(X: Array, options: dict[str, object]) -> None:
    with pytest.raises(np.linalg.LinAlgError, match=re.escape("member ()")):
        reference.inverse_gram(reference.gram(X, **options))


@given(
    strategies.gram_matrices() | strategies.singular_gram_matrices(),
    st.integers(-8, 0).map(lambda exponent: 10.0**exponent),
)
def test_ridge_is_added_before_inverting(H: Array, relative: float) -> None:
    ridge = relative * (np.abs(H).max() or 1.0)
    X = reference.inverse_gram(H, ridge=ridge)
    assert np.array_equal(X, reference.inverse_gram(H + ridge * np.eye(len(H))))
    ratios.assert_within(ratios.inverse_backward(X, H, ridge=ridge))


@given(stacks_with_one(strategies.indefinite_matrices(size=4)), st.sampled_from(("raise", "pinv")))
def test_indefinite_member_always_raises_with_its_index(stack: tuple[Array, tuple[int, ...]], singular: str) -> None:
    H, index = stack
    with pytest.raises(np.linalg.LinAlgError, match=re.escape(f"member {index} is indefinite")):
        reference.inverse_gram(H, singular=singular)


@given(nearly_singular_matrices((100.0, 1e4)))
def test_eigenvalues_of_100_thresholds_are_inverted(case: tuple[Array, int]) -> None:
    H, lonely = case
    X = reference.inverse_gram(H)
    ratios.assert_within(ratios.inverse_backward(X, H))
    assert X[lonely, lonely] > 0.99 / H[lonely, lonely]


@given(nearly_singular_matrices((1e-3, 1e-6, 0.0)))
def test_eigenvalues_of_a_thousandth_of_the_threshold_count_as_zero(case: tuple[Array, int]) -> None:
    H, lonely = case
    with pytest.raises(np.linalg.LinAlgError, match="numerically singular"):
        reference.inverse_gram(H)
    without = H.copy()
    without[lonely, lonely] = 0
    assert_is_pseudoinverse(reference.inverse_gram(H, singular="pinv"), without)


@given(strategies.gram_matrices(scale=1.0), st.integers(-100, 100))
def test_inverse_of_a_matrix_times_a_power_of_four_is_the_inverse_over_it_bit_for_bit(H: Array, exponent: int) -> None:
    scale = 4.0**exponent  # of four: the Cholesky factor takes its root
    assert np.array_equal(reference.inverse_gram(scale * H), reference.inverse_gram(H) / scale)


@given(strategies.gram_matrices(size=st.integers(2, 8), condition=100.0), st.integers(-50, 50), st.data())
def test_lower_triangle_counts_and_more_than_rounding_above_it_is_an_error(
    H: Array, roundings: int, data: st.DataObject
) -> None:
    column = data.draw(st.integers(1, len(H) - 1))
    row = data.draw(st.integers(0, column - 1))
    rounding = EPS * np.abs(H).max()
    rounded, wrong = H.copy(), H.copy()
    rounded[row, column] += roundings * rounding
    wrong[row, column] += 200 * rounding
    assert np.array_equal(reference.inverse_gram(rounded), reference.inverse_gram(H))
    assert reference.condition_estimate(rounded) == reference.condition_estimate(H)
    for operation in (reference.inverse_gram, reference.condition_estimate):
        with pytest.raises(ValueError, match="expected symmetric"):
            operation(wrong)


def test_lower_triangle_counts_for_the_pseudoinverse_too() -> None:
    H = np.ones((3, 3))
    rounded = H + 50 * EPS * np.triu(H, 1)
    expected = reference.inverse_gram(H, singular="pinv")
    assert np.array_equal(reference.inverse_gram(rounded, singular="pinv"), expected)


@pytest.mark.parametrize("exponent", [-300, 0, 300])
def test_eigenvalue_at_the_threshold_is_zero_and_one_at_minus_the_threshold_too(exponent: int) -> None:
    at, below = (np.ldexp(np.diag([1.0, sign * 2 * EPS]), exponent) for sign in (1, -1))
    for H in (at, below):
        with pytest.raises(np.linalg.LinAlgError, match="numerically singular"):
            reference.inverse_gram(H)
        expected = np.diag([np.ldexp(1.0, -exponent), 0])
        assert np.array_equal(reference.inverse_gram(H, singular="pinv"), expected)


def test_error_of_a_singular_member_gives_its_eigenvalues_condition_and_threshold() -> None:
    with pytest.raises(np.linalg.LinAlgError) as error:
        reference.inverse_gram(np.diag([4.0, 2e-16]))
    assert str(error.value) == (
        "H: member () is numerically singular: eigenvalues from 2e-16 to 4, condition estimate 2e+16; expected the "
        'smallest above m·eps·λ_max = 1.78e-15; add a ridge or take singular="pinv"'
    )


def test_condition_estimate_is_infinite_where_it_is_beyond_float64() -> None:
    assert reference.condition_estimate(np.diag([1.0, 5e-324])) == np.inf


@given(strategies.gram_matrices(condition=st.integers(0, 8).map(lambda exponent: 10.0**exponent)))
def test_condition_estimate_is_a_lower_bound_and_at_least_a_tenth_of_the_condition_number(H: Array) -> None:
    condition = norm(H) * norm(exact_inverse(H))
    estimate = reference.condition_estimate(H)
    # The estimate is a lower bound for a matrix within 30·m·u·‖H‖ of H, whose condition number is this much larger.
    assert condition / 10 <= estimate <= condition * (1 + 2 * 30 * len(H) * U * condition)


@given(stacks_with_one(strategies.indefinite_matrices(size=4) | st.just(np.zeros((4, 4)))))
def test_condition_estimate_is_infinite_exactly_where_there_is_no_cholesky_factor(
    stack: tuple[Array, tuple[int, ...]],
) -> None:
    H, index = stack
    estimates = reference.condition_estimate(H)
    assert np.argwhere(np.isinf(estimates)).tolist() == [list(index)]
