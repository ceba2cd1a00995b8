"""The arithmetic of a step: parameters that share their options move together, preconditioned layers apart.

Plain parameters move by what torch.optim.SGD itself calls: the fused kernel where it serves, one read and one write of
every parameter, and the for-each operations elsewhere. That leaves room for the layer's product in the time that a step
of SGD takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gpu import torch_ops
from gpu.optim.groups import columns, split, write

BufferOf = Callable[[Tensor], Tensor]


class Options(NamedTuple):
    """What parameters that move together have in common."""

    lr: float | Tensor  # a tensor's value stays on its device
    weight_decay: float
    momentum: float
    decay: str
    maximize: bool


@dataclass
class Update:
    """`layers` are preconditioned, each [W] or [W, b] and its gradients; `plain` parameters move along `directions`."""

    layers: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    plain: list[Tensor] = field(default_factory=list)
    directions: list[Tensor] = field(default_factory=list)

    def add(self, params: list[Tensor], directions: list[Tensor]) -> None:
        self.plain += params
        self.directions += directions

    def apply(self, options: Options, P: Tensor | None, buffer_of: BufferOf) -> None:
        """Move everything, in place. D = (G + wd·W)·P or, plain, G + wd·p; v ← μ·v + D; W ← W − η·v."""
        if options.decay == "decoupled" and options.weight_decay != 0:
            for p in (*(p for layer, _ in self.layers for p in layer), *self.plain):
                p.mul_(1 - options.lr * options.weight_decay)
            options = options._replace(weight_decay=0.0)
        for layer, grads in self.layers:
            assert P is not None  # there are no layers without one
            _move_layer(layer, grads, P, options, buffer_of)
        if self.plain:
            buffers = [buffer_of(p) for p in self.plain] if options.momentum != 0 else []
            by_number = not isinstance(options.lr, Tensor)
            fused = by_number and _fusible(self.plain + self.directions + buffers)
            move = _move_fused if fused else _move_each
            move(self.plain, self.directions, buffers, options)


def preconditioned(params: list[Tensor], grads: list[Tensor], P: Tensor) -> list[Tensor]:
    """[G_W, G_b] · P as new tensors in the shapes of `params`."""
    D = torch.zeros_like(columns(params))
    torch_ops.step_block_(D, columns(grads), P, -1.0)
    return split(D, params)


def _move_layer(layer: list[Tensor], grads: list[Tensor], P: Tensor, options: Options, buffer_of: BufferOf) -> None:
    W, G = columns(layer), columns(grads)
    if options.maximize:
        G = G.neg()
    if options.weight_decay != 0:
        G = G.add(W, alpha=options.weight_decay)
    if options.momentum == 0:
        G, lr = _scaled(G, options.lr)
        torch_ops.step_block_(W, G, P, lr)
    else:
        buffers = [buffer_of(p) for p in layer]
        v = columns(buffers).mul_(options.momentum)
        torch_ops.step_block_(v, G, P, -1.0)
        write(v, buffers)
        v, lr = _scaled(v, options.lr)
        W.add_(v, alpha=-lr)
    write(W, layer)


def _scaled(direction: Tensor, lr: float | Tensor) -> tuple[Tensor, float]:
    """What is to be moved along, and how far: η·direction and 1 where η is a tensor."""
    return (direction * lr, 1.0) if isinstance(lr, Tensor) else (direction, lr)


def _fusible(tensors: list[Tensor]) -> bool:
    """Whether the fused kernel serves: it walks memory, so all must be dense, of one precision, in one place.

    torch.compile cannot look into it (and fuses the for-each operations itself).
    """
    dtype, device = tensors[0].dtype, tensors[0].device
    if dtype not in (torch.float32, torch.float64) or device.type not in ("cpu", "cuda"):
        return False
    if torch.compiler.is_compiling():
        return False
    return all(t.is_contiguous() and t.dtype is dtype and t.device == device for t in tensors)


def _move_fused(params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], options: Options) -> None:
    torch._fused_sgd_(
        params,
        grads,
        buffers,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        lr=options.lr,
        dampening=0.0,
        nesterov=False,
        maximize=options.maximize,
        is_first_step=False,
    )


def _move_each(params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], options: Options) -> None:
    if options.maximize:
        grads = list(torch._foreach_neg(grads))
    if options.weight_decay != 0:
        grads = list(torch._foreach_add(grads, params, alpha=options.weight_decay))
    if options.momentum != 0:
        torch._foreach_mul_(buffers, options.momentum)
        torch._foreach_add_(buffers, grads)
        grads = buffers
    if isinstance(options.lr, Tensor):
        torch._foreach_sub_(params, torch._foreach_mul(grads, options.lr))
    else:
        torch._foreach_add_(params, grads, alpha=-options.lr)
