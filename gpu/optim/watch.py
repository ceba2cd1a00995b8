"""What an optimizer must see of the model to check an inverse's mini-batch and to bound a step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Seen:
    """One backward pass through the watched layer: its input Z (m, d_in), its output (m, n_c), ∂J/∂output (m, n_c),
    its bias (n_c,) or None."""

    features: Tensor
    logits: Tensor
    dlogits: Tensor
    bias: Tensor | None = None


class Watch:
    """Remembers, since the last `clear`, the inputs of the model's forward passes in training and, of the one
    `layer` (if any), what its backward passes went through."""

    def __init__(self, model: nn.Module, layer: nn.Module | None) -> None:
        self.inputs: list[tuple[Tensor, int]] = []  # with their versions: what is written later was not run
        self.passes: list[Seen] = []
        self._hooks = [model.register_forward_pre_hook(self._before, with_kwargs=True)]
        if layer is not None:
            self._hooks.append(layer.register_forward_hook(self._after))

    def clear(self) -> None:
        self.inputs.clear()
        self.passes.clear()

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor):
                    self.inputs.append((value, value._version))
                    return

    def _after(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            # On the output, not the module: the gradient then meets the very forward pass that it belongs to.
            features, logits, bias = args[0].detach(), output.detach(), getattr(module, "bias", None)
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self.passes.append(Seen(features, logits, gradient.detach(), bias))
            )
