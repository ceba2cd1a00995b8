"""A model, its optimizer and a cache of mini-batches of one size, so that no shape gives a wrong pair away."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, mini_batches
from tests.gpu.networks import backward, random

N, M, D = 30, 5, 6


Y = torch.arange(N) % 3
BATCHES = mini_batches(N, M, seed=0)
Pair = tuple[Tensor, Tensor, CachedInverse]


@dataclass
class Training:
    """A model, its optimizer, and a cache for it."""

    X: Tensor
    model: nn.Module
    optimizer: KernelSGD
    cache: KernelCache

    def pairs(self) -> list[Pair]:
        return list(self.cache.batches(self.X, Y))

    def run(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        backward(self.model, x, y)

    def take(self, x: Tensor, y: Tensor, inverse: CachedInverse, *, accumulated: bool) -> None:
        """Backward pass and step, the gradient accumulated with its inverse or not."""
        if accumulated:
            with self.optimizer.accumulate(inverse):
                backward(self.model, x, y)
            self.optimizer.step()
        else:
            backward(self.model, x, y)
            self.optimizer.step(inverse=inverse)

    def epoch(self, pairs: list[Pair]) -> None:
        for x, y, inverse in pairs:
            self.run(x, y)
            self.optimizer.step(inverse=inverse)


def training(X: Tensor | None = None, **options: Any) -> Training:
    X = random(N, D, dtype=torch.float32) if X is None else X
    model = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, 3)).to(X.dtype)
    return Training(X, model, KernelSGD(kernel_groups(model), model=model), KernelCache(X, BATCHES, **options))


def assert_refused(run: Training, inverse: CachedInverse, message: str = "not what the model was run on") -> None:
    """The step raises and moves nothing."""
    before = [p.detach().clone() for p in run.model.parameters()]
    with pytest.raises(ValueError, match=message):
        run.optimizer.step(inverse=inverse)
    assert all(torch.equal(p, old) for p, old in zip(run.model.parameters(), before, strict=True))


def accepted(cache: KernelCache, X: Tensor) -> bool:
    try:
        list(cache.batches(X))
    except ValueError:
        return False
    return True
