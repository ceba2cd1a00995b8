"""The reshaping rule: what is kept, what is zero, and what truncation does to an inverse."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import U
from tests.support import strategies

Array = NDArray[np.float64]


@st.composite
def blocks(draw: st.DrawFn, condition: float) -> tuple[Array, int, float]:
    """H of the given condition, the size k of a leading block, and a bound on the relative error of an inverse.

    30·m·u·κ₁ for H itself; leading blocks and Schur complements have by interlacing no larger κ₂, so at most √m·κ₁.
    """
    H = draw(strategies.gram_matrices(condition=condition, scale=1.0))
    return H, draw(st.integers(1, len(H))), 30 * len(H) ** 1.5 * U * np.linalg.cond(H, 1)


@given(strategies.stacks(strategies.matrices(rows=4, columns=4)), strategies.sizes(6))
def test_reshaping_keeps_the_leading_block_and_all_else_is_zero(A: Array, d_in: int) -> None:
    P = reference.reshape_inverse(A, d_in)
    k = min(4, d_in)
    assert P.shape == (*A.shape[:-2], d_in, d_in)
    assert np.array_equal(P[..., :k, :k], A[..., :k, :k])
    assert np.count_nonzero(P) == np.count_nonzero(A[..., :k, :k])


@given(strategies.sizes().flatmap(lambda m: strategies.matrices(rows=m, columns=m)), strategies.sizes(), st.data())
def test_reshaping_through_a_larger_size_is_reshaping_at_once(A: Array, d_in: int, data: st.DataObject) -> None:
    between = data.draw(st.integers(min(len(A), d_in), 10))
    through = reference.reshape_inverse(reference.reshape_inverse(A, between), d_in)
    assert np.array_equal(through, reference.reshape_inverse(A, d_in))


@given(strategies.positive_semidefinite_matrices(), strategies.sizes(), st.data())
def test_reshaping_keeps_a_matrix_positive_semidefinite(A: Array, d_in: int, data: st.DataObject) -> None:
    z = data.draw(strategies.matrices(rows=1, columns=d_in).map(np.rint))[0]
    assert z @ reference.reshape_inverse(A, d_in) @ z >= 0  # integers: exact


@given(blocks(condition=1e6))
def test_leading_block_of_the_inverse_is_at_least_the_inverse_of_the_leading_block(
    case: tuple[Array, int, float],
) -> None:
    H, k, error = case
    X = reference.inverse_gram(H)
    difference = reference.reshape_inverse(X, k) - reference.inverse_gram(H[:k, :k])
    # Two inverses, each wrong by error·‖H⁻¹‖ at most.
    assert np.linalg.eigvalsh(difference)[0] >= -2 * error * np.linalg.norm(X, 1)


@given(blocks(condition=1e4))
def test_inverse_of_the_leading_block_of_the_inverse_is_the_schur_complement(case: tuple[Array, int, float]) -> None:
    H, k, error = case
    computed = reference.inverse_gram(reference.reshape_inverse(reference.inverse_gram(H), k))
    schur = H[:k, :k] - H[:k, k:] @ np.linalg.solve(H[k:, k:], H[k:, :k])
    # An error E in a matrix is one of S·E·S in its inverse S, and ‖S‖ ≤ ‖H‖; the last inverse and the solve add theirs.
    allowed = (np.linalg.cond(H, 1) + 2) * error * np.linalg.norm(H, 1)
    assert np.abs(computed - schur).max() <= allowed
