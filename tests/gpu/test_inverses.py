"""Building all inverses: within the memory budget, in one thread or several, what is wrong said by its mini-batch."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpu import torch_ops
from gpu.optim import KernelCache, mini_batches
from gpu.optim.inverses import Kernel, Plan, build
from tests.gpu.caches import duplicated, entries, smallest_budget
from tests.gpu.networks import random
from tests.support import ratios, strategies


class Live(TorchDispatchMode):
    """The largest sum of the sizes of all memory that was allocated while it is on and not yet freed."""

    def __init__(self, *outside: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in outside}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, Tensor) and part.untyped_storage()._cdata not in self.known:
                storage = part.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                finalize(storage, self.free, storage._cdata, storage.nbytes())
        return result

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("kernel", ["rbf", "polynomial"])
@pytest.mark.parametrize(("d", "m"), [(50, 64), (5, 64), (300, 8), (5000, 8)])
@pytest.mark.parametrize("times", [1, 3])
def test_building_stays_within_the_memory_budget(d: int, m: int, kernel: str, times: int) -> None:
    """Index tensors and digests aside: 64 bytes an instance."""
    n = 1000
    X, batches = random(n, d, dtype=torch.float32), mini_batches(n, m, seed=0)
    budget = times * smallest_budget(X, batches)
    with Live(X, *batches) as memory:
        cache = KernelCache(X, batches, memory_budget=budget, kernel=kernel)
    assert cache.nbytes <= memory.peak <= budget + 64 * n


RESIDENT = """
import resource, sys, torch
from gpu.optim import KernelCache, mini_batches
torch.set_num_threads(1)
n, d, m, budget = 20_000, 800, 64, 32 * 2**20
X, batches = torch.rand(n, d), mini_batches(n, m, seed=0)
KernelCache(X[:256], mini_batches(256, m, seed=0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
KernelCache(X, batches, memory_budget=budget, progress=lambda done: None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024) / budget)
"""


def test_the_process_itself_grows_by_the_budget_and_little_more() -> None:
    """What the allocator keeps of freed memory counts here; X in float64 alone would be 4 budgets."""
    run = [sys.executable, "-c", RESIDENT]
    done = subprocess.run(run, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5


def test_the_smallest_budget_does_and_a_byte_less_does_not() -> None:
    X, batches = random(50, 3), mini_batches(50, 8, seed=0)
    needed = smallest_budget(X, batches)
    KernelCache(X, batches, memory_budget=needed)
    with (
        Live(X, *batches) as memory,
        pytest.raises(ValueError, match=f"expected at least {needed} bytes .*got {needed - 1}"),
    ):
        KernelCache(X, batches, memory_budget=needed - 1)
    assert memory.peak < 50 * 8 * 8  # the inverses were not allocated


@given(n=strategies.sizes(40), m=strategies.sizes(9), kernel=strategies.kernels(), seed=strategies.seeds())
def test_neither_budget_nor_threads_change_the_result(n: int, m: int, kernel: dict[str, Any], seed: int) -> None:
    """Batched products may sum in another order, so equal within the ratio of an inverse, ridge 1 apart from 0."""
    X, batches = random(n, 4, seed=seed), mini_batches(n, m, seed=seed)
    kernel = kernel | {"ridge": 100.0}
    assume("degree" not in kernel or kernel["degree"] != 3 or kernel["coef0"] >= 0)
    least, caches = smallest_budget(X, batches), []
    for number, budget in ((1, least), (1, 2**30), (2, 2 * least)):
        with threads(number):
            done: list[int] = []
            caches.append(KernelCache(X, batches, memory_budget=budget, progress=done.append, **kernel))
            assert done == sorted(done)
            assert done[-1] == len(batches)
    assert len({(cache.source, cache.singular) for cache in caches}) == 1
    for same in zip(*(entries(cache, X) for cache in caches), strict=True):
        H = torch_ops.gram(X[same[0].indices], **{k: v for k, v in kernel.items() if k != "ridge"}).numpy()
        for inverse in same:
            ratios.assert_within(ratios.inverse_backward(inverse.matrix.numpy(), H, ridge=100.0))


@pytest.mark.parametrize("budget", ["smallest", "ample"])
@pytest.mark.parametrize("bad", [0, 3, 4], ids=["first", "middle", "ragged"])
def test_singular_raise_names_the_mini_batch(bad: int, budget: str) -> None:
    """As the number of a member of a chunk, whose first number is named too."""
    batches = mini_batches(23, 5, seed=0)
    X = duplicated(random(23, 3), batches, [bad])
    memory = smallest_budget(X, batches) if budget == "smallest" else 2**30
    with pytest.raises(np.linalg.LinAlgError, match="singular") as caught:
        KernelCache(X, batches, gamma=1.0, singular="raise", memory_budget=memory)
    named = re.match(r"mini-batches (\d+) to (\d+): .*member \((\d+),\)", str(caught.value))
    assert named is not None
    first, last, member = map(int, named.groups())
    assert first + member == bad <= last


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


BLAS = ThreadpoolController().select(user_api="blas").lib_controllers
adjustable = pytest.mark.skipif(not BLAS, reason="threadpoolctl does not know NumPy's BLAS")


@adjustable
def test_numpys_blas_is_held_to_the_threads_of_torch_while_a_cache_is_built() -> None:
    """torch.set_num_threads does not reach it; a pool of its own would compete with what else runs."""

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen: list[set[int]] = []
    before = torch.get_num_threads()
    try:
        for number in (2, 1):
            torch.set_num_threads(number)
            for limit in (1, 2):
                with threadpool_limits(limit, "blas"):
                    KernelCache(random(8, 2), [torch.arange(8)], progress=lambda _: seen.append(threads()))
                    assert threads() == {limit}
    finally:
        torch.set_num_threads(before)
    assert seen == [{1}, {2}, {1}, {1}]


@adjustable
def test_builds_in_two_threads_leave_numpys_blas_as_it_was() -> None:
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def in_the_first(_: int) -> None:
        first_in.set()
        second_in.wait(0.5)

    def in_the_second(_: int) -> None:
        second_in.set()
        first_out.wait(0.5)

    before = torch.get_num_threads(), BLAS[0].num_threads

    def set_pools(number: int) -> None:
        """From a thread that ends: one that holds a limit, or has set one, keeps others from setting any."""
        with ThreadPoolExecutor(1) as setter:
            list(setter.map(lambda pool: pool.set_num_threads(number), BLAS))

    try:
        torch.set_num_threads(1)
        set_pools(2)
        with ThreadPoolExecutor(2) as workers:
            X, batches = random(8, 2), [torch.arange(8)]
            first = workers.submit(KernelCache, X, batches, progress=in_the_first)
            first.add_done_callback(lambda _: first_out.set())
            first_in.wait(60)
            workers.submit(KernelCache, X, batches, progress=in_the_second).result()
            first.result()
        assert threads() == {2}
    finally:
        torch.set_num_threads(before[0])
        set_pools(before[1])


@pytest.mark.filterwarnings("error")
def test_distances_that_overflow_are_no_warning() -> None:
    cache = KernelCache(1e200 * torch.eye(4).double(), [torch.arange(4)], gamma=1.0)
    assert torch.equal(cache.lookup(1e200 * torch.eye(4).double()).matrix, torch.eye(4).double())


def test_progress_counts_the_mini_batches_done() -> None:
    X, batches, seen = random(23, 2), mini_batches(23, 5, seed=0), []
    KernelCache(X, batches, memory_budget=smallest_budget(X, batches), progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kernel-cache-worker")]


def test_two_threads_build_at_once_with_one_thread_each_in_the_libraries() -> None:
    X, batches = random(24, 30), mini_batches(24, 6, seed=0)
    together, seen = threading.Barrier(2, timeout=60), []

    def store(first: int, _: Tensor) -> None:
        together.wait()
        seen.append((first, torch.get_num_threads(), *{pool.num_threads for pool in BLAS}))

    with threads(2):
        plan = Plan.within(2 * smallest_budget(X, batches), 24 * 6 * 8, X, 6, 4)
        assert plan == Plan(gathered=1, factored=1, workers=2)
        build(X, torch.cat(batches), [6] * 4, Kernel(), plan, store, None)
        assert torch.get_num_threads() == 2
    assert sorted(seen) == [(first, 1, *{pool.num_threads and 1 for pool in BLAS}) for first in range(4)]
    assert workers() == []


def test_a_build_in_inference_mode_may_have_two_threads() -> None:
    X, batches = random(24, 3), mini_batches(24, 6, seed=0)
    with threads(2), torch.inference_mode():
        inside = KernelCache(X, batches)
    for one, other in zip(entries(inside, X), entries(KernelCache(X, batches), X), strict=True):
        assert torch.equal(one.matrix, other.matrix)


def test_threads_that_start_while_caches_are_built_have_as_many_for_torch_as_those_before() -> None:
    X, batches, seen = random(24, 3), mini_batches(24, 6, seed=0), []

    def fresh(_: int = 0) -> None:
        one = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        one.start()
        one.join()

    with threads(2):
        builders = [threading.Thread(target=KernelCache, args=(X, batches), kwargs={"progress": fresh}) for _ in "ab"]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join()
        fresh()
    assert seen == 5 * [2]  # two builds of two runs each, and one afterwards


def test_a_budget_a_little_above_the_smallest_is_divided_among_inputs_and_matrices() -> None:
    X = random(640, 10)
    budget = 40 * smallest_budget(X[:64], mini_batches(64, 8, seed=0))
    plan = Plan.within(budget, 0, X, 8, 80)
    assert min(plan.gathered, plan.factored) > 10


@pytest.mark.parametrize("fails", ["progress", "store"])
def test_what_fails_while_two_threads_build_ends_both(fails: str) -> None:
    """Ctrl-C comes as an exception from `progress`, a full disk as one from storing."""
    X, batches = random(24, 3), mini_batches(24, 6, seed=0)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with threads(2):
        plan = Plan.within(2 * smallest_budget(X, batches), 24 * 6 * 8, X, 6, 4)
        calls = {"store": lambda *_: None, "progress": None, fails: stop}
        with pytest.raises(KeyboardInterrupt):
            build(X, torch.cat(batches), [6] * 4, Kernel(), plan, calls["store"], calls["progress"])
        assert torch.get_num_threads() == 2
    assert workers() == []


def test_a_mini_batch_whose_products_overflow_is_computed_anew_and_no_other() -> None:
    X, batches = random(18, 4), mini_batches(18, 6, seed=0)
    large = X.clone()
    large[batches[1]] *= 1e200
    expected, found = (entries(KernelCache(data, batches), data) for data in (X, large))
    assert torch.equal(found[1].matrix, torch.eye(6).double())  # no two instances are near each other
    for number in (0, 2):
        assert torch.equal(found[number].matrix, expected[number].matrix)
