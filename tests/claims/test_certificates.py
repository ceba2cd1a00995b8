"""Proved, refuted, undecided: the helpers of the certificates say each where it is so, and nothing else."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from proofs import certificates
from proofs.certificates import Answer, RefutedError, UndecidedError
from tests.support import ratios, strategies

SMALL = st.integers(-5, 5)


@st.composite
def integer_matrices(draw: st.DrawFn, rows: int | None = None, columns: int | None = None) -> fmpq_mat:
    shape = rows or draw(st.integers(1, 4)), columns or draw(st.integers(1, 4))
    return fmpq_mat([[draw(SMALL) for _ in range(shape[1])] for _ in range(shape[0])])


def identity(size: int) -> fmpq_mat:
    return fmpq_mat([[int(i == j) for j in range(size)] for i in range(size)])


def transposed(A: fmpq_mat) -> fmpq_mat:
    return A.transpose()


def exactly(A: NDArray[np.float64]) -> arb_mat:
    return arb_mat([[arb(x) for x in row] for row in A.tolist()])


def encloses(balls: arb_mat, A: NDArray[np.float64]) -> bool:
    """Whether every ball is within 1e-9 of the float, relative to the largest."""
    largest = max(1.0, float(np.abs(A).max()))
    pairs = zip(balls.tolist(), A.tolist(), strict=True)
    return all(abs(b - arb(x)) < 1e-9 * largest for row in pairs for b, x in zip(*row, strict=True))


@given(integer_matrices())
def test_gram_matrices_plus_identity_are_definite(A: fmpq_mat) -> None:
    H = A * transposed(A) + identity(A.nrows())
    assert certificates.definiteness(arb_mat(H)) is Answer.DEFINITE
    assert certificates.semidefinite(H)


@given(integer_matrices())
def test_gram_matrices_are_semidefinite_and_definite_where_of_full_rank(A: fmpq_mat) -> None:
    H = A * transposed(A)
    assert certificates.semidefinite(H)
    expected = Answer.DEFINITE if H.det() != 0 else Answer.REFUTED
    assert certificates.definiteness(arb_mat(H)) in (expected, Answer.UNDECIDED)
    if A.nrows() == 1:
        assert certificates.definiteness(arb_mat(H)) is expected


@given(st.integers(1, 4).flatmap(lambda size: st.tuples(integer_matrices(size, size), integer_matrices(size, 1))))
def test_a_matrix_with_a_negative_direction_is_refuted(case: tuple[fmpq_mat, fmpq_mat]) -> None:
    A, v = case
    if v == v * 0:
        v[0, 0] = fmpq(1)
    # vᵀHv = −(vᵀv)² < 0 for H = A Aᵀ minus enough of v vᵀ.
    square = (transposed(v) * v)[0, 0]
    form = (transposed(v) * A * transposed(A) * v)[0, 0]
    H = A * transposed(A) - v * transposed(v) * (1 + form / square**2)
    assert not certificates.semidefinite(H)
    assert certificates.definiteness(arb_mat(H)) is not Answer.DEFINITE


@given(st.integers(1, 4).flatmap(lambda size: integer_matrices(size, size)))
def test_both_decisions_agree_with_the_signs_of_leading_minors(A: fmpq_mat) -> None:
    H = A + transposed(A)
    rows = H.tolist()
    minors = [fmpq_mat([row[:k] for row in rows[:k]]).det() for k in range(1, len(rows) + 1)]
    definite = all(minor > 0 for minor in minors)
    assert (certificates.definiteness(arb_mat(H)) is Answer.DEFINITE) == definite
    if definite:
        assert certificates.semidefinite(H)


def test_a_pivot_that_may_be_zero_is_undecided() -> None:
    wide = arb(1, 1e-3)
    assert certificates.definiteness(arb_mat([[1, wide], [wide, 1]])) is Answer.UNDECIDED
    with pytest.raises(UndecidedError):
        certificates.positive_definite("H", arb_mat([[1, wide], [wide, 1]]))
    with pytest.raises(RefutedError):
        certificates.positive_definite("H", arb_mat([[1, 2], [2, 1]]))
    with pytest.raises(ValueError, match="square"):
        certificates.definiteness(arb_mat(1, 2))


def test_semidefinite_notices_a_nonzero_row_behind_a_zero_pivot() -> None:
    assert certificates.semidefinite(fmpq_mat([[0, 0], [0, 1]]))
    assert not certificates.semidefinite(fmpq_mat([[0, 1], [1, 1]]))


@given(st.fractions(), st.fractions())
def test_less_is_the_order_of_rationals(left: Fraction, right: Fraction) -> None:
    if left < right:
        assert "<" in certificates.less("a", left, "b", right)
        assert "<" in certificates.less("a", left, "b", certificates.exact(right))
    else:
        with pytest.raises(RefutedError):
            certificates.less("a", left, "b", right)


def test_less_of_balls_is_proved_refuted_or_undecided() -> None:
    with ctx.workprec(64):
        third = arb(1) / 3
        assert "<" in certificates.less("a", third, "b", "0.34")
        with pytest.raises(RefutedError):
            certificates.less("a", "0.34", "b", third)
        with pytest.raises(UndecidedError):
            certificates.less("a", third, "b", Fraction(1, 3))


@pytest.mark.parametrize("value", [0.1, True, None, arb(1)])
def test_floats_and_what_is_no_exact_number_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="value"):
        certificates.exact(value)  # type: ignore[arg-type]


@given(strategies.logits_and_labels())
def test_loss_in_balls_is_the_reference_to_within_its_error(
    case: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    f, y = case
    J, _ = reference.softmax_cross_entropy(f, y)
    eye = exactly(np.eye(f.shape[1]))
    with ctx.workprec(256):
        ball = certificates.mean_loss(eye, exactly(f), y.tolist())
        below = f.max(axis=1) - f[np.arange(len(f)), y]
        allowed = ratios.THRESHOLD * 2**-53 * ((len(f) + 2) * float(J) + f.shape[1] + 3 + below.mean()) + 1e-300
        assert abs(ball - arb(float(J))) < allowed


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from((1.0, 0.1)), st.data())
def test_a_step_in_balls_encloses_that_of_the_reference(
    m: int, d: int, n_c: int, gamma: float, data: st.DataObject
) -> None:
    X = np.array([[3.0 * k] + [float(data.draw(SMALL)) for _ in range(d - 1)] for k in range(m)])
    W = np.array([[float(data.draw(SMALL)) / 8 for _ in range(d)] for _ in range(n_c)])
    y = data.draw(strategies.labels(m, n_c))
    P = reference.reshape_inverse(reference.inverse_gram(reference.gram(X, gamma=gamma)), d)
    _, dlogits = reference.softmax_cross_entropy(X @ W.T, y)
    after = reference.kernel_sgd_step(W, reference.weight_gradient(dlogits, X), P, 0.5)
    with ctx.workprec(256):
        rows = [[Fraction(x) for x in row] for row in X.tolist()]
        P_balls = certificates.reshaped_inverse(rows, Fraction(gamma), d)
        assert encloses(P_balls, P)
        stepped = certificates.kernel_step(exactly(W), exactly(X), y.tolist(), P_balls, Fraction(1, 2))
        assert encloses(stepped, after)
