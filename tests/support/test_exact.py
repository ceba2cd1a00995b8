"""The exact results against rational arithmetic, decimals of 500 digits and values worked out by hand."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_mat
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support import exact, strategies

DTYPES = ("float64", "float32")
TWO = Fraction(2)
WIDEST = np.finfo(np.longdouble)
EXTREMES = (0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, -3e-300, 5e-324, 1 / 3)

Rational = np.ndarray[Any, np.dtype[np.object_]]


def rational(array: object) -> Rational:
    """The entries as fractions, exactly."""
    entries = np.asarray(array)
    out = np.empty(entries.shape, object)
    for index in np.ndindex(entries.shape):
        out[index] = Fraction(*entries[index].item().as_integer_ratio())
    return out


def assert_rounded_once(found: np.ndarray, expected: Rational, error: Fraction | int = 0) -> None:
    """|found − expected| is at most half a unit of the widest float, plus `error`."""
    assert (found.dtype, found.shape) == (np.longdouble, expected.shape)
    eps, subnormal = rational([WIDEST.eps, WIDEST.smallest_subnormal])
    bound = abs(expected) * (eps / 2 + TWO**-120) + subnormal / 2 + TWO**-1200 + error
    assert np.all(abs(rational(found) - expected) <= bound)


def inverse_and_determinant(A: Rational) -> tuple[Rational, Fraction]:
    """Gauss and Jordan's elimination with row exchanges; no inverse but a determinant of 0 where A is singular."""
    m, determinant = len(A), Fraction(1)
    A = np.hstack((A, rational(np.eye(m))))
    for k in range(m):
        pivot = next((row for row in range(k, m) if A[row, k]), None)
        if pivot is None:
            return A[:, m:], Fraction(0)
        A[[k, pivot]] = A[[pivot, k]]
        determinant *= A[k, k] if pivot == k else -A[k, k]
        A[k] = A[k] / A[k, k]
        for row in set(range(m)) - {k}:
            A[row] = A[row] - A[row, k] * A[k]
    return A[:, m:], determinant


@st.composite
def operands(draw: st.DrawFn, *shapes: str) -> list[np.ndarray]:
    """Matrices of one dtype, ordinary, or of entries from 5e-324 to 1e300; equal letters stand for equal sizes."""
    dtype = draw(strategies.dtypes())
    size = {letter: draw(strategies.sizes(4)) for letter in sorted(set("".join(shapes)))}
    if draw(st.booleans()):
        return [draw(strategies.matrices(dtype, *(size[letter] for letter in shape))) for shape in shapes]
    extreme = st.sampled_from(EXTREMES)
    return [draw(hnp.arrays("float64", [size[letter] for letter in shape], elements=extreme)) for shape in shapes]


def symmetric_matrices() -> st.SearchStrategy[np.ndarray]:
    """Positive definite of either dtype, exactly singular, or of extreme entries and indefinite."""
    return st.one_of(
        strategies.dtypes().flatmap(strategies.gram_matrices),
        strategies.singular_gram_matrices(),
        operands("mm").map(lambda drawn: np.tril(drawn[0]) + np.tril(drawn[0], -1).T),
    )


@given(st.integers(-(2**140), 2**140), st.integers(-1250, 900))
@example(2**53 + 1, 0)  # ties: to even, below and above, and among subnormal numbers
@example(2**53 + 3, 0)
@example(3, -1075)
@example(1, -1075)
@example(2**54 - 1, 970)  # rounded up, out of range
def test_a_midpoint_rounds_as_python_rounds_a_fraction(significand: int, exponent: int) -> None:
    ball = arb((significand, exponent))
    try:
        expected = float(significand * TWO**exponent)
    except OverflowError:
        with pytest.raises(FloatingPointError, match="beyond the range of float64"):
            exact.nearest(ball, "float64")
    else:
        assert exact.nearest(ball, "float64") == expected


@pytest.mark.parametrize("dtype", [*DTYPES, "longdouble"])
@given(st.integers(-(2**140), 2**140), st.integers(-220, -20))
def test_no_neighbour_in_the_dtype_is_nearer_to_a_midpoint(dtype: str, significand: int, exponent: int) -> None:
    found = exact.nearest(arb((significand, exponent)), dtype)
    neighbours = np.array([found, np.nextafter(found, -np.inf), np.nextafter(found, np.inf)])
    assert neighbours.dtype == dtype
    errors = abs(rational(neighbours) - significand * TWO**exponent)
    assert errors[0] == min(errors)


