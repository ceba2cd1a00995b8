"""The update rule of Eq. 5: exact values, what it is linear in, what never moves."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import U
from tests.support import ratios, strategies
from tests.support.strategies import Preconditioned, StepInputs

Array = NDArray[np.float64]


def rational(A: Array) -> NDArray[np.object_]:
    return np.array([[Fraction(entry) for entry in row] for row in A.tolist()])


@st.composite
def gradients_of_batches(draw: st.DrawFn) -> tuple[Array, Array]:
    """dlogits (m, n_c) and features (m, d_in)."""
    m = draw(strategies.INSTANCES)
    return draw(strategies.matrices(rows=m, columns=strategies.CLASSES)), draw(strategies.features(rows=m))


@given(gradients_of_batches())
def test_weight_gradient_is_the_sum_of_outer_products_over_the_instances(case: tuple[Array, Array]) -> None:
    d, Z = case
    exact = (rational(d).T @ rational(Z)).astype(float)
    ratios.assert_within(ratios.weight_gradient(reference.weight_gradient(d, Z), exact, d, Z))


@given(strategies.step_inputs())
def test_step_is_w_minus_lr_grad_p_as_written(inputs: StepInputs) -> None:
    W, G, P, lr = inputs
    exact = (rational(W) - Fraction(lr) * (rational(G) @ rational(P))).astype(float)
    ratios.assert_within(ratios.step(reference.kernel_sgd_step(*inputs), exact, *inputs))


@given(strategies.step_inputs(), strategies.learning_rates())
def test_two_steps_with_one_gradient_are_one_step_of_both_learning_rates(inputs: StepInputs, more: float) -> None:
    W, G, P, lr = inputs
    twice = reference.kernel_sgd_step(reference.kernel_sgd_step(W, G, P, lr), G, P, more)
    once = reference.kernel_sgd_step(W, G, P, lr + more)
    ratios.assert_within(ratios.step(twice, once, W, G, P, lr + more))


@given(strategies.step_inputs(), st.data())
def test_moves_of_two_gradients_add_up(inputs: StepInputs, data: st.DataObject) -> None:
    W, G, P, lr = inputs
    other = data.draw(strategies.matrices(rows=len(W), columns=len(P)))
    origin = np.zeros_like(W)
    first, second, both = (reference.kernel_sgd_step(origin, grad, P, lr) for grad in (G, other, G + other))
    ratios.assert_within(ratios.step(both, first + second, origin, np.abs(G) + np.abs(other), P, lr))


@given(gradients_of_batches(), strategies.learning_rates(), st.data())
def test_move_of_a_batch_is_the_sum_of_the_moves_of_its_instances_for_a_fixed_p(
    case: tuple[Array, Array], lr: float, data: st.DataObject
) -> None:
    d, Z = case
    P = data.draw(strategies.matrices(rows=Z.shape[1], columns=Z.shape[1]))
    origin = np.zeros((d.shape[1], Z.shape[1]))
    batch, *instances = (
        reference.kernel_sgd_step(origin, reference.weight_gradient(d[part], Z[part]), P, lr)
        for part in (slice(None), *([k] for k in range(len(d))))
    )
    ratios.assert_within(ratios.step(batch, sum(instances), origin, np.abs(d).T @ np.abs(Z), P, lr))


@given(strategies.step_inputs())
def test_step_with_the_identity_is_sgd_bit_for_bit(inputs: StepInputs) -> None:
    W, G, P, lr = inputs
    assert np.array_equal(reference.kernel_sgd_step(W, G, np.eye(len(P)), lr), W - lr * G)


@given(strategies.step_inputs(), st.data())
def test_entry_i_j_of_p_moves_column_j_by_column_i_of_the_gradient_bit_for_bit(
    inputs: StepInputs, data: st.DataObject
) -> None:
    W, G, P, lr = inputs
    i, j = (data.draw(st.integers(0, len(P) - 1)) for _ in range(2))
    unit = np.zeros_like(P)
    unit[i, j] = 1
    expected = W.copy()
    expected[:, j] -= lr * G[:, i]
    assert np.array_equal(reference.kernel_sgd_step(W, G, unit, lr), expected)


@given(strategies.preconditioned_gradients(columns=st.integers(2, 6)))
def test_columns_beyond_m_never_move_bit_for_bit(case: Preconditioned) -> None:
    W, G, inverse, lr = case
    m, d_in = len(inverse), W.shape[1]
    moved = reference.kernel_sgd_step(W, G, reference.reshape_inverse(inverse, d_in), lr)
    assert np.array_equal(moved[:, m:], W[:, m:])


@given(strategies.logits_and_labels(), st.data())
def test_class_sums_of_the_weights_never_move(batch: tuple[Array, NDArray[np.integer]], data: st.DataObject) -> None:
    f, y = batch
    m, n_c = f.shape
    Z = data.draw(strategies.features(rows=m))
    W, _, P, lr = data.draw(strategies.step_inputs(classes=n_c, columns=Z.shape[1]))
    _, d = reference.softmax_cross_entropy(f, y)
    moved = reference.kernel_sgd_step(W, reference.weight_gradient(d, Z), P, lr)
    # A row of the gradient sums to 0 but for (3·n_c + 3)·u/m; then the two products, the step and the sums here.
    size = (np.abs(d).sum(axis=1) + 1 / m) @ np.abs(Z) @ np.abs(P)
    rounding = (3 * n_c + m + W.shape[1] + 8) * U * (2 * np.abs(W).sum(axis=0) + 2 * lr * size)
    assert np.all(np.abs(moved.sum(axis=0) - W.sum(axis=0)) <= rounding)
