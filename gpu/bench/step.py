"""One epoch of KernelSGD against one of torch.optim.SGD: the same mini-batches, the trainer's own function."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gpu.bench.timing import interleaved, paired_ratios
from gpu.train.data import Dataset
from gpu.train.loop import build_optimizer, epochs_of_batches, train_epoch
from gpu.train.models import build_model
from gpu.train.provenance import provenance
from gpu.train.settings import Settings

BASELINE = "sgd"
OPTIMIZERS = ("kernel-sgd", BASELINE, "sgd-momentum")


def step(data: Dataset, settings: Settings, *, repeats: int) -> dict[str, Any]:
    """Seconds an epoch of every optimizer, interleaved, and the median over rounds of its ratio to SGD's.

    `settings.optimizer` is not looked at. The inverses are built beforehand: their cost is the other bench's matter.
    """
    torch.set_num_threads(settings.threads)
    epochs = {name: _epoch(data, settings, name) for name in OPTIMIZERS}
    seconds = interleaved(epochs, repeats)
    ratios = {name: paired_ratios(seconds[name], seconds[BASELINE]) for name in seconds if name != BASELINE}
    return {
        "ratio_to_sgd": {name: ratio for name, (ratio, _) in ratios.items()},
        "spread": {name: spread for name, (_, spread) in ratios.items()},
        "seconds_per_epoch": {name: median(values) for name, values in seconds.items()},
        "repeats": repeats,
        "data": data.name,
        "stand_in": data.stand_in,
        "batch_size": settings.batch_size,
        "hidden": list(settings.hidden),
        "threads": torch.get_num_threads(),
        **provenance(),
    }


def _epoch(data: Dataset, settings: Settings, optimizer: str) -> Callable[[], Tensor]:
    settings = replace(settings, optimizer=optimizer)
    parts = data.with_validation(settings.validation, seed=settings.seed)
    model = build_model(data, settings)
    batches, _ = next(epochs_of_batches(settings, parts.X_train, parts.y_train, kernel_input=parts.kernel_train))
    return partial(train_epoch, model, build_optimizer(model, settings), batches)
