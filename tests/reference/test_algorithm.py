"""Algorithm 1: every step is the composition of the operations, and what its options and limits amount to."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from reference.algorithm import Settings, State, initial_state, inverses, step, train
from reference.network import Layer, backward, forward, initial_layers
from tests.reference.bounds import U
from tests.support import ratios, strategies

Array = NDArray[np.float64]
Labels = NDArray[np.integer]


class Case(NamedTuple):
    """One mini-batch, the state of a network before it, and the settings to step with."""

    state: State
    x: Array
    y: Labels
    settings: Settings

    def step(self, **options: object) -> tuple[State, float]:
        settings = replace(self.settings, **options)
        (inverse,) = inverses(self.x, [np.arange(len(self.x))], settings)
        return step(self.state, self.x, self.y, inverse, settings)

    def gradients(self) -> tuple[Layer, ...]:
        logits, inputs = forward(self.state.layers, self.x)
        return backward(self.state.layers, inputs, reference.softmax_cross_entropy(logits, self.y)[1])

    def kernel_inverse(self) -> Array:
        s = self.settings
        H = reference.gram(self.x, s.kernel, gamma=s.gamma, degree=s.degree, coef0=s.coef0)
        return reference.inverse_gram(H, ridge=s.ridge, singular="pinv")


@st.composite
def kernel_settings(draw: st.DrawFn) -> Settings:
    """A positive semi-definite kernel; no decay and no momentum."""
    kernel = draw(strategies.kernels())
    return Settings(
        lr=draw(strategies.learning_rates()),
        ridge=draw(st.sampled_from((0.0, 0.01))),
        bias=draw(st.sampled_from(("plain", "augmented"))),
        **kernel | {"coef0": abs(kernel.get("coef0", 0.0))},
    )


@st.composite
def cases(draw: st.DrawFn, rows: st.SearchStrategy[int] = strategies.INSTANCES) -> Case:
    sizes = draw(strategies.network_sizes())
    x = draw(strategies.data_matrices(rows=rows, columns=sizes[0], kinds=("random",)))
    layers = initial_layers(sizes, draw(strategies.seeds()))
    return Case(initial_state(layers), x, draw(strategies.labels(len(x), sizes[-1])), draw(kernel_settings()))


def joined(layer: Layer) -> Array:
    """[W, b]."""
    return np.column_stack((layer.weight, layer.bias))


def preconditioner(inverse: Array | None, columns: int, bias: str) -> Array:
    """P over the columns of [W, b], put together by hand; without an inverse that of SGD."""
    if inverse is None:
        return np.eye(columns)
    if bias == "augmented":
        return reference.reshape_inverse(inverse, columns)
    P = np.eye(columns)
    P[:-1, :-1] = reference.reshape_inverse(inverse, columns - 1)
    return P


def assert_steps(
    after: State, before: list[Array], gradients: list[Array], inverses: list[Array | None], s: Settings
) -> None:
    """Every layer is where one step of the operations takes it."""
    for layer, W, G, inverse in zip(after.layers, before, gradients, inverses, strict=True):
        P = preconditioner(inverse, W.shape[1], s.bias)
        ratios.assert_within(ratios.step(joined(layer), reference.kernel_sgd_step(W, G, P, s.lr), W, G, P, s.lr))


@given(cases(), st.sampled_from(("last", "all")))
def test_preconditioned_layers_step_by_gram_inverse_reshape_and_the_others_by_sgd(case: Case, layers: str) -> None:
    state, x, y, settings = case
    after, loss = case.step(layers=layers)
    inverse, others = case.kernel_inverse(), len(state.layers) - 1
    before, gradients = map(joined, state.layers), map(joined, case.gradients())
    assert_steps(after, before, gradients, [*others * [inverse if layers == "all" else None], inverse], settings)
    assert loss == reference.softmax_cross_entropy(forward(state.layers, x)[0], y)[0]


@given(cases())
def test_without_preconditioned_layers_a_step_is_sgd(case: Case) -> None:
    after, _ = case.step(layers="none")
    for layer, old, gradient in zip(after.layers, case.state.layers, case.gradients(), strict=True):
        assert np.array_equal(layer.weight, old.weight - case.settings.lr * gradient.weight)
        assert np.array_equal(layer.bias, old.bias - case.settings.lr * gradient.bias)


@given(cases(), st.sampled_from((1e-4, 0.1, 1.0)))
def test_l2_decay_is_preconditioned_with_the_rest_of_the_gradient(case: Case, decay: float) -> None:
    after, _ = case.step(layers="all", weight_decay=decay, decay="l2")
    before = [joined(layer) for layer in case.state.layers]
    gradients = [joined(G) + decay * W for G, W in zip(case.gradients(), before, strict=True)]
    assert_steps(after, before, gradients, len(before) * [case.kernel_inverse()], case.settings)


@given(cases(), st.sampled_from((1e-4, 0.1, 1.0)))
def test_decoupled_decay_shrinks_the_weights_before_the_plain_step(case: Case, decay: float) -> None:
    after, _ = case.step(layers="all", weight_decay=decay, decay="decoupled")
    shrunk = [(1 - case.settings.lr * decay) * joined(layer) for layer in case.state.layers]
    gradients = [joined(G) for G in case.gradients()]
    assert_steps(after, shrunk, gradients, len(shrunk) * [case.kernel_inverse()], case.settings)


@given(cases(rows=st.integers(1, 3)), st.sampled_from((1e-4, 0.1, 1.0)))
def test_only_decoupled_decay_moves_columns_beyond_m_bit_for_bit(case: Case, decay: float) -> None:
    m, last = len(case.x), case.state.layers[-1].weight
    preconditioned, _ = case.step(weight_decay=decay, decay="l2")
    decoupled, _ = case.step(weight_decay=decay, decay="decoupled")
    assert np.array_equal(preconditioned.layers[-1].weight[:, m:], last[:, m:])
    assert np.array_equal(decoupled.layers[-1].weight[:, m:], (1 - case.settings.lr * decay) * last[:, m:])


@given(cases(), st.sampled_from((0.5, 0.9)), st.sampled_from(("l2", "decoupled")))
def test_momentum_adds_mu_times_the_velocity_to_the_plain_step(case: Case, momentum: float, decay: str) -> None:
    lr, options = case.settings.lr, {"weight_decay": 0.1, "decay": decay}
    first, _ = case.step(momentum=momentum, **options)
    plain_first, _ = case.step(**options)
    second, _ = case._replace(state=first).step(momentum=momentum, **options)
    plain, _ = case._replace(state=first).step(**options)
    for start, one, also_one, two, without, v, v2 in zip(
        map(joined, case.state.layers),
        *(map(joined, layers) for layers in (first.layers, plain_first.layers, second.layers, plain.layers)),
        *(map(joined, velocity) for velocity in (first.velocity, second.velocity)),
        strict=True,
    ):
        assert np.array_equal(one, also_one)  # from rest
        assert np.array_equal(one, (1 - lr * 0.1 if decay == "decoupled" else 1) * start - lr * v)
        rounding = 8 * U * (np.abs(one) + lr * (np.abs(v2) + 2 * momentum * np.abs(v)))
        assert np.all(np.abs(two - (without - lr * momentum * v)) <= rounding)


@given(cases(rows=st.integers(1, 4)), st.sampled_from((0.0, 0.1)))
def test_augmented_bias_never_moves_under_zero_padding_bit_for_bit(case: Case, decay: float) -> None:
    last = case.state.layers[-1]
    m, columns = len(case.x), last.weight.shape[1] + 1
    after, _ = case.step(bias="augmented", weight_decay=decay)
    assert m >= columns or np.array_equal(after.layers[-1].bias, last.bias)


@given(cases(), st.data())
def test_large_gamma_is_sgd_on_the_leading_columns_bit_for_bit(case: Case, data: st.DataObject) -> None:
    m, d = case.x.shape
    rows = st.lists(st.tuples(*d * [st.integers(-4, 4)]), min_size=m, max_size=m, unique=True)
    case = case._replace(x=np.array(data.draw(rows), dtype=float))
    options = {"kernel": "rbf", "gamma": 746.0, "ridge": 0.0, "bias": "plain"}
    kernel, sgd = (case.step(layers=layers, **options)[0].layers for layers in ("last", "none"))
    old = case.state.layers[-1].weight
    for layer, other in zip(kernel[:-1], sgd[:-1], strict=True):
        assert np.array_equal(joined(layer), joined(other))
    assert np.array_equal(kernel[-1].weight, np.hstack((sgd[-1].weight[:, :m], old[:, m:])))
    assert np.array_equal(kernel[-1].bias, sgd[-1].bias)


def test_training_takes_its_steps_in_the_order_of_the_mini_batches() -> None:
    rng = np.random.default_rng(0)
    X, y, layers = rng.standard_normal((7, 3)), rng.integers(0, 2, 7), initial_layers((3, 4, 2), 0)
    batches = [np.array([4, 0, 2]), np.array([1, 6, 3]), np.array([5])]
    settings = Settings(momentum=0.9, weight_decay=0.01)
    losses, trained = train(layers, X, y, batches, 2, settings)

    state, expected = initial_state(layers), []
    for batch, inverse in 2 * list(zip(batches, inverses(X, batches, settings), strict=True)):
        state, loss = step(state, X[batch], y[batch], inverse, settings)
        expected.append(loss)
    _, reordered = train(layers, X, y, batches[::-1], 2, settings)
    assert losses == expected
    for layer, same, other in zip(trained.layers, state.layers, reordered.layers, strict=True):
        assert np.array_equal(joined(layer), joined(same))
        assert not np.array_equal(joined(layer), joined(other))


@pytest.mark.parametrize(
    ("labels", "epochs", "named"), [(8, 1, "y"), (6, 1, "y"), (7, -1, "epochs"), (7, 0.5, "epochs")]
)
def test_training_refuses_labels_of_other_instances_and_epochs_that_are_no_number(
    labels: int, epochs: float, named: str
) -> None:
    with pytest.raises(ValueError, match=f"^{named}: expected .*, got "):
        train(initial_layers((3, 2), 0), np.eye(7, 3), np.zeros(labels, int), [np.arange(7)], epochs, Settings())


@pytest.mark.parametrize(
    ("option", "value"),
    [("layers", "first"), ("bias", "joint"), ("decay", "L2")]
    + [(rate, value) for rate in ("lr", "weight_decay", "momentum") for value in (-1e-300, float("nan"), float("inf"))],
)
def test_settings_that_mean_nothing_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{option}: expected .*, got "):
        Settings(**{option: value})
