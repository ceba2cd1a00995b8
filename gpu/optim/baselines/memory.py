"""How many bytes of Hessian information an optimizer keeps, as the paper counts them in Table 2."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from gpu.optim.baselines.adahessian import AdaHessian
from gpu.optim.baselines.esgd import ESGD

# L-BFGS: the history of steps and of gradient differences. The others: what stands for the Hessian's rows or diagonal.
KEPT: dict[type[Optimizer], tuple[str, ...]] = {
    LBFGS: ("old_dirs", "old_stps"),
    ESGD: ("curvature", "probe"),
    AdaHessian: ("curvature",),
}


def hessian_bytes(optimizer: Optimizer) -> int:
    """Bytes of the storages, each counted once, that hold Hessian information in the optimizer's state now."""
    names = KEPT.get(type(optimizer), ())
    tensors = [t for state in optimizer.state.values() for name in names for t in _tensors(state.get(name))]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        yield from (t for t in value if isinstance(t, Tensor))
