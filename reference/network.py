"""A multilayer perceptron by hand: ReLU between the layers, forward and backward passes as formulas."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from reference import _checks as check
from reference._checks import Array
from reference.step import weight_gradient


@dataclass(frozen=True)
class Layer:
    """One fully connected layer, or its gradient: weight (out, in), bias (out,)."""

    weight: Array
    bias: Array


def initial_layers(sizes: Sequence[int], seed: int) -> tuple[Layer, ...]:
    """Layers of `sizes` (d, hidden…, n_c), every entry uniform in ±1/√in. ValueError for fewer than two."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: expected at least two integers >= 1, got {list(sizes)}")
    generator = np.random.default_rng(seed)
    return tuple(
        Layer(*(generator.uniform(-1, 1, shape) / np.sqrt(d_in) for shape in ((d_out, d_in), (d_out,))))
        for d_in, d_out in pairwise(sizes)
    )


def forward(layers: Sequence[Layer], X: ArrayLike) -> tuple[Array, tuple[Array, ...]]:
    """The logits (m, n_c) of X (m, d), and every layer's input: z₀ = X, z_{t+1} = max(0, z_t·W_tᵀ + b_t).

    Raises TypeError (X not real), ValueError (shape, non-finite), FloatingPointError (the logits overflow).
    """
    z = check.real_array("X", X)
    check.rank("X", z, 2)
    check.shape("X", z, (len(z), layers[0].weight.shape[1]), "the columns of the first layer's weight")
    check.finite(X=z)
    inputs = []
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in layers:
            inputs.append(z)
            output = z @ layer.weight.T + layer.bias
            z = np.maximum(output, 0)
    return check.no_overflow("forward", output), tuple(inputs)


def backward(layers: Sequence[Layer], inputs: Sequence[Array], dlogits: ArrayLike) -> tuple[Layer, ...]:
    """∂J/∂W_t = δ_tᵀ·z_t and ∂J/∂b_t = Σ_k δ_tk for every layer, with δ_T = ∂J/∂logits, δ_{t−1} = (δ_t·W_t)∘[z_t > 0].

    `inputs` are those of `forward`. At a kink the derivative of ReLU is taken as 0, as torch does. Raises as
    `weight_gradient` does.
    """
    delta = check.real_array("dlogits", dlogits)
    check.finite(dlogits=delta)
    gradients = []
    with np.errstate(over="ignore", invalid="ignore"):
        for layer, z in zip(reversed(layers), reversed(inputs), strict=True):
            check.no_overflow("backward", delta)
            gradients.append(Layer(weight_gradient(delta, z), np.sum(delta, axis=0)))
            delta = (delta @ layer.weight) * (z > 0)
    return tuple(reversed(gradients))
