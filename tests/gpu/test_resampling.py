"""Caches that are drawn anew every epoch."""

import threading
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from gpu.optim import KernelCache, mini_batches, resampled
from tests.gpu.caches import entries
from tests.gpu.networks import random


def first(caches: Any, number: int) -> list[KernelCache]:
    try:
        return list(islice(caches, number))
    finally:
        caches.close()


def test_resampling_is_a_function_of_seed_and_epoch_and_resumes_anywhere() -> None:
    X = random(23, 3)
    run = first(resampled(X, 5, seed=7), 4)
    orders = [torch.cat([inverse.indices for inverse in entries(cache, X)]) for cache in run]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(23))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    for start in range(4):
        (resumed,) = first(resampled(X, 5, seed=7, start_epoch=start), 1)
        assert torch.equal(torch.cat([inverse.indices for inverse in entries(resumed, X)]), orders[start])
        for one, other in zip(entries(resumed, X), entries(run[start], X), strict=True):
            assert torch.equal(one.matrix, other.matrix)
    (other_seed,) = first(resampled(X, 5, seed=8), 1)
    assert not torch.equal(torch.cat([inverse.indices for inverse in entries(other_seed, X)]), orders[0])
    assert len({cache.source for cache in run}) == 1
    assert first(resampled(X, 5, seed=7, gamma=0.5), 1)[0].source != run[0].source


def test_resampling_builds_the_next_epoch_in_another_thread_while_this_one_trains() -> None:
    main, threads, built = threading.get_ident(), set(), threading.Semaphore(0)

    def progress(done: int) -> None:
        threads.add(threading.get_ident())
        if done == 5:
            built.release()

    caches = resampled(random(23, 3), 5, seed=0, progress=progress)
    next(caches)
    # The second epoch gets ready without being asked for.
    assert built.acquire(timeout=60)
    assert built.acquire(timeout=60)
    assert main not in threads
    assert len(threads) == 1
    caches.close()
    assert not any(thread.name.startswith("kernel-cache") for thread in threading.enumerate())


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 3), (3, 3), (0, 1)])
def test_resampling_ends_with_the_last_epoch_asked_for(start: int, stop: int) -> None:
    X, done = random(10, 3), []
    caches = list(resampled(X, 5, seed=0, start_epoch=start, epochs=stop, progress=done.append))
    assert len(caches) == stop - start
    assert done == [2] * (stop - start)
    for epoch, cache in enumerate(caches, start):
        assert torch.equal(cache.lookup(X[mini_batches(10, 5, seed=(0, epoch))[1]]).matrix, entries(cache, X)[1].matrix)


def test_what_fails_in_the_background_is_raised_in_the_foreground() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        next(resampled(torch.zeros(6, 2, dtype=torch.float64), 3, seed=0, singular="raise"))
