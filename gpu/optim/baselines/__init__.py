"""The optimizers that Kernel SGD is compared with, by name.

"sgd", "sgd-momentum", "l-bfgs", "esgd", "esgd-li" and "adahessian" are the paper's baselines: for them the L2 term is
part of the loss. "adamw", "muon" and "soap" are what would be used today: their weight decay is decoupled. What torch
does not have is a page each, written here rather than one more package to install.

Not here: the robust multi-batch L-BFGS (Berahas, Nocedal, Takáč 2016) takes gradient differences on the instances that
consecutive batches have in common, and the mini-batches of the paper have none in common.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from gpu.optim.baselines.adahessian import AdaHessian
from gpu.optim.baselines.esgd import ESGD
from gpu.optim.baselines.esgd_li import LiESGD
from gpu.optim.baselines.l_bfgs import LBFGS
from gpu.optim.baselines.muon import MuonAdamW
from gpu.optim.baselines.soap import SOAP

__all__ = [
    "BASELINES",
    "ESGD",
    "LBFGS",
    "SOAP",
    "TAKES_LOSS",
    "AdaHessian",
    "LiESGD",
    "MuonAdamW",
    "Options",
    "hessian_bytes",
    "state_bytes",
    "storage_bytes",
]

# Their step needs a closure that evaluates the loss: they differentiate it themselves.
TAKES_LOSS = (LBFGS, ESGD, LiESGD, AdaHessian)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is set from outside: momentum is that of "sgd-momentum", history that of "l-bfgs", seed that of the random
    vectors. All else is as the optimizers' authors have it, the default of each class."""

    lr: float
    weight_decay: float
    momentum: float
    history: int
    seed: int


BASELINES: dict[str, Callable[[list[nn.Parameter], Options], Optimizer]] = {
    "sgd": lambda params, o: SGD(params, o.lr, weight_decay=o.weight_decay),
    "sgd-momentum": lambda params, o: SGD(params, o.lr, momentum=o.momentum, weight_decay=o.weight_decay),
    "l-bfgs": lambda params, o: LBFGS(params, o.lr, weight_decay=o.weight_decay, history=o.history),
    "esgd": lambda params, o: ESGD(params, o.lr, weight_decay=o.weight_decay, seed=o.seed),
    "esgd-li": lambda params, o: LiESGD(params, o.lr, weight_decay=o.weight_decay, seed=o.seed),
    "adahessian": lambda params, o: AdaHessian(params, o.lr, weight_decay=o.weight_decay, seed=o.seed),
    "adamw": lambda params, o: AdamW(params, o.lr, weight_decay=o.weight_decay),
    "muon": lambda params, o: MuonAdamW(params, o.lr, weight_decay=o.weight_decay),
    "soap": lambda params, o: SOAP(params, o.lr, weight_decay=o.weight_decay),
}


def hessian_bytes(optimizer: Optimizer) -> int:
    """Bytes of the storages, each counted once, of what the optimizer's state holds of the Hessian or in its place.

    0 for an optimizer that holds nothing of the kind; what KernelSGD needs is its cache's, `KernelCache.nbytes`.
    """
    names = getattr(optimizer, "hessian_state", ())
    return storage_bytes(state[name] for state in optimizer.state.values() for name in names if name in state)


def state_bytes(optimizer: Optimizer) -> int:
    """The same of all that the optimizer's state holds, momenta included."""
    return storage_bytes(value for state in optimizer.state.values() for value in state.values())


def storage_bytes(values: Iterable[object]) -> int:
    """Bytes of the storages, each counted once, of the tensors among these values and in lists of them."""
    storages = (tensor.untyped_storage() for value in values for tensor in _tensors(value))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(value: object) -> Iterator[Tensor]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Tensor):
            yield item
