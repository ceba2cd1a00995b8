"""Every condition for a loss that does not rise, against the loss itself after the step as the optimizer takes it."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import reference
from reference import conditions
from tests.reference.bounds import U
from tests.support import strategies

Array = NDArray[np.float64]


class Layer(NamedTuple):
    """A last layer over a mini-batch: logits Z·Wᵀ + b, labels y, and whether b moves by SGD."""

    W: Array
    b: Array
    Z: Array
    y: NDArray[np.integer]
    bias: bool

    def residual(self) -> Array:
        """Softmax − one-hot."""
        return len(self.Z) * reference.softmax_cross_entropy(self.Z @ self.W.T + self.b, self.y)[1]

    def losses(self, P: Array, lr: float) -> tuple[float, float]:
        """The loss before and after one step."""
        before, d = reference.softmax_cross_entropy(self.Z @ self.W.T + self.b, self.y)
        W = reference.kernel_sgd_step(self.W, reference.weight_gradient(d, self.Z), P, lr)
        b = self.b - lr * self.bias * d.sum(axis=0)
        after, _ = reference.softmax_cross_entropy(self.Z @ W.T + b, self.y)
        return float(before), float(after)

    def rounding(self, P: Array, lr: float) -> float:
        """How far rounding may move the difference of the two losses.

        J follows the largest error of a logit with a slope of at most 2. A logit is wrong by u·size times the number of
        its terms, and so is the move η·KR, which also inherits the error of R, that of the logits. The same covers an
        η that was computed from a rounded K.
        """
        m, d = self.Z.shape
        Z, W = np.abs(self.Z), np.abs(self.W)
        size = (Z @ W.T + np.abs(self.b)).max()
        move = lr * (Z @ np.abs(P) @ Z.T + self.bias).sum(axis=1).max() / m
        return float(10 * (m + d + len(W) + 5) * U * (1 + size) * (1 + move))


def integers(rows: int, columns: int, largest: int = 9) -> st.SearchStrategy[Array]:
    elements = st.integers(-largest, largest)
    return hnp.arrays("int64", (rows, columns), elements=elements, fill=st.nothing()).map(lambda A: A.astype(float))


@st.composite
def any_layers(draw: st.DrawFn) -> Layer:
    """Layers with logits in about ±10: beyond, the gradient vanishes or the loss is as good as linear."""
    m, n_c, d = draw(strategies.INSTANCES), draw(strategies.CLASSES), draw(strategies.FEATURES)
    Z, W = draw(strategies.features(rows=m, columns=d)), draw(strategies.matrices(rows=n_c, columns=d))
    W = W / max(1.0, (np.abs(Z) @ np.abs(W).T).max() / 10)
    b = draw(strategies.matrices(rows=1, columns=n_c)).clip(-5, 5)[0]
    return Layer(W, b, Z, draw(strategies.labels(m, n_c)), draw(st.booleans()))


@st.composite
def balanced_layers(draw: st.DrawFn) -> Layer:
    """Every instance with both of two labels, parallel features, small logits: where the bounds are attained."""
    x, z = draw(integers(draw(strategies.sizes(4)), 1)), draw(integers(1, draw(strategies.FEATURES)))
    W = np.vstack((z, -z)) / max(1.0, np.abs(x).max() * np.sum(z**2)) * draw(st.sampled_from((0.1, 0.001)))
    return Layer(W, np.zeros(2), np.repeat(x @ z, 2, axis=0), np.tile([0, 1], len(x)), False)


def layers() -> st.SearchStrategy[Layer]:
    return any_layers() | balanced_layers()


@st.composite
def preconditioners(draw: st.DrawFn, d_in: int) -> Array:
    """Positive semi-definite P: of low rank, or an inverse that has been padded or truncated."""
    if draw(st.booleans()):
        return draw(strategies.positive_semidefinite_matrices(size=d_in))
    H = draw(strategies.gram_matrices(condition=st.sampled_from((1.0, 1e2, 1e4)), scale=1.0))
    return reference.reshape_inverse(reference.inverse_gram(H), d_in)


@st.composite
def preconditioned_layers(draw: st.DrawFn) -> tuple[Layer, Array]:
    layer = draw(layers())
    return layer, draw(preconditioners(layer.Z.shape[1]))


@st.composite
def instances(draw: st.DrawFn) -> tuple[Layer, Array, float]:
    """A layer over one instance, any P (integers: the sign of zᵀPz is exact), and a learning rate."""
    n_c, d = draw(st.integers(2, 5)), draw(strategies.FEATURES)
    z, W, P = (draw(integers(rows, d)) for rows in (1, n_c, d))
    layer = Layer(W / draw(st.sampled_from((1, 10, 100))), np.zeros(n_c), z, draw(strategies.labels(1, n_c)), False)
    return layer, P, draw(strategies.learning_rates())


@st.composite
def integer_layers(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Features, P and a residual of integers (K and its products are exact), often with equality of the two rates."""
    m, d = draw(st.sampled_from((1, 2, 4, 8))), draw(strategies.FEATURES)
    P = draw(strategies.positive_semidefinite_matrices(size=d))
    if draw(st.booleans()):
        return draw(integers(m, d)), P, draw(integers(m, draw(strategies.CLASSES)))
    return draw(integers(m, 1, 3)) @ draw(integers(1, d, 3)), P, draw(integers(m, 1)) * np.array([[1, -1]])


