"""Seconds until the training loss of an epoch is below a given value, optimizer by optimizer, on digits."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch

from gpu.bench.optimizers import LEARNING_RATES, NOT_MEASURED, available, machine
from gpu.bench.step import training
from gpu.bench.timing import clock, interleaved
from gpu.train.data import load
from gpu.train.models import build_model
from gpu.train.settings import Settings


def to_loss(
    target: float, names: Sequence[str], *, repeats: int, epochs: int = 200, batch_size: int = 64, threads: int = 1
) -> dict[str, Any]:
    """Median seconds and the epochs until the mean loss of an epoch, as each mini-batch was met, is below `target`.

    The network has two hidden layers of 100, the learning rates are those of the table LEARNING_RATES, γ is 0.01. The
    time is that of mini-batches, inverses and training, again in every round. None where `epochs` are not enough.
    Raises UsageError for unknown names.
    """
    torch.set_num_threads(threads)
    data, settings = load("digits"), Settings(batch_size=batch_size, threads=threads)
    names, missing = available(names)
    reached: dict[str, int | None] = {}

    def train(name: str) -> None:
        own = replace(settings, lr=LEARNING_RATES[name])
        one = training(build_model(data, own), data, own, name)
        reached[name] = next((epoch for epoch in range(1, epochs + 1) if one.epoch().item() < target), None)

    seconds = interleaved({name: partial(train, name) for name in names}, repeats, clock=clock(threads))
    return {
        "to_loss": target,
        "seconds": {name: None if reached[name] is None else median(seconds[name]) for name in names},
        "epochs": reached,
        "at_most_epochs": epochs,
        "learning_rates": {name: LEARNING_RATES[name] for name in names},
        "not_measured": NOT_MEASURED | missing,
        "data": data.name,
        "stand_in": data.stand_in,
        "hidden": list(settings.hidden),
        "gamma": settings.gamma,
        "repeats": repeats,
        "batch_size": batch_size,
        **machine(threads),
    }
