"""One epoch of KernelSGD against one of torch.optim.SGD: the same mini-batches, the trainer's own function."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpu.bench.optional import OPTIONAL
from gpu.bench.timing import against, clock, interleaved
from gpu.optim import KernelCache
from gpu.train.data import Dataset
from gpu.train.loop import Batch, build_optimizer, epochs_of_batches, train_epoch
from gpu.train.models import build_model
from gpu.train.provenance import provenance
from gpu.train.settings import Settings

BASELINE = "sgd"
OPTIMIZERS = ("kernel-sgd", BASELINE, "sgd-momentum")


@dataclass
class Training:
    """A network, its optimizer, its mini-batches in their order, and the cache where the optimizer needs one."""

    model: nn.Module
    optimizer: Optimizer
    batches: list[Batch]
    cache: KernelCache | None

    def over(self, batches: Iterable[Batch]) -> Tensor:
        """The mean loss over one pass."""
        return train_epoch(self.model, self.optimizer, batches)

    def epoch(self) -> Tensor:
        return self.over(self.batches)


def training(model: nn.Module, data: Dataset, settings: Settings, optimizer: str) -> Training:
    """The model to be trained by `optimizer` on the data that are left when those for validation are held out.

    `optimizer` is one of the trainer's or of `gpu.bench.optional`; `settings.optimizer` is not looked at. The inverses
    are built here: their cost is the other bench's matter.
    """
    other = OPTIONAL.get(optimizer)
    settings = replace(settings, optimizer=optimizer if other is None else BASELINE)
    parts = data.with_validation(settings.validation, seed=settings.seed)
    batches, cache = next(epochs_of_batches(settings, parts.X_train, parts.y_train, kernel_input=parts.kernel_train))
    built = build_optimizer(model, settings) if other is None else other.make(model, settings)
    return Training(model, built, batches, cache)


def step(data: Dataset, settings: Settings, *, repeats: int) -> dict[str, Any]:
    """Seconds an epoch of every optimizer, interleaved, and the median over rounds of its ratio to SGD's."""
    torch.set_num_threads(settings.threads)
    trainings = {name: training(build_model(data, settings), data, settings, name) for name in OPTIMIZERS}
    time = clock(settings.threads)
    seconds = interleaved({name: one.epoch for name, one in trainings.items()}, repeats, clock=time)
    return {
        **against(BASELINE, seconds),
        "seconds_per_epoch": {name: median(values) for name, values in seconds.items()},
        "repeats": repeats,
        "data": data.name,
        "stand_in": data.stand_in,
        "batch_size": settings.batch_size,
        "hidden": list(settings.hidden),
        "threads": torch.get_num_threads(),
        "clock": time.__name__,
        **provenance(),
    }
