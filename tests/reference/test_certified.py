"""Every operation of the reference against the exact result of its formula, which ball arithmetic encloses.

The first link of the chain exact → reference → backend: how far the oracle of every other comparison is itself from
what it stands for. The examples are the worst of at least 10,000 inputs per operation, with the ratios they had.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.support import exact, ratios, strategies
from tests.support.matrix_types import POSITIVE_DEFINITE_TYPES
from tests.support.ratios import Ratio

Array = NDArray[np.float64]
Labels = NDArray[np.integer]
Options = dict[str, object]

LAPACK = {name: kind.build(5, "float64", 0) for name, kind in POSITIVE_DEFINITE_TYPES.items()}
WORST_OF_POLYNOMIAL = np.array(
    [
        [-0.12129189220088468, 0.02145541805120571, -0.00011310286476230712, 0.12178206366800821, -0.03485433926390587],
        [-0.0629268026575586, 0.13678013222087063, 0.04247445635815845, 0.02301832125708607, -0.06579863356342866],
    ]
)


def assert_certified(*found: Ratio) -> None:
    """The oracle's own error is at most a fifth of what a backend is allowed."""
    assert all(ratio.value <= ratios.THRESHOLD / 5 for ratio in found), "\n".join(map(str, found))


def gram_ratio(X: Array, options: Options) -> Ratio:
    return ratios.gram(reference.gram(X, **options), exact.gram(X, **options), X, **options)


@given(strategies.data_matrices(), strategies.kernels("rbf"))
@example(np.array([[-8.3], [-3.97]]), {"kernel": "rbf", "gamma": 10.0})  # 1.09
def test_the_rbf_kernel_is_certified(X: Array, options: Options) -> None:
    assert_certified(gram_ratio(X, options))


@given(strategies.data_matrices())
@example(np.array([[8.001, 1.001, 1.001, 1.001, 1.001]]))  # 0.58
def test_the_linear_kernel_is_certified(X: Array) -> None:
    assert_certified(gram_ratio(X, {"kernel": "linear"}))


@given(strategies.data_matrices(kinds=strategies.BOUNDED_KINDS), strategies.kernels("polynomial"))
@example(WORST_OF_POLYNOMIAL, {"kernel": "polynomial", "degree": 2, "gamma": 0.01, "coef0": 2.0})  # 1.48
def test_the_polynomial_kernel_is_certified(X: Array, options: Options) -> None:
    assert_certified(gram_ratio(X, options))


@given(strategies.gram_matrices())
@example(np.array([[3.9247984079432943]]))  # 3.91, the worst of 3,000,000 1 × 1 matrices
@example(np.array([[1e-150]]))  # 3.16, the worst drawn
def test_the_inverse_is_certified_backward_and_forward(H: Array) -> None:
    X = reference.inverse_gram(H)
    assert_certified(ratios.inverse_backward(X, H), ratios.inverse_forward(X, exact.inverse_gram(H), H))


@pytest.mark.parametrize("name", [name for name in LAPACK if not POSITIVE_DEFINITE_TYPES[name].singular])
def test_the_inverse_of_lapacks_matrix_types_is_certified(name: str) -> None:
    H = LAPACK[name]
    X = reference.inverse_gram(H)
    assert_certified(ratios.inverse_backward(X, H), ratios.inverse_forward(X, exact.inverse_gram(H), H))


@given(strategies.gram_matrices(), st.sampled_from((1e-3, 1.0, 1e3)))
def test_the_inverse_with_a_ridge_is_certified(H: Array, factor: float) -> None:
    ridge = float(factor * H.max())
    X, expected = reference.inverse_gram(H, ridge=ridge), exact.inverse_gram(H, ridge=ridge)
    assert_certified(ratios.inverse_backward(X, H, ridge=ridge), ratios.inverse_forward(X, expected, H, ridge=ridge))


@given(
    strategies.gram_matrices(condition=st.integers(0, 20).map(lambda exponent: 10.0**exponent))
    | strategies.singular_gram_matrices()
    | st.sampled_from(list(LAPACK.values()))
)
def test_singular_is_what_the_exact_eigenvalues_say(H: Array) -> None:
    """Within a factor of 100 of the threshold λ_min = m·eps·λ_max either answer may stand."""
    smallest, largest = exact.extreme_eigenvalues(H)
    threshold = len(H) * np.finfo(np.float64).eps * largest
    if smallest > 100 * threshold:
        reference.inverse_gram(H)
    if smallest < threshold / 100 or largest == 0:
        with pytest.raises(np.linalg.LinAlgError, match="numerically singular"):
            reference.inverse_gram(H)


@given(strategies.stacks(strategies.gram_matrices(size=4)), strategies.sizes(12))
def test_the_reshaped_inverse_is_exact_bit_for_bit(Hinv: Array, d_in: int) -> None:
    assert np.array_equal(reference.reshape_inverse(Hinv, d_in), exact.reshape_inverse(Hinv, d_in))


@given(strategies.logits_and_labels())
@example((1000 * np.array([[2, 1, 1], [1.0, 0, 1], *[[1, 1, 1]] * 5]), np.array([2, 1, 1, 1, 0, 1, 1])))  # 0.51
def test_the_loss_is_certified(batch: tuple[Array, Labels]) -> None:
    assert_certified(
        ratios.loss(reference.softmax_cross_entropy(*batch)[0], exact.softmax_cross_entropy(*batch)[0], *batch)
    )


@given(strategies.logits_and_labels())
@example((np.array([[-9.0, -2, 2]] * 7), np.zeros(7, int)))  # 1.24
def test_the_gradient_of_the_loss_is_certified(batch: tuple[Array, Labels]) -> None:
    found, expected = reference.softmax_cross_entropy(*batch)[1], exact.softmax_cross_entropy(*batch)[1]
    assert_certified(ratios.loss_gradient(found, expected, *batch))


@given(strategies.sizes().flatmap(lambda m: st.tuples(strategies.matrices(rows=m), strategies.features(rows=m))))
@example((np.array([[1.795], [0.007]]), np.array([[-1.127], [-1.065]])))  # 0.46
def test_the_weight_gradient_is_certified(batch: tuple[Array, Array]) -> None:
    assert_certified(ratios.weight_gradient(reference.weight_gradient(*batch), exact.weight_gradient(*batch), *batch))


@given(strategies.step_inputs())
@example(strategies.StepInputs(*np.array([[[0.5067669182948147]], [[1.2879252612892487]], [[1000.0]]]), 0.1))  # 0.71
def test_the_step_is_certified(inputs: strategies.StepInputs) -> None:
    assert_certified(ratios.step(reference.kernel_sgd_step(*inputs), exact.kernel_sgd_step(*inputs), *inputs))
