"""What the optimizers that look at the Hessian share: its products with random vectors, and how those are drawn.

The optimizers differentiate the loss themselves: their `step` takes a closure that evaluates the loss and calls no
backward(). So a graph that can be differentiated twice is built in the steps that need one, and in no others.

A random vector depends on (seed, number) alone. Both are options of the parameter group, so an optimizer's state_dict
has all that a resumed run needs to draw what an uninterrupted one would have drawn.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Closure = Callable[[], Tensor]
Tensors = Sequence[Tensor]


@torch.no_grad()
def differentiate(
    closure: Closure, params: Tensors, weight_decay: float, v: Tensors | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The loss, ∇J, and H·v, H the Hessian of J = loss + weight_decay/2 · Σ‖p‖²; without v no products.

    Raises RuntimeError, as torch does, where the loss does not depend on a parameter.
    """
    with torch.enable_grad():
        loss = closure()
        gradient = torch.autograd.grad(loss, params, create_graph=v is not None)
        products = [] if v is None else torch.autograd.grad(gradient, params, v, materialize_grads=True)
    return (
        loss.detach(),
        [g.detach().add(p, alpha=weight_decay) for g, p in zip(gradient, params, strict=True)],
        [Hv.add(w, alpha=weight_decay) for Hv, w in zip(products, v or [], strict=True)],
    )


def gaussian(params: Tensors, seed: int, number: int) -> list[Tensor]:
    """The number-th vector of standard normal entries, in the parameters' shapes."""
    generator = _generator(params, seed, number)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device) for p in params]


def rademacher(params: Tensors, seed: int, number: int) -> list[Tensor]:
    """The number-th vector of random signs, in the parameters' shapes."""
    generator = _generator(params, seed, number)
    return [(2 * torch.randint(2, p.shape, generator=generator, device=p.device) - 1).to(p.dtype) for p in params]


def _generator(params: Tensors, seed: int, number: int) -> torch.Generator:
    (mixed,) = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64).tolist()
    return torch.Generator(params[0].device).manual_seed(mixed)


def trainable(group: dict[str, Any]) -> list[Tensor]:
    return [p for p in group["params"] if p.requires_grad]


def require_finite(**options: float) -> None:
    """ValueError for an option that is not a finite number >= 0."""
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")


def require_below_one(**options: float) -> None:
    """ValueError for the weight of an average's past that is not in [0, 1)."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")


def require_count(**options: int) -> None:
    """ValueError for an option that is not an integer >= 1."""
    for name, value in options.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")


def require_one_group(groups: Sequence[dict[str, Any]]) -> None:
    """ValueError where there is a group already: the products are with the Hessian over all parameters at once."""
    if groups:
        raise ValueError("params: expected one parameter group")