@given(instances())
def test_loss_of_one_instance_never_rises_where_the_instance_form_is_not_negative(
    case: tuple[Layer, Array, float],
) -> None:
    layer, P, lr = case
    if conditions.instance_form(layer.Z[0], P) < 0:
        P = -P
    before, after = layer.losses(P, lr)
    assert after <= before + layer.rounding(P, lr)


@given(instances())
def test_loss_of_one_instance_rises_where_the_instance_form_is_negative(case: tuple[Layer, Array, float]) -> None:
    layer, P, lr = case
    if conditions.instance_form(layer.Z[0], P) > 0:
        P = -P
    form = conditions.instance_form(layer.Z[0], P)
    before, after = layer.losses(P, lr)
    # J is convex, and the step moves the logits by −η·zᵀPz·R, R being its gradient.
    assert after - before >= lr * -form * np.sum(layer.residual() ** 2) - layer.rounding(P, lr)


@given(preconditioned_layers(), st.sampled_from((1.0, 0.5, 1e-3)))
def test_loss_does_not_rise_up_to_four_over_the_largest_eigenvalue(case: tuple[Layer, Array], fraction: float) -> None:
    layer, P = case
    lr = fraction * min(conditions.max_learning_rate(layer.Z, P, bias=layer.bias), 1e6)
    before, after = layer.losses(P, lr)
    assert after <= before + layer.rounding(P, lr)


@given(preconditioned_layers(), st.sampled_from((1.0, 0.5, 1e-3)))
def test_loss_does_not_rise_up_to_the_sharp_learning_rate(case: tuple[Layer, Array], fraction: float) -> None:
    layer, P = case
    lr = fraction * min(conditions.sharp_learning_rate(layer.Z, P, layer.residual(), bias=layer.bias), 1e6)
    before, after = layer.losses(P, lr)
    assert after <= before + layer.rounding(P, lr)


@given(integer_layers(), st.booleans())
def test_sharp_learning_rate_is_never_below_the_one_for_all_labels(
    case: tuple[Array, Array, Array], bias: bool
) -> None:
    Z, P, R = case
    sharp, safe = conditions.sharp_learning_rate(Z, P, R, bias=bias), conditions.max_learning_rate(Z, P, bias=bias)
    assert sharp >= safe * (1 - 30 * len(Z) * U)  # the eigenvalue's rounding


@given(integer_layers(), st.integers(-900, 900))
def test_sharp_learning_rate_is_inverse_to_the_size_of_p_however_small_or_large(
    case: tuple[Array, Array, Array], exponent: int
) -> None:
    Z, P, R = case
    scaled = conditions.sharp_learning_rate(Z, np.ldexp(P, exponent), R)
    assert scaled == np.ldexp(conditions.sharp_learning_rate(Z, P, R), -exponent)


