"""On which side of the singularity threshold a matrix lies, and what is owed there (DESIGN, section 3).

Eigenvalues above 100·m·eps·λ_max must be inverted; exactly singular matrices and eigenvalues below m·eps·λ_max/1000
must be refused, or taken as 0; between, a backend may refuse, but what it returns must solve the equation.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, DrawFn
from numpy.typing import NDArray

from tests.conformance.about import about
from tests.conformance.subject import Subject
from tests.support import exact, ratios, strategies
from tests.support.calls import Call
from tests.support.matrix_types import POSITIVE_DEFINITE_TYPES

Array = NDArray[Any]

LinAlgError = np.linalg.LinAlgError


def inverting(H: Array, **options: Any) -> Call:
    return Call("inverse_gram", (H,), options)


@st.composite
def with_one_eigenvalue(draw: DrawFn, dtype: str, *factors: float) -> tuple[Array, Array]:
    """H with the eigenvalues 2, 1, …, 1 and factor·m·eps·2, all exactly, and its pseudoinverse without the last."""
    m, factor = draw(st.integers(3, 9)), draw(st.sampled_from(factors))
    H, inverse = np.eye(m), np.eye(m)
    H[:2, :2], inverse[:2, :2] = [[1.5, 0.5], [0.5, 1.5]], [[0.75, -0.25], [-0.25, 0.75]]
    H[-1, -1], inverse[-1, -1] = factor * m * np.finfo(dtype).eps * 2, 0
    permutation = draw(st.permutations(range(m)))
    order = np.ix_(permutation, permutation)
    scale = 4.0 ** draw(st.integers(-20, 20))
    return (H[order] * scale).astype(dtype), (inverse[order] / scale).astype(dtype)


@about("inverse_gram")
@given(st.data(), st.sampled_from(("raise", "pinv")))
def test_eigenvalue_above_100_thresholds_is_inverted(subject: Subject, data: DataObject, singular: str) -> None:
    H, _ = data.draw(with_one_eigenvalue(subject.dtype, 128.0, 1e4))
    call = inverting(H, singular=singular)
    subject.judge(ratios.inverse_backward(subject.run(call), H), call=call)


@about("inverse_gram")
@given(st.data())
def test_eigenvalue_below_a_thousandth_of_the_threshold_is_refused(subject: Subject, data: DataObject) -> None:
    H, _ = data.draw(with_one_eigenvalue(subject.dtype, 1 / 1024, 1e-6, 0.0, -1 / 1024))
    subject.refuses(inverting(H), LinAlgError, r"\(\)")


@about("inverse_gram")
@given(st.data())
def test_eigenvalue_below_a_thousandth_of_the_threshold_counts_as_0_in_the_pseudoinverse(
    subject: Subject, data: DataObject
) -> None:
    H, inverse = data.draw(with_one_eigenvalue(subject.dtype, 1 / 1024, 1e-6, 0.0, -1 / 1024))
    call = inverting(H, singular="pinv")
    # Without what counts as 0, H is as well-conditioned as a matrix can be.
    regular = np.where(np.abs(H) < np.abs(H).max() / 9, 0, H)
    subject.judge(ratios.inverse_forward(subject.run(call), inverse, regular), call=call)


@about("inverse_gram")
@given(st.data(), st.sampled_from(("raise", "pinv")))
def test_eigenvalue_below_minus_100_thresholds_is_an_error(subject: Subject, data: DataObject, singular: str) -> None:
    H, _ = data.draw(with_one_eigenvalue(subject.dtype, -128.0, -1e6))
    subject.refuses(inverting(H, singular=singular), LinAlgError, r"\(\)")


@about("inverse_gram")
@given(st.data())
def test_between_the_thresholds_what_is_returned_solves_the_equation(subject: Subject, data: DataObject) -> None:
    H, _ = data.draw(with_one_eigenvalue(subject.dtype, 1 / 64, 0.5, 1.0, 2.0, 50.0))
    judge_unless_refused(subject, inverting(H))


@about("inverse_gram")
@given(st.data(), strategies.sizes(7))
def test_gram_matrix_of_duplicates_has_no_inverse(subject: Subject, data: DataObject, m: int) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, m, condition=10.0))
    rows = [*range(m), data.draw(st.integers(0, m - 1))]
    subject.refuses(inverting(H[np.ix_(rows, rows)]), LinAlgError, r"\(\)")


@about("inverse_gram")
@given(st.data(), st.sampled_from((1.0, 0.1, 1e-4)))
def test_inverse_of_near_duplicates_solves_its_equation_or_is_refused(
    subject: Subject, data: DataObject, gamma: float
) -> None:
    X = data.draw(strategies.data_matrices(subject.dtype, kinds=("near-duplicates", "offset", "tiny")))
    judge_unless_refused(subject, inverting(subject.gram(X, gamma=gamma)))


@about("inverse_gram")
@pytest.mark.parametrize("m", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("kind", POSITIVE_DEFINITE_TYPES)
def test_lapacks_matrix_types_are_inverted_or_refused(subject: Subject, kind: str, m: int) -> None:
    matrix_type = POSITIVE_DEFINITE_TYPES[kind]
    H = matrix_type.build(m, subject.dtype, m)
    if matrix_type.singular:
        subject.refuses(inverting(H), LinAlgError, r"\(\)")
        call = inverting(H, singular="pinv")
        subject.judge(*ratios.pseudoinverse(subject.run(call), H), call=call)
    else:
        judge_unless_refused(subject, inverting(H))


@about("inverse_gram")
@given(st.data(), st.sampled_from((0.5, 2.0, 1e3)))
def test_ridge_makes_singular_matrices_regular(subject: Subject, data: DataObject, relative: float) -> None:
    H = data.draw(strategies.singular_gram_matrices(subject.dtype))
    call = inverting(H, ridge=relative * float(H.max() or 1))
    subject.judge(*subject.errors(call, subject.run(call), subject.oracle.inverse_gram(H, **call.options)), call=call)


@about("inverse_gram")
@given(st.data())
def test_lower_triangle_counts_where_symmetry_is_lost_to_rounding(subject: Subject, data: DataObject) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, scale=1.0))
    call = inverting(H + np.triu(np.full_like(H, 90 * subject.eps * H.max()), 1))
    subject.judge(ratios.inverse_backward(subject.run(call), H), call=call)


def judge_unless_refused(subject: Subject, call: Call) -> None:
    """The backward error; and the forward one where its bound says something."""
    (H,) = call.arrays
    try:
        X = subject.run(call)
    except LinAlgError:
        smallest, largest = exact.extreme_eigenvalues(H)
        with subject.blamed_on(call):
            assert smallest <= 100 * len(H) * subject.eps * largest, (
                f"refused: eigenvalues {smallest:.3g} to {largest:.3g}"
            )
        return
    subject.judge(ratios.inverse_backward(X, H), call=call)
    condition = np.linalg.norm(H, 1) * np.linalg.norm(X, 1)
    if condition * len(H) * subject.eps / 2 >= 1:
        subject.note(f"inverse (forward): vacuous for conditions such as {condition:.0e}, backward error alone")
    else:
        # Not the oracle: near the threshold `reference` may refuse what another backend need not.
        subject.judge(*subject.errors(call, X, exact.inverse_gram(H)), call=call)
