"""Softmax cross-entropy: the exact formulas at every scale of the logits, derivatives, symmetries."""

from decimal import Decimal, localcontext
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import U, central_difference, loss_rounding, third_moment
from tests.support import ratios, strategies

Array = NDArray[np.float64]
Labels = NDArray[np.integer]
Batch = tuple[Array, Labels]


def exact_cross_entropy(f: Array, y: Labels) -> tuple[float, Array]:
    """Mean loss and gradient of the logits f by their formulas, in 40 digits."""
    m = len(f)
    loss, gradient = Decimal(0), np.zeros(f.shape)
    with localcontext(prec=40):
        for k, (row, label) in enumerate(zip(f.tolist(), y.tolist(), strict=True)):
            exponentials = [Decimal(logit).exp() for logit in row]
            total = sum(exponentials)
            loss += (total.ln() - Decimal(row[label])) / m
            gradient[k] = [(e / total - (j == label)) / m for j, e in enumerate(exponentials)]
    return float(loss), gradient


@st.composite
def batches_and_directions(draw: st.DrawFn, directions: int = 1) -> tuple[Batch, list[Array]]:
    """Logits with labels, and directions in the logits with entries in [−1, 1]."""
    f, y = draw(strategies.logits_and_labels())
    drawn = [draw(strategies.matrices(rows=f.shape[0], columns=f.shape[1])) for _ in range(directions)]
    return (f, y), [V / (np.abs(V).max() or 1.0) for V in drawn]


@given(strategies.logits_and_labels())
def test_loss_and_gradient_are_the_formulas_at_every_scale_of_the_logits(batch: Batch) -> None:
    (J, G), (loss, gradient) = reference.softmax_cross_entropy(*batch), exact_cross_entropy(*batch)
    ratios.assert_within(ratios.loss(J, loss, *batch), ratios.loss_gradient(G, gradient, *batch))


@given(strategies.logits_and_labels())
def test_gradient_is_the_central_difference_of_the_loss(batch: Batch) -> None:
    f, y = batch
    m = len(f)
    _, G = reference.softmax_cross_entropy(f, y)
    h = 2.0**-12
    for entry in np.ndindex(f.shape):
        step = np.zeros_like(f)
        step[entry] = h
        (above, _), (below, _) = (reference.softmax_cross_entropy(moved, y) for moved in (f + step, f - step))
        # The moved logits are rounded as well, and J follows a logit with a slope of at most 1/m.
        rounding = loss_rounding(f, y, max(above, below)) + U * (np.abs(f).max() + h) / m
        difference, error = central_difference(above, below, h, third_moment(1) / m, rounding)
        assert abs(difference - G[entry]) <= error


@given(batches_and_directions())
def test_hessian_vector_product_is_the_central_difference_of_the_gradient(case: tuple[Batch, list[Array]]) -> None:
    (f, y), (V,) = case
    m, n_c = f.shape
    h = 2.0**-14
    (_, above), (_, below) = (reference.softmax_cross_entropy(moved, y) for moved in (f + h * V, f - h * V))
    # With c = v − ⟨p, v⟩ in [−2, 2] and variance σ² ≤ 1, p‴ = p(c³ − 3cσ² − ⟨p, c³⟩): at most 8 + 6 + 8/(6√3) < 15.
    truncation = 15 * h**2 / 6 / m
    # The gradient's own rounding (p·|f − max f| ≤ 1), and that of the moved logits; the Hessian's rows are ≤ ½.
    rounding = (ratios.THRESHOLD * U * (n_c + 5) + U * (np.abs(f).max() + h)) / m / h
    product = reference.softmax_cross_entropy_hvp(f, y, V)
    assert np.abs((above - below) / (2 * h) - product).max() <= truncation + rounding


@given(strategies.logits_and_labels())
def test_rows_of_the_gradient_sum_to_zero(batch: Batch) -> None:
    f, _ = batch
    m, n_c = f.shape
    _, G = reference.softmax_cross_entropy(*batch)
    # The sum over the classes, twice, and three roundings of every entry.
    assert np.abs(G.sum(axis=1)).max() <= (3 * n_c + 3) * U / m


@given(strategies.logits_and_labels(), st.integers(-(2**30), 2**30))
def test_shifting_all_logits_of_an_instance_changes_nothing_bit_for_bit(batch: Batch, shift: int) -> None:
    f, y = np.rint(batch[0]), batch[1]  # integers: the shift is exact
    moved = f.copy()
    moved[0] += shift
    for expected, found in zip(
        reference.softmax_cross_entropy(f, y), reference.softmax_cross_entropy(moved, y), strict=True
    ):
        assert np.array_equal(found, expected)


@given(strategies.logits_and_labels(), st.randoms(use_true_random=False))
def test_relabelling_the_classes_and_reordering_the_instances_permutes_the_gradient(
    batch: Batch, random: Random
) -> None:
    f, y = batch
    rows, classes = (random.sample(range(size), size) for size in f.shape)
    permuted, labels = f[np.ix_(rows, classes)], np.argsort(classes)[y][rows]
    (J, G), (found, gradient) = (reference.softmax_cross_entropy(*each) for each in (batch, (permuted, labels)))
    ratios.assert_within(
        ratios.loss(found, J, permuted, labels),
        ratios.loss_gradient(gradient, G[np.ix_(rows, classes)], permuted, labels),
    )


@given(batches_and_directions(2))
def test_hessian_is_symmetric_and_positive_semidefinite(case: tuple[Batch, list[Array]]) -> None:
    (f, y), (V, V2) = case
    product, product2 = (reference.softmax_cross_entropy_hvp(f, y, v) for v in (V, V2))
    # Every sum has terms of at most p·2/m in size, 2 altogether.
    rounding = 2 * U * (f.size + 2 * f.shape[1] + 6)
    assert abs(np.sum(V2 * product) - np.sum(V * product2)) <= 2 * rounding
    assert np.sum(V * product) >= -rounding


@given(strategies.logits_and_labels(), st.floats(-1e6, 1e6))
def test_hessian_annihilates_what_is_constant_over_the_classes(batch: Batch, constant: float) -> None:
    f, y = batch
    m, n_c = f.shape
    product = reference.softmax_cross_entropy_hvp(f, y, np.full_like(f, constant))
    assert np.abs(product).max() <= (2 * n_c + 4) * U * abs(constant) / m