@given(st.integers(1, 6).map(lambda exponent: 10.0**-exponent))
def test_four_cannot_be_replaced_by_a_larger_number(excess: float) -> None:
    """Two instances, equal but for their labels, two classes: at a small weight, 4·(1 + ε) already raises the loss."""
    a = np.sqrt(excess)
    layer = Layer(np.array([[a / 2], [-a / 2]]), np.zeros(2), np.ones((2, 1)), np.array([0, 1]), False)
    P = np.ones((1, 1))
    limits = conditions.max_learning_rate(layer.Z, P), conditions.sharp_learning_rate(layer.Z, P, layer.residual())
    assert np.allclose(limits, 4, rtol=100 * U / a, atol=0)  # R, about a/4, is wrong by a few u

    before, after = layer.losses(P, 4 * (1 + excess))
    # The margin a → a − 2η·(σ(a) − ½) overshoots to −a·(1 + 2ε) + O(a³): the loss grows by about ε²/2.
    assert after - before > excess**2 / 4 > layer.rounding(P, 5.0)


@given(strategies.sizes().flatmap(lambda m: integers(m, 1)), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_positive_semidefinite_p_has_a_safe_learning_rate_even_where_all_cancels(
    x: Array, p: int, q: int, bias: bool
) -> None:
    Z = x * np.array([[q, p]]) / 10  # orthogonal to the range of P but for the rounding of tenths
    P = np.outer((p, -q), (p, -q))
    assert conditions.max_learning_rate(Z, P, bias=bias) > 0


@given(strategies.indefinite_matrices())
def test_an_indefinite_p_has_no_safe_learning_rate(P: Array) -> None:
    with pytest.raises(np.linalg.LinAlgError, match="positive semi-definite"):
        conditions.max_learning_rate(np.eye(len(P)), P)


@given(
    layers(),
    strategies.positive_semidefinite_matrices(),
    st.sampled_from((3.9, 1.0, 1e-3)),
    st.sampled_from((0.0, 0.01, 1.0)),
)
def test_guaranteeing_ridge_keeps_the_loss_from_rising_whatever_the_kernel_matrix(
    layer: Layer, H: Array, lr: float, scale: float
) -> None:
    ridge = conditions.guaranteeing_ridge(layer.Z, lr, bias=layer.bias) or 1.0  # 0 for Z = 0
    H = scale * ridge * H
    P = reference.reshape_inverse(reference.inverse_gram(H, ridge=ridge), layer.Z.shape[1])
    before, after = layer.losses(P, lr)
    # The inverse is wrong by a multiple of the condition number of H + ridge·I.
    assert after <= before + layer.rounding(P, lr) * (1 + np.trace(H) / ridge)


@given(integers(1, 4).filter(np.any), st.integers(4, 8), st.sampled_from((3.9, 1.0, 1e-3)), st.booleans())
def test_guaranteeing_ridge_is_the_smallest(z: Array, m: int, lr: float, bias: bool) -> None:
    """Equal instances and H = 0 attain it."""
    Z = np.repeat(z, m, axis=0)
    ridge = conditions.guaranteeing_ridge(Z, lr, bias=bias)
    P = reference.reshape_inverse(reference.inverse_gram(np.zeros((m, m)), ridge=ridge), 4)
    assert abs(conditions.max_learning_rate(Z, P, bias=bias) - lr) <= 30 * m * U * lr


def test_rounding_that_is_forgiven_is_that_of_the_largest_row_of_the_terms() -> None:
    m = 8
    forgiven = 2 * m * np.finfo(np.float64).eps  # (m + d_in)·eps·‖K‖_∞, K diagonal with entries 1/m
    P = np.eye(m)
    P[-1, -1] = -forgiven / 2
    assert conditions.max_learning_rate(np.eye(m), P) == pytest.approx(4 * m)
    P[-1, -1] = -2 * forgiven
    with pytest.raises(np.linalg.LinAlgError, match="positive semi-definite"):
        conditions.max_learning_rate(np.eye(m), P)


def test_guaranteeing_ridge_is_that_of_the_largest_eigenvalue_and_by_default_without_a_bias() -> None:
    Z = np.diag([2.0, 1.0])  # λ_max(ZᵀZ/m) = 2
    assert conditions.guaranteeing_ridge(Z, 0.5) == pytest.approx(0.5 * 2 / 4)
    assert conditions.guaranteeing_ridge(Z, 0.5, bias=True) == pytest.approx(0.5 * 2 / 3.5)
