"""The multilayer perceptron: what it computes, and that its backward pass is the derivative of its forward pass."""

from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from reference.network import Layer, backward, forward, initial_layers
from tests.support import strategies

Array = NDArray[np.float64]
Network = tuple[Layer, ...]

ANY_DEPTH, ONE_LAYER, TWO_LAYERS = st.integers(0, 2), st.just(0), st.just(1)


def integers(*shape: int) -> st.SearchStrategy[Array]:
    """Small enough that whole networks of them compute without rounding."""
    return hnp.arrays("int64", shape, elements=st.integers(-4, 4)).map(lambda A: A.astype(float))


@st.composite
def integer_networks(draw: st.DrawFn, hidden: st.SearchStrategy[int] = ANY_DEPTH) -> tuple[Network, Array, Array]:
    """Layers, inputs and a gradient in the logits, all of small integers."""
    sizes, m = draw(strategies.network_sizes(hidden=hidden)), draw(strategies.sizes(4))
    layers = tuple(Layer(draw(integers(d_out, d_in)), draw(integers(d_out))) for d_in, d_out in pairwise(sizes))
    return layers, draw(integers(m, sizes[0])), draw(integers(m, sizes[-1]))


def moved(layers: Network, t: int, field: str, entry: tuple[int, ...], by: float) -> Network:
    values = {"weight": layers[t].weight.copy(), "bias": layers[t].bias.copy()}
    values[field][entry] += by
    return (*layers[:t], Layer(**values), *layers[t + 1 :])


@given(integer_networks())
def test_backward_is_the_central_difference_of_forward_bit_for_bit(case: tuple[Network, Array, Array]) -> None:
    layers, X, dlogits = case
    gradients = backward(layers, forward(layers, X)[1], dlogits)
    h = 2.0**-12
    for t, layer in enumerate(layers):
        for field in ("weight", "bias"):
            for entry in np.ndindex(getattr(layer, field).shape):
                (above, z), (below, z2) = (forward(moved(layers, t, field, entry, by), X) for by in (h, -h))
                # Where no unit switches between the two, the logits are affine in the entry and h divides exactly.
                if all(np.array_equal(a > 0, b > 0) for a, b in zip(z, z2, strict=True)):
                    derivative = (above - below) / (2 * h)
                    assert getattr(gradients[t], field)[entry] == np.sum(dlogits * derivative)


@given(integer_networks(ONE_LAYER), st.data())
def test_one_layer_is_affine_bit_for_bit(case: tuple[Network, Array, Array], data: st.DataObject) -> None:
    layers, X, _ = case
    Y = data.draw(integers(*X.shape))
    at = {name: forward(layers, x)[0] for name, x in (("X", X), ("Y", Y), ("X+Y", X + Y), ("0", 0 * X))}
    assert np.array_equal(at["X+Y"] + at["0"], at["X"] + at["Y"])
    assert np.array_equal(at["0"], np.broadcast_to(layers[0].bias, at["0"].shape))


@given(strategies.matrices())
def test_two_layers_make_the_absolute_value_of_its_positive_and_negative_part(X: Array) -> None:
    d = X.shape[1]
    both, zero = np.vstack((np.eye(d), -np.eye(d))), np.zeros
    assert np.array_equal(forward((Layer(both, zero(2 * d)), Layer(np.abs(both.T), zero(d))), X)[0], np.abs(X))


@given(integer_networks(TWO_LAYERS), st.randoms(use_true_random=False))
def test_permuting_hidden_units_permutes_the_gradient_and_leaves_the_logits_bit_for_bit(
    case: tuple[Network, Array, Array], random: Random
) -> None:
    (first, second), X, dlogits = case
    units = random.sample(range(len(first.bias)), len(first.bias))
    permuted = Layer(first.weight[units], first.bias[units]), Layer(second.weight[:, units], second.bias)
    (logits, inputs), (logits2, inputs2) = forward((first, second), X), forward(permuted, X)
    one, two = backward((first, second), inputs, dlogits), backward(permuted, inputs2, dlogits)
    assert np.array_equal(logits2, logits)
    assert np.array_equal(two[0].weight, one[0].weight[units])
    assert np.array_equal(two[0].bias, one[0].bias[units])
    assert np.array_equal(two[1].weight, one[1].weight[:, units])


@given(strategies.network_sizes(), strategies.seeds())
def test_initial_layers_are_seeded_and_within_one_over_the_root_of_their_inputs(
    sizes: tuple[int, ...], seed: int
) -> None:
    layers, again, other = (initial_layers(sizes, s) for s in (seed, seed, seed + 1))
    for (d_in, d_out), layer, same, different in zip(pairwise(sizes), layers, again, other, strict=True):
        assert (layer.weight.shape, layer.bias.shape) == ((d_out, d_in), (d_out,))
        assert max(np.abs(layer.weight).max(), np.abs(layer.bias).max()) <= 1 / np.sqrt(d_in)
        assert np.array_equal(layer.weight, same.weight)
        assert not np.array_equal(layer.weight, different.weight)
