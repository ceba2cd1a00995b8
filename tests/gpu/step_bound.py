"""How far two correct computations of one step of Algorithm 1 may be apart.

Every rounding error of the forward pass, the loss, the backward pass and the update is carried through to the weights,
to first order in u. A sum of k products has an error of at most (k + 2)·u times the sum of their sizes, in whatever
order, and errors of its operands go through the same sum of sizes. ReLU passes errors on; where the sign of its
argument is in doubt, so is its derivative. A softmax moves by a factor of at most exp(2e) under errors e of its logits.
What is returned is twice that: one half for either computation (the reference's, in float64, needs less).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reference.algorithm import Settings, State
from reference.network import Layer
from reference.reshape import reshape_inverse

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """Bounds on the difference of two computed losses, of every layer's parameters, and of every layer's velocity."""

    loss: float
    layers: tuple[Layer, ...]
    velocity: tuple[Layer, ...]


@dataclass(frozen=True)
class Uncertain:
    """A matrix and a bound on its error, entry by entry."""

    value: Array
    error: Array

    def times(self, B: Array, B_error: Array | float, u: float) -> "Uncertain":
        """The product with B, (k + 2)·u for its own rounding."""
        own = (len(B) + 2) * u * (abs(self.value) @ abs(B))
        B_error = np.broadcast_to(B_error, B.shape)
        return Uncertain(self.value @ B, self.error @ abs(B) + abs(self.value) @ B_error + own)


def step_bound(state: State, x: Array, y: NDArray[np.int64], inverse: Array, s: Settings, dtype: str) -> Bound:
    """The bound for the step that `reference.algorithm.step` takes with these arguments, computed in this dtype."""
    u, tiny = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).tiny)
    features, logits = _forward(state, x, u, tiny)
    loss_error, delta = _loss(logits, y, u, tiny)
    moved = []
    for t in range(len(features) - 1, -1, -1):
        layer, z = state.layers[t], features[t]
        preconditioned = s.layers == "all" or (s.layers == "last" and t == len(features) - 1)
        gradient = Uncertain(delta.value.T, delta.error.T).times(_with_ones(z.value, 1), _with_ones(z.error, 0), u)
        moved.append(_update(layer, state.velocity[t], gradient, inverse if preconditioned else None, s, u, tiny))
        delta = _through_relu(delta.times(layer.weight, 0.0, u), z)
    layers, velocities = zip(*reversed(moved), strict=True)
    return Bound(2 * loss_error, layers, velocities)


def assert_close(computed: tuple[Layer, ...], exact: tuple[Layer, ...], bound: tuple[Layer, ...], what: str) -> None:
    """Every parameter, or velocity, of every layer within its bound."""
    for t, (ours, theirs, allowed) in enumerate(zip(computed, exact, bound, strict=True)):
        for name in ("weight", "bias"):
            worst = (abs(getattr(ours, name) - getattr(theirs, name)) / getattr(allowed, name)).max()
            assert worst <= 1, f"{what}, {name} of layer {t}: {worst:.3g} times the bound of one step"


def _forward(state: State, x: Array, u: float, tiny: float) -> tuple[list[Uncertain], Uncertain]:
    """Every layer's input, and the logits."""
    z, features = Uncertain(x, np.zeros_like(x)), []
    for layer in state.layers:
        features.append(z)
        with_bias = np.vstack((layer.weight.T, layer.bias))
        f = Uncertain(_with_ones(z.value, 1), _with_ones(z.error, 0)).times(with_bias, 0.0, u)
        f = Uncertain(f.value, f.error + tiny)
        z = Uncertain(np.maximum(f.value, 0), np.where(f.value < -f.error, 0, f.error))
    return features, f


def _loss(logits: Uncertain, y: NDArray[np.int64], u: float, tiny: float) -> tuple[float, Uncertain]:
    """The error of the mean cross-entropy, and its gradient in the logits."""
    m, classes = logits.value.shape
    below = logits.value.max(1, keepdims=True) - logits.value
    total = np.exp(-below).sum(1, keepdims=True)
    p, label = np.exp(-below) / total, np.eye(classes)[y]
    widest = logits.error.max(1, keepdims=True)
    factor = np.expm1(2 * np.minimum(widest, 300)) + u * (classes + 4 + below)
    error = np.minimum(p * factor, 1) + 3 * u * label + tiny
    mean = (np.log(total) + below)[label > 0].mean()
    loss_error = 2 * widest.mean() + u * ((m + 3) * mean + classes + 3 + below[label > 0].mean()) + tiny
    return float(loss_error), Uncertain((p - label) / m, error / m)


def _through_relu(delta: Uncertain, z: Uncertain) -> Uncertain:
    """∂J before the ReLU whose output is z; the whole derivative is in doubt where z may be 0 or not."""
    doubtful, active = (z.value <= z.error) & (z.error > 0), z.value > 0
    error = np.where(doubtful, abs(delta.value) + delta.error, np.where(active, delta.error, 0))
    return Uncertain(delta.value * active, error)


def _update(
    layer: Layer, velocity: Layer, gradient: Uncertain, inverse: Array | None, s: Settings, u: float, tiny: float
) -> tuple[Layer, Layer]:
    W, v = (np.column_stack((part.weight, part.bias)) for part in (layer, velocity))
    P = np.eye(W.shape[1])
    if inverse is not None:
        k = W.shape[1] - (s.bias == "plain")
        P[:k, :k] = reshape_inverse(inverse, k)
    wd = s.weight_decay if s.decay == "l2" else 0.0
    G = Uncertain(
        gradient.value + wd * W,
        gradient.error + 3 * u * (abs(gradient.value) + wd * abs(W)) + tiny,
    )
    D = G.times(P, 0.0, u)
    v_error = D.error + 3 * u * (s.momentum * abs(v) + abs(G.value) @ abs(P)) + tiny
    # The step may be added to W product by product, so that its sum is rounded at the size of W.
    steps = len(P) + 5
    W_error = s.lr * v_error + steps * u * (abs(W) + s.lr * (s.momentum * abs(v) + abs(G.value) @ abs(P))) + tiny
    return (
        Layer(2 * W_error[:, :-1], 2 * W_error[:, -1]),
        Layer(2 * v_error[:, :-1], 2 * v_error[:, -1]),
    )


def _with_ones(z: Array, filling: float) -> Array:
    return np.column_stack((z, np.full(len(z), filling)))
