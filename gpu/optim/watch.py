"""What an optimizer must see of the model to check an inverse's mini-batch and to bound a step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import finalize, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gpu.optim.digests import identify


@dataclass(frozen=True)
class Seen:
    """One backward pass through the watched layer: its input Z (m, d_in), its output (m, n_c), ∂J/∂output (m, n_c),
    its bias (n_c,) or None."""

    features: Tensor
    logits: Tensor
    dlogits: Tensor
    bias: Tensor | None = None


class Watch:
    """Remembers, since the last `clear`, what the inputs of the model's forward passes in training were and, of the one
    `layer` (if any), what its backward passes went through.

    The model holds it weakly: without its optimizer the hooks are gone, and those of a copied model do nothing, nor
    any while torch.jit.trace runs the model.
    """

    def __init__(self, model: nn.Module, layer: nn.Module | None) -> None:
        self.inputs: list[bytes | tuple[Tensor, int]] = []
        self.passes: list[Seen] = []
        self.weight = getattr(layer, "weight", None)
        handles = [model.register_forward_pre_hook(Hook(self, Watch._before), with_kwargs=True)]
        if layer is not None:
            handles.append(layer.register_forward_hook(Hook(self, Watch._after), with_kwargs=True))
        finalize(self, _remove, handles)

    def digests(self) -> Iterator[bytes]:
        """Those of the inputs as they were in their forward passes; empty where one has been written to since."""
        for seen in self.inputs:
            if isinstance(seen, bytes):
                yield seen
            else:
                x, version = seen
                yield identify(x) if _version(x) == version else b""

    def cut(self, inputs: int, passes: int) -> None:
        """Forget all but the first so many of both."""
        del self.inputs[inputs:], self.passes[passes:]

    def clear(self) -> None:
        self.inputs.clear()
        self.passes.clear()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor):
                    self.inputs.append(_seen(value))
                    return

    def _after(self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
        if output.requires_grad:
            # On the output, not the module: the gradient then meets the very forward pass that it belongs to.
            x = args[0] if args else kwargs["input"]
            features, logits, bias = x.detach(), output.detach(), getattr(module, "bias", None)
            passes = self.passes  # not self: a graph may be kept
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: passes.append(Seen(features, logits, gradient.detach(), bias))
            )


def _seen(x: Tensor) -> bytes | tuple[Tensor, int]:
    """The digest of x, empty where it has none; where looking costs a transfer or x is traced, it and its version."""
    if torch.compiler.is_compiling():
        return x, x._version
    if x.is_cpu:
        try:
            return identify(x)
        except (RuntimeError, NotImplementedError):  # sparse, nested, wrapped by a transform: no mini-batch of a cache
            return b""
    return x, _version(x)


def _version(x: Tensor) -> int:
    return -1 if x.is_inference() else x._version


def _traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class Hook:
    """Calls a method of an object as long as that is there; a copy, or what is unpickled, does nothing."""

    def __init__(self, of: Any = None, method: Callable[..., None] | None = None) -> None:
        self.of, self.method = (lambda: None) if of is None else ref(of), method

    def __call__(self, *run: Any) -> None:
        of = self.of()
        if of is not None and self.method is not None and not _traced():
            self.method(of, *run)

    def __reduce__(self) -> tuple[type["Hook"], tuple[()]]:
        return Hook, ()


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
