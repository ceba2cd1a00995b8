"""Hessian-vector products."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Closure = Callable[[], Tensor]


def trainable(groups: Sequence[dict[str, Any]]) -> list[Tensor]:
    return [p for group in groups for p in group["params"] if p.requires_grad]


def gradients(loss: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """∇J, 0 for a parameter that the loss does not depend on."""
    return list(torch.autograd.grad(loss, params, materialize_grads=True))


def gradients_and_product(
    loss: Tensor, params: Sequence[Tensor], v: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """∇J and H·v, H the Hessian of J over all parameters; 0 where J does not depend on one, or only linearly."""
    found = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    if not any(g.requires_grad for g in found):
        return [g.detach() for g in found], [torch.zeros_like(p) for p in params]
    bent = [(g, w) for g, w in zip(found, v, strict=True) if g.requires_grad]
    product = torch.autograd.grad(
        [g for g, _ in bent], params, grad_outputs=[w for _, w in bent], materialize_grads=True
    )
    return [g.detach() for g in found], list(product)


def evaluated(closure: Closure | None, name: str) -> Tensor:
    """The loss, with its graph. Raises TypeError without a closure, RuntimeError where it has called backward()."""
    if closure is None:
        raise TypeError(f"closure: {name}.step expects a function that returns the loss, got None")
    with torch.enable_grad():
        loss = closure()
    if not loss.requires_grad:
        raise RuntimeError(f"closure: {name}.step expects the loss with its graph, got one that is detached")
    return loss
