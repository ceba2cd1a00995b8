"""The reference's networks in torch, and back: what the tests of the optimizer share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gpu.optim import KernelSGD, kernel_groups
from reference.algorithm import Settings
from reference.network import Layer


def tensor(array: ArrayLike, dtype: str | torch.dtype = torch.float64) -> Tensor:
    """A copy as a tensor."""
    return torch.tensor(np.asarray(array)).to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal entries."""
    return tensor(np.random.default_rng(seed).standard_normal(shape), dtype)


def parameter(values: Tensor, gradient: Tensor | None = None) -> nn.Parameter:
    """A parameter of these values, a copy, with this gradient."""
    p = nn.Parameter(values.clone())
    p.grad = None if gradient is None else gradient.clone()
    return p


def network(layers: Sequence[Layer], dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The network of `reference.network`: linear layers with ReLU between them."""
    modules: list[nn.Module] = []
    for layer in layers:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=dtype)
        linear.load_state_dict({"weight": tensor(layer.weight, dtype), "bias": tensor(layer.bias, dtype)})
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def layers_of(model: nn.Module) -> tuple[Layer, ...]:
    """Its weights and biases in float64."""
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return tuple(Layer(*(p.detach().double().numpy().copy() for p in (m.weight, m.bias))) for m in found)


def kernel_sgd(model: nn.Module, settings: Settings, **options: Any) -> KernelSGD:
    """The optimizer that the reference's settings describe."""
    groups = list(model.parameters()) if settings.layers == "none" else kernel_groups(model, settings.layers)
    return KernelSGD(
        groups,
        settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        bias=settings.bias,
        model=model,
        **options,
    )


def backward(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """The mean cross-entropy after one forward and backward pass."""
    loss = cross_entropy(model(x), y, **options)
    loss.backward()
    return loss.detach()
