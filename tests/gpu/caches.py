"""What tests of the kernel cache share."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from gpu.optim import CachedInverse, KernelCache


def entries(cache: KernelCache, X: Tensor) -> list[CachedInverse]:
    return [inverse for _, inverse in cache.batches(X)]


def smallest_budget(X: Tensor, batches: Sequence[Tensor], **options: Any) -> int:
    """As the error message of a budget that is too small names it."""
    with pytest.raises(ValueError, match="memory_budget") as caught:
        KernelCache(X, batches, memory_budget=1, **options)
    needed, *parts = map(int, re.findall(r"(\d+) (?:bytes|for|to)", str(caught.value))[:3])
    assert needed == sum(parts)
    return needed


def duplicated(X: Tensor, batches: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    """X with the first two instances of these mini-batches made equal."""
    X = X.clone()
    for number in numbers:
        X[batches[number][1]] = X[batches[number][0]]
    return X