FORMULAS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., Rational], tuple[str, ...]]] = {
    "gram (linear)": (lambda X: exact.gram(X, "linear"), lambda X: X @ X.T, ("md",)),
    "gram (polynomial)": (
        lambda X: exact.gram(X, "polynomial", gamma=0.1, degree=3, coef0=-2.0),
        lambda X: (Fraction(0.1) * (X @ X.T) - 2) ** 3,
        ("md",),
    ),
    "weight gradient": (exact.weight_gradient, lambda d, z: d.T @ z, ("mc", "md")),
    "step": (
        lambda W, G, P: exact.kernel_sgd_step(W, G, P, 0.01),
        lambda W, G, P: W - Fraction(0.01) * (G @ P),
        ("cd", "cd", "dd"),
    ),
}


@pytest.mark.parametrize("operation", FORMULAS)
@given(data=st.data())
def test_sums_and_products_are_those_of_rational_arithmetic_rounded_once(operation: str, data: st.DataObject) -> None:
    found, expected, shapes = FORMULAS[operation]
    arrays = data.draw(operands(*shapes))
    assert_rounded_once(found(*arrays), expected(*map(rational, arrays)))


@given(operands("md"), st.sampled_from((1.0, 0.1, 1e-300, 1e300)))
def test_the_rbf_kernel_is_that_of_decimal_arithmetic(arrays: list[np.ndarray], gamma: float) -> None:
    X = rational(arrays[0])
    exponents = -Fraction(gamma) * np.square(X[:, None] - X).sum(axis=-1)
    expected = np.empty_like(exponents)
    with localcontext(prec=60):
        for index, exponent in np.ndenumerate(exponents):
            expected[index] = Fraction((Decimal(exponent.numerator) / exponent.denominator).exp())
    assert_rounded_once(exact.gram(arrays[0], gamma=gamma), expected)


@given(strategies.dtypes().flatmap(strategies.logits_and_labels))
def test_loss_and_gradient_are_those_of_decimal_arithmetic(batch: tuple[np.ndarray, np.ndarray]) -> None:
    f, y = batch
    m, loss, gradient = len(f), Decimal(0), np.empty(f.shape, object)
    with localcontext(prec=500):
        for k, (row, label) in enumerate(zip(f.tolist(), y, strict=True)):
            exponentials = [Decimal(logit).exp() for logit in row]
            total = sum(exponentials)
            loss += (total.ln() - Decimal(row[label])) / m
            gradient[k] = [Fraction((e / total - int(j == label)) / m) for j, e in enumerate(exponentials)]
    found = exact.softmax_cross_entropy(f, y)
    assert_rounded_once(np.array(found[0]), np.array(Fraction(loss)))
    assert_rounded_once(found[1], gradient)


def test_logits_at_both_ends_of_the_range_have_the_loss_of_the_largest_and_no_gradient_elsewhere() -> None:
    loss, gradient = exact.softmax_cross_entropy([[1e300, -1e300, 0]], [1])
    assert loss == 2 * np.longdouble(1e300)
    assert gradient.tolist() == [[1, -1, 0]]


@given(symmetric_matrices(), st.sampled_from((0.0, 0.1, 1e-300)))
def test_an_inverse_is_that_of_rational_elimination_and_a_singular_matrix_has_none(H: np.ndarray, ridge: float) -> None:
    A = rational(H) + Fraction(ridge) * rational(np.eye(len(H)))
    expected, determinant = inverse_and_determinant(A)
    if determinant == 0:
        with pytest.raises(np.linalg.LinAlgError, match="exactly singular"):
            exact.inverse_gram(H, ridge=ridge)
    else:
        assert_rounded_once(exact.inverse_gram(H, ridge=ridge), expected, TWO**-126 * abs(expected).max())


def positive_definite(A: Rational) -> bool:
    """Whether elimination meets positive pivots alone."""
    while len(A) and A[0, 0] > 0:
        A = A[1:, 1:] - np.outer(A[1:, 0], A[0, 1:]) / A[0, 0]
    return len(A) == 0


@given(symmetric_matrices(), st.sampled_from((0.0, 0.1)))
def test_a_matrix_less_any_number_below_its_smallest_eigenvalue_is_positive_definite_and_no_other(
    H: np.ndarray, ridge: float
) -> None:
    identity = rational(np.eye(len(H)))
    A = rational(H) + Fraction(ridge) * identity
    smallest, largest = rational(exact.extreme_eigenvalues(H, ridge=ridge))
    for matrix, eigenvalue in ((A, smallest), (-A, -largest)):
        margin = abs(eigenvalue) * TWO**-50 or TWO**-9000
        assert positive_definite(matrix - (eigenvalue - margin) * identity)
        assert not positive_definite(matrix - (eigenvalue + margin) * identity)


