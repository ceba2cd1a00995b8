"""Algorithm 1 over fixed mini-batches: the end-to-end specification that training is held to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference._checks import Array, in_range, one_of, real_scalar, whole
from reference.inverse import inverse_gram
from reference.kernels import gram
from reference.loss import softmax_cross_entropy
from reference.network import Layer, backward, forward
from reference.reshape import reshape_inverse
from reference.step import kernel_sgd_step

Batches = Sequence[NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Settings:
    """What the paper fixes (η, γ, L2, the kernel) and what it leaves open.

    layers: which are preconditioned. bias: "plain" moves the biases by SGD, "augmented" makes each the last column of
    its W. decay: "l2" puts λ/2·‖(W, b)‖² into J, so that its gradient is preconditioned too; "decoupled" shrinks W and
    b by 1 − ηλ instead. momentum: on the preconditioned gradient.

    Raises ValueError for a `layers`, `bias` or `decay` it does not know, and a negative or infinite lr, weight_decay or
    momentum; what the kernel and its inverse are given, `gram` and `inverse_gram` check.
    """

    lr: float = 0.1
    kernel: str = "rbf"
    gamma: float = 0.01
    degree: int = 3
    coef0: float = 1.0
    ridge: float = 0.0
    singular: Literal["raise", "pinv"] = "pinv"
    layers: Literal["last", "all", "none"] = "last"
    bias: Literal["plain", "augmented"] = "plain"
    weight_decay: float = 0.0
    decay: Literal["l2", "decoupled"] = "l2"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        one_of("layers", self.layers, ("last", "all", "none"))
        one_of("bias", self.bias, ("plain", "augmented"))
        one_of("decay", self.decay, ("l2", "decoupled"))
        for name in ("lr", "weight_decay", "momentum"):
            in_range(name, real_scalar(name, getattr(self, name)), 0)


@dataclass(frozen=True)
class State:
    """The network and its velocity v (all zeros before the first step)."""

    layers: tuple[Layer, ...]
    velocity: tuple[Layer, ...]


def initial_state(layers: Sequence[Layer]) -> State:
    """The state before the first step."""
    at_rest = tuple(Layer(np.zeros_like(layer.weight), np.zeros_like(layer.bias)) for layer in layers)
    return State(tuple(layers), at_rest)


def inverses(X: ArrayLike, batches: Batches, settings: Settings) -> list[Array]:
    """H⁻¹ of every mini-batch (lines 4 and 5), each (m, m); raises as `gram` and `inverse_gram` do."""
    x, s = np.asarray(X), settings
    grams = (gram(x[batch], s.kernel, gamma=s.gamma, degree=s.degree, coef0=s.coef0) for batch in batches)
    return [inverse_gram(H, ridge=s.ridge, singular=s.singular) for H in grams]


def step(state: State, x: ArrayLike, y: ArrayLike, inverse: ArrayLike, settings: Settings) -> tuple[State, float]:
    """One mini-batch (lines 6 to 12): the next state, and the mean loss (without L2 term) before the step.

    D = (G + λW)·P ("l2") or G·P ("decoupled", and W ← (1 − ηλ)W); v ← μv + D; W ← W − ηv; P = I in plain layers.
    """
    logits, inputs = forward(state.layers, x)
    loss, dlogits = softmax_cross_entropy(logits, y)
    gradients = backward(state.layers, inputs, dlogits)
    preconditioned = {"last": {len(gradients) - 1}, "all": set(range(len(gradients))), "none": set()}[settings.layers]
    moved = [
        _move(layer, velocity, gradient, inverse if t in preconditioned else None, settings)
        for t, (layer, velocity, gradient) in enumerate(zip(state.layers, state.velocity, gradients, strict=True))
    ]
    return State(tuple(layer for layer, _ in moved), tuple(velocity for _, velocity in moved)), float(loss)


def train(
    layers: Sequence[Layer], X: ArrayLike, y: ArrayLike, batches: Batches, epochs: int, settings: Settings
) -> tuple[list[float], State]:
    """Algorithm 1: the mean loss of every mini-batch before its step, and the state after `epochs` epochs.

    Raises ValueError where y has another length than X or `epochs` is no integer ≥ 0, and as the operations do.
    """
    x, labels = np.asarray(X), np.asarray(y)
    if labels.shape != x.shape[:1]:
        raise ValueError(f"y: expected one label for every row of X, shape {x.shape[:1]}, got {labels.shape}")
    epochs = whole("epochs", real_scalar("epochs", epochs), 0)
    cached = inverses(x, batches, settings)
    state, losses = initial_state(layers), []
    for _ in range(epochs):
        for batch, inverse in zip(batches, cached, strict=True):
            state, loss = step(state, x[batch], labels[batch], inverse, settings)
            losses.append(loss)
    return losses, state


def _move(
    layer: Layer, velocity: Layer, gradient: Layer, inverse: ArrayLike | None, s: Settings
) -> tuple[Layer, Layer]:
    """One layer's step: [W, b] as one matrix under the preconditioner of its bias rule."""
    W, v, G = (np.column_stack((part.weight, part.bias)) for part in (layer, velocity, gradient))
    P = _preconditioner(inverse, W.shape[1], s.bias)
    if s.decay == "l2":
        G = G + s.weight_decay * W
    else:
        W = (1 - s.lr * s.weight_decay) * W
    direction = -kernel_sgd_step(np.zeros_like(G), G, P, 1.0)
    v = s.momentum * v + direction
    W = W - s.lr * v
    return Layer(W[:, :-1], W[:, -1]), Layer(v[:, :-1], v[:, -1])


def _preconditioner(inverse: ArrayLike | None, columns: int, bias: str) -> Array:
    """P over the columns of [W, b]: the identity, diag(P, 1) with a plain bias, or P over all of them."""
    if inverse is None:
        return np.eye(columns)
    if bias == "augmented":
        return reshape_inverse(inverse, columns)
    P = np.eye(columns)
    P[:-1, :-1] = reshape_inverse(inverse, columns - 1)
    return P
