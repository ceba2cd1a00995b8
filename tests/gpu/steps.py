"""One layer, its gradient, and what a step of Kernel SGD is by the reference."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import reference
from gpu.optim import CachedInverse
from tests.gpu.networks import parameter, tensor
from tests.support import ratios
from tests.support.strategies import Preconditioned

Array = NDArray[np.floating]


def unchecked(inverse: Array) -> CachedInverse:
    return CachedInverse.unchecked(tensor(inverse, inverse.dtype.name))


def layer(*values: Array, gradients: Iterable[Array]) -> list[nn.Parameter]:
    """The parameters of one layer, of these values and gradients."""
    pairs = zip(values, gradients, strict=True)
    return [parameter(tensor(v, v.dtype.name), tensor(g, g.dtype.name)) for v, g in pairs]


def found(p: Tensor) -> Array:
    return p.detach().numpy()


def assert_is_step(computed: Array, W: Array, grad: Array, inverse: Array, lr: float, largest: Array) -> None:
    """W − lr · grad · P within the step's ratio, `largest` the size of the terms that grad is the sum of."""
    P = reference.reshape_inverse(inverse, W.shape[1])
    exact = reference.kernel_sgd_step(W, grad, P, lr)
    kind = computed.dtype
    arguments = (np.asarray(part, kind) for part in (W, largest, P))
    ratios.assert_within(ratios.step(computed, exact, *arguments, lr))


def with_bias(case: Preconditioned, seed: int) -> tuple[Array, Array]:
    """A bias and its gradient for this layer."""
    generator = np.random.default_rng(seed)
    bias, gradient = (generator.standard_normal(len(case.W)).astype(case.W.dtype) for _ in range(2))
    return bias, gradient