def test_extreme_eigenvalues_are_accurate_relative_to_themselves_repeated_or_close_or_far_apart() -> None:
    tiny, far = 2.0**-50, 2.0**-1000
    for H, expected in (
        ([[1, 1 - tiny], [1 - tiny, 1]], [tiny, 2 - tiny]),
        (np.diag([1e300, 3, 1e-300, 3]), [1e-300, 1e300]),
        ([[1, far], [far, 1]], [1, 1]),
        (-np.eye(3), [-1, -1]),
        (np.zeros((1, 1)), [0, 0]),
    ):
        assert exact.extreme_eigenvalues(H).astype(float).tolist() == expected
    assert exact.extreme_eigenvalues(np.ones((2, 3, 3)), ridge=0.5).tolist() == [[0.5, 3.5]] * 2


def test_the_lower_triangle_counts_and_the_ridge_is_added_before_inverting() -> None:
    H = [[1, 7], [1, 2]]
    assert exact.inverse_gram(H).tolist() == [[2, -1], [-1, 1]]
    assert exact.inverse_gram([[0, 7], [1, 1]], ridge=1.0).tolist() == [[2, -1], [-1, 1]]
    assert exact.extreme_eigenvalues([[0, 7], [1, 0]], ridge=1.0).tolist() == [0, 2]
    nearly = 2.0**52  # κ ≈ 2^54
    assert exact.inverse_gram([[1, 1], [1, 1 + 1 / nearly]]).tolist() == [[nearly + 1, -nearly], [-nearly, nearly]]


@pytest.mark.parametrize("d_in", [1, 3])
def test_reshaping_truncates_or_pads_with_zeros(d_in: int) -> None:
    inverse = exact.inverse_gram([[[1, 1], [1, 2]]])
    expected = {1: [[[2]]], 3: [[[2, -1, 0], [-1, 1, 0], [0, 0, 0]]]}
    assert exact.reshape_inverse(inverse, d_in).tolist() == expected[d_in]


@given(strategies.stacks(strategies.projections(size=3)))
def test_every_member_of_a_stack_has_the_result_it_has_alone(H: np.ndarray) -> None:
    for operation in (exact.gram, exact.inverse_gram, exact.extreme_eigenvalues, lambda A: exact.reshape_inverse(A, 2)):
        found = operation(H)
        assert found.shape[: H.ndim - 2] == H.shape[:-2]
        assert all(np.array_equal(found[index], operation(H[index])) for index in np.ndindex(H.shape[:-2]))


def test_parameters_are_not_rounded_to_the_dtype_of_the_arrays() -> None:
    one = np.ones((1, 1), "float32")
    third = 1 / 3
    assert exact.gram(one, "polynomial", gamma=third, degree=1, coef0=0.0) == third
    assert exact.gram(one, "polynomial", gamma=1.0, degree=1, coef0=third) == np.longdouble(1) + third
    assert exact.kernel_sgd_step(0 * one, -one, one, third) == third
    assert exact.extreme_eigenvalues(0 * one, ridge=third).tolist() == [third, third]


def test_a_loose_ball_is_refused_unless_it_is_tight_beside_the_largest_entry() -> None:
    def loose() -> arb_mat:
        return arb_mat([[1, arb(0, 2.0**-140)]])

    assert exact.certified(loose, normwise=True).tolist() == [[1, 0]]
    for balls in (loose, lambda: arb_mat([[arb(1, 2.0**-100)]]), lambda: arb_mat([[arb.nan()]])):
        with pytest.raises(ArithmeticError, match="no tight enclosure"):
            exact.certified(balls)


def test_a_precision_that_does_not_suffice_is_an_error_and_never_another_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancelling, nearly_singular = [[2.0**200, 1, 2.0**200], [2.0**200, 1, -(2.0**200)]], [[3, 3], [3, 3 + 2.0**-51]]
    cases = (lambda: exact.gram(cancelling, "linear"), lambda: exact.inverse_gram(nearly_singular))
    expected = [case().tolist() for case in cases]
    assert expected[0][0][1] == 1
    monkeypatch.setattr(exact, "SMALLEST_PRECISION", 16)
    assert [case().tolist() for case in cases] == expected
    monkeypatch.setattr(exact, "LARGEST_PRECISION", 64)
    for case in cases:
        with pytest.raises(ArithmeticError, match="no tight enclosure with up to 64 bits"):
            case()


def test_what_is_not_real_finite_or_known_is_an_error() -> None:
    for entry in (True, 1j, "1", None):
        with pytest.raises(TypeError, match="X: expected integers or floats of at most 64 bits"):
            exact.gram([[entry]])
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="H: expected finite entries"):
            exact.inverse_gram([[value]])
    with pytest.raises(ValueError, match="kernel: expected 'rbf', 'linear' or 'polynomial', got 'cubic'"):
        exact.gram([[1.0]], "cubic")
    with pytest.raises(FloatingPointError, match="beyond the range"):
        exact.gram([[1e300]], "polynomial", degree=30)
