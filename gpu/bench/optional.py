"""Second-order optimizers of other packages, for the bench alone: measured where the extra `bench` is installed.

Options are the packages' own defaults but for η, weight decay and what is said here, and decide what a step costs:

- "shampoo" (Gupta, Koren, Singer 2018; of pytorch-optimizer) takes the roots of all its factors anew in every step, by
  singular value decompositions. (The package's ScalableShampoo does so in every 1000th: a bench of fewer steps would
  time SGD.)
- "ikfac" (Lin et al. 2024; SINGD of singd, as K-FAC has it) moves K-FAC's factors in every tenth step, and never
  inverts them. It knows linear and convolutional layers only.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gpu.optim import baselines
from gpu.train.settings import Settings

INSTALL = 'pip install --editable ".[bench]"'


@dataclass(frozen=True)
class Package:
    """The distribution and the module that have an optimizer; how to make one; the tensors that it keeps in place of
    the Hessian; what it can train, where that is not everything."""

    distribution: str
    module: str
    make: Callable[[nn.Module, Settings], Any]
    hessian: Callable[[Any], Iterator[Tensor]]
    layers: tuple[type[nn.Module], ...] | None = None

    def missing(self) -> str | None:
        """Why it cannot be had here; None where it can."""
        try:
            import_module(self.module)
        except ImportError:
            return f"{self.module.partition('.')[0]} is not installed: {INSTALL}"
        return None

    def untrained(self, model: nn.Module) -> str | None:
        """Which of the model's layers it would leave as they are; None where it trains all."""
        own = (m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False)))
        left = {type(m).__name__ for m in own if self.layers is not None and not isinstance(m, self.layers)}
        return f"does not train {', '.join(sorted(left))}" if left else None


def shampoo(model: nn.Module, settings: Settings) -> Any:
    make = import_module(OPTIONAL["shampoo"].module).Shampoo
    return make(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)


def ikfac(model: nn.Module, settings: Settings) -> Any:
    make = import_module(OPTIONAL["ikfac"].module).SINGD
    # alpha1 has no meaning here, and would be set to 0 with a warning.
    return make(model, lr=settings.lr, weight_decay=settings.weight_decay, kfac_like=True, alpha1=0.0)


def shampoo_factors(optimizer: Any) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (tensor for name, tensor in state.items() if "pre_cond" in name)


def ikfac_factors(optimizer: Any) -> Iterator[Tensor]:
    for factors in (optimizer.Ks, optimizer.Cs):
        for matrix in factors.values():
            yield from (tensor for _, tensor in matrix.named_tensors())


OPTIONAL = {
    "shampoo": Package("pytorch-optimizer", "pytorch_optimizer", shampoo, shampoo_factors),
    "ikfac": Package("singd", "singd.optim.optimizer", ikfac, ikfac_factors, (nn.Linear, nn.Conv2d)),
}


def versions() -> dict[str, str]:
    """Of those distributions that are installed."""
    found = {}
    for package in OPTIONAL.values():
        with suppress(PackageNotFoundError):
            found[package.distribution] = version(package.distribution)
    return found


def hessian_bytes(name: str, optimizer: Optimizer) -> int:
    """`gpu.optim.baselines.hessian_bytes`, of these as well."""
    if name in OPTIONAL:
        return baselines.storage_bytes(OPTIONAL[name].hessian(optimizer))
    return baselines.hessian_bytes(optimizer)


def state_bytes(name: str, optimizer: Optimizer) -> int:
    """`gpu.optim.baselines.state_bytes`, of these as well."""
    if name not in OPTIONAL:
        return baselines.state_bytes(optimizer)
    kept = (value for state in optimizer.state.values() for value in state.values())
    return baselines.storage_bytes([*OPTIONAL[name].hessian(optimizer), *kept])
