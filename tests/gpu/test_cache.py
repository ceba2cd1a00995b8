"""The kernel cache: its inverses are the reference's, its budget is kept, its mini-batches are those of the epoch."""

import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import reference
from gpu import torch_ops
from gpu.optim import CachedInverse, KernelCache, kernel_inverse, mini_batches, resampled
from gpu.optim.cache import content_digest
from tests.gpu.networks import random, tensor
from tests.support import ratios, strategies

Array = NDArray[np.floating]


def entries(cache: KernelCache, X: Tensor) -> list[CachedInverse]:
    return [inverse for _, inverse in cache.batches(X)]


def indices(batches: Sequence[NDArray[np.int64]]) -> list[Tensor]:
    return [torch.from_numpy(batch) for batch in batches]


def duplicated(X: Tensor, batches: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    """X with the first two instances of these mini-batches made equal."""
    X = X.clone()
    for number in numbers:
        X[batches[number][1]] = X[batches[number][0]]
    return X


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(data=st.data(), kernel=strategies.kernels(), ridge=st.sampled_from((0.0, 1e-3, 1.0)))
def test_every_cached_inverse_is_that_of_the_reference(
    dtype: str, data: st.DataObject, kernel: dict[str, Any], ridge: float
) -> None:
    """Within the ratios of a Gram matrix and of its inverse, where that exists; in float64 for data of any dtype."""
    X = data.draw(strategies.data_matrices(dtype, strategies.sizes(12), kinds=strategies.BOUNDED_KINDS))
    batches = indices(data.draw(strategies.mini_batch_compositions(len(X))))
    inputs = tensor(X, dtype)
    # One mini-batch a chunk, so that its Gram matrix here has the bits of the one that was inverted.
    grams = [torch_ops.gram(inputs[batch].double()[None], **kernel)[0].numpy() for batch in batches]
    for H in grams:
        low, high = np.linalg.eigvalsh(H)[[0, -1]] + ridge
        assume(low > 100 * len(H) * 2**-52 * high)
    options = {"ridge": ridge, "dtype": torch.float64, **kernel}
    cache = KernelCache(inputs, batches, memory_budget=smallest_budget(inputs, batches, **options), **options)
    assert cache.singular == 0
    for batch, H, inverse in zip(batches, grams, entries(cache, inputs), strict=True):
        assert torch.equal(inverse.indices, batch)
        x, found = inputs[batch].double().numpy(), inverse.matrix.numpy()
        ratios.assert_within(
            ratios.gram(H, reference.gram(x, **kernel), x, **kernel),
            ratios.inverse_backward(found, H, ridge=ridge),
            ratios.inverse_forward(found, reference.inverse_gram(H, ridge=ridge), H, ridge=ridge),
        )


@given(
    X=strategies.data_matrices("float32", strategies.sizes(12), kinds=("plain", "random", "duplicates")),
    data=st.data(),
    kernel=strategies.kernels(),
)
def test_the_float32_cache_is_the_rounded_float64_cache(X: Array, data: st.DataObject, kernel: dict[str, Any]) -> None:
    batches = indices(data.draw(strategies.mini_batch_compositions(len(X))))
    inputs = tensor(X, "float32")
    try:
        wide, narrow = (KernelCache(inputs, batches, dtype=dtype, **kernel) for dtype in (torch.float64, None))
    except (FloatingPointError, np.linalg.LinAlgError):
        assume(False)
    assert wide.singular == narrow.singular
    for exact, rounded in zip(entries(wide, inputs), entries(narrow, inputs), strict=True):
        assert rounded.matrix.dtype == torch.float32
        assert torch.equal(rounded.matrix, exact.matrix.float())


@pytest.mark.parametrize("numbers", [[], [0], [1, 3], [0, 1, 2, 3]], ids=str)
def test_duplicates_take_the_pseudoinverse_and_are_counted(numbers: list[int]) -> None:
    batches = mini_batches(22, 6, seed=0)
    X = duplicated(random(22, 3), batches, numbers)
    cache = KernelCache(X, batches, gamma=1.0)
    assert cache.singular == len(numbers)
    for number, (batch, inverse) in enumerate(zip(batches, entries(cache, X), strict=True)):
        H, found = torch_ops.gram(X[batch], gamma=1.0).numpy(), inverse.matrix.numpy()
        if number in numbers:
            ratios.assert_within(*ratios.pseudoinverse(found, H))
            assert np.linalg.matrix_rank(found) == len(batch) - 1
        else:
            ratios.assert_within(ratios.inverse_backward(found, H))


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


@given(
    n=strategies.sizes(30),
    m=strategies.sizes(9),
    dtype=st.sampled_from((torch.bfloat16, torch.float32, torch.float64)),
    seed=strategies.seeds(),
)
def test_the_cache_holds_n_times_m_numbers(n: int, m: int, dtype: torch.dtype, seed: int) -> None:
    """A ragged last mini-batch takes rows as long as the others', its inverse being m' × m' all the same."""
    X, batches = random(n, 2, seed=seed), mini_batches(n, m, seed=seed)
    cache = KernelCache(X, batches, dtype=dtype, ridge=1.0)
    assert cache.nbytes == n * min(m, n) * dtype.itemsize
    assert len(cache) == len(batches)
    for batch, inverse in zip(batches, entries(cache, X), strict=True):
        assert inverse.matrix.shape == (len(batch), len(batch))
        assert inverse.matrix.dtype == dtype


def smallest_budget(X: Tensor, batches: Sequence[Tensor], **options: Any) -> int:
    """As the error message of a budget that is too small names it."""
    with pytest.raises(ValueError, match="memory_budget") as caught:
        KernelCache(X, batches, memory_budget=1, **options)
    needed, *parts = map(int, re.findall(r"(\d+) (?:bytes|for|to)", str(caught.value))[:3])
    assert needed == sum(parts)
    return needed


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
def test_the_budget_does_not_change_the_result(n: int, m: int, kernel: dict[str, Any], seed: int) -> None:
    """Batched products may sum in another order, so equal within the ratio of an inverse, ridge 1 apart from 0."""
    X, batches = random(n, 4, seed=seed), mini_batches(n, m, seed=seed)
    kernel = kernel | {"ridge": 100.0}
    assume("degree" not in kernel or kernel["degree"] != 3 or kernel["coef0"] >= 0)
    small, ample = (KernelCache(X, batches, memory_budget=b, **kernel) for b in (smallest_budget(X, batches), 2**30))
    assert small.source == ample.source
    for one, other in zip(entries(small, X), entries(ample, X), strict=True):
        H = torch_ops.gram(X[one.indices], **{k: v for k, v in kernel.items() if k != "ridge"}).numpy()
        for inverse in (one, other):
            ratios.assert_within(ratios.inverse_backward(inverse.matrix.numpy(), H, ridge=100.0))


@given(
    X=strategies.not_finite(strategies.data_matrices(rows=st.just(7))),
    batches=strategies.mini_batch_compositions(st.just(7)),
)
def test_data_that_is_not_finite_is_an_error(X: Array, batches: tuple[NDArray[np.int64], ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        KernelCache(tensor(X), indices(batches))


def test_an_inverse_that_the_dtype_cannot_hold_is_an_error() -> None:
    """1/⟨x, x⟩ = 1e40 fits float64, not float32."""
    X, options = torch.full((3, 1), 1e-20, dtype=torch.float64), {"kernel": "linear", "singular": "raise"}
    batches = list(torch.arange(3).split(1))
    assert KernelCache(X, batches, **options).largest == pytest.approx(1e40)
    with pytest.raises(FloatingPointError, match=r"torch\.float32"):
        KernelCache(X, batches, dtype=torch.float32, **options)
    with pytest.raises(FloatingPointError, match=r"torch\.float32"):
        kernel_inverse(X[:1], dtype=torch.float32, **options)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("kernel", "laplace", ValueError),
        ("gamma", 0.0, ValueError),
        ("gamma", "1", TypeError),
        ("degree", 2.5, ValueError),
        ("coef0", float("nan"), ValueError),
        ("ridge", -1.0, ValueError),
        ("ridge", float("inf"), ValueError),
        ("singular", "ignore", ValueError),
        ("bandwidth", 1.0, TypeError),
        ("dtype", torch.int64, ValueError),
    ],
)
def test_bad_options_are_errors_that_name_them(option: str, value: Any, error: type[Exception]) -> None:
    X = random(6, 2)
    for build in (lambda **o: KernelCache(X, mini_batches(6, 2, seed=0), **o), lambda **o: kernel_inverse(X, **o)):
        with pytest.raises(error, match=option):
            build(**{option: value})


@pytest.mark.parametrize("batches", [[], [torch.tensor([], dtype=torch.int64)]], ids=["none", "empty"])
def test_a_cache_of_no_mini_batches_is_an_error(batches: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        KernelCache(random(6, 2), batches)


def test_the_composition_is_the_caches_own() -> None:
    X, order = random(24, 3), torch.arange(24)
    cache = KernelCache(X, order.split(6))
    before = [entry.indices.clone() for entry in entries(cache, X)]
    order.copy_(torch.arange(23, -1, -1))
    assert all(torch.equal(entry.indices, then) for entry, then in zip(entries(cache, X), before, strict=True))


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        ([True, False], TypeError),
        ([0.9, 1.9], TypeError),
        ([1 + 0j], TypeError),
        ([[0, 1]], ValueError),
        (0, ValueError),
        ([0, 4], ValueError),
        ([-1, 3], ValueError),
    ],
    ids=str,
)
def test_mini_batches_are_rows_of_integers(batch: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^batches: expected"):
        KernelCache(random(4, 3), [torch.tensor(batch)])


def test_complex_inputs_are_a_type_error() -> None:
    X = torch.complex(random(6, 2), random(6, 2))
    for build in (lambda **o: KernelCache(X, mini_batches(6, 2, seed=0), **o), lambda **o: kernel_inverse(X, **o)):
        for dtype in (None, torch.float32):
            with pytest.raises(TypeError, match=r"X: expected real"):
                build(dtype=dtype)


def test_integer_inputs_need_a_dtype_for_the_inverses() -> None:
    X, batches = torch.arange(12).reshape(6, 2), mini_batches(6, 4, seed=0)
    with pytest.raises(ValueError, match="dtype"):
        KernelCache(X, batches)
    cache = KernelCache(X, batches, dtype=torch.float64)
    expected = KernelCache(X.double(), batches)
    for one, other in zip(entries(cache, X), entries(expected, X.double()), strict=True):
        assert torch.equal(one.matrix, other.matrix)


@pytest.mark.parametrize("shape", [(20,), (20, 2, 3), (20, 1, 2, 2)], ids=str)
def test_the_kernel_sees_every_instance_flattened(shape: tuple[int, ...]) -> None:
    X, batches = random(*shape), mini_batches(20, 6, seed=0)
    flat = X.reshape(20, -1)
    pairs = zip(KernelCache(X, batches).batches(X), KernelCache(flat, batches).batches(flat), strict=True)
    for (x, one), (_, other) in pairs:
        assert x.shape == (len(one.indices), *shape[1:])
        assert torch.equal(one.matrix, other.matrix)


@given(n=strategies.sizes(60), m=strategies.sizes(20), seed=strategies.seeds())
def test_mini_batches_are_a_partition_into_equal_parts_and_a_rest(n: int, m: int, seed: int) -> None:
    batches = mini_batches(n, m, seed=seed)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(n))
    assert [len(batch) for batch in batches] == [m] * (n // m) + [n % m] * (n % m > 0)
    assert all(torch.equal(one, other) for one, other in zip(batches, mini_batches(n, m, seed=seed), strict=True))


def test_other_seeds_give_other_mini_batches() -> None:
    drawn = {tuple(torch.cat(mini_batches(20, 6, seed=seed)).tolist()) for seed in (0, 1, (0, 1), (1, 1), (1, 2))}
    assert len(drawn) == 5


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (5, -1)])
def test_mini_batches_of_nothing_are_an_error(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        mini_batches(n, m, seed=0)


def test_batches_and_lookup_hand_out_every_mini_batch_with_its_own_inverse() -> None:
    X, y, batches = random(23, 4), torch.arange(23), mini_batches(23, 5, seed=0)
    cache = KernelCache(X, batches)
    handed_out = list(cache.batches(X, y, 2 * y))
    assert len(handed_out) == len(batches)
    for number, (batch, (x, labels, doubled, inverse)) in enumerate(zip(batches, handed_out, strict=True)):
        assert torch.equal(x, X[batch])
        assert torch.equal(labels, batch)
        assert torch.equal(doubled, 2 * batch)
        assert (inverse.batch, inverse.source) == (number, cache.source)
        assert cache.lookup(X[batch]).batch == number
        alone = kernel_inverse(x).matrix
        ratios.assert_within(ratios.inverse_backward(inverse.matrix.numpy(), torch_ops.gram(x, gamma=0.01).numpy()))
        torch.testing.assert_close(alone, inverse.matrix, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"others\[1\]"):
        next(cache.batches(X, y, y[:-1]))


def test_a_cache_from_a_loader_is_that_of_its_mini_batches() -> None:
    X, y = random(23, 4), torch.arange(23)
    loader = DataLoader(TensorDataset(X, y), batch_size=5)
    cache = KernelCache.from_loader(loader, gamma=0.1)
    expected = KernelCache(X, torch.arange(23).split(5), gamma=0.1)
    assert cache.source == expected.source
    for number, (x, _) in enumerate(loader):
        assert cache.lookup(x).batch == number
    swapped = KernelCache.from_loader(([y, {"x": x}] for x, y in loader), inputs=lambda batch: batch[1]["x"], gamma=0.1)
    assert swapped.source == expected.source
    assert KernelCache.from_loader((x for x, _ in loader), gamma=0.1).source == expected.source
    with pytest.raises(ValueError, match="loader"):
        KernelCache.from_loader([])


def test_no_inverse_carries_the_graph_of_an_input_that_needs_a_gradient() -> None:
    X, batches = random(23, 4).requires_grad_(), mini_batches(23, 5, seed=0)
    for one, other in zip(
        entries(KernelCache(X, batches), X), entries(KernelCache(X.detach(), batches), X), strict=True
    ):
        assert not one.matrix.requires_grad
        assert torch.equal(one.matrix, other.matrix)


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


@given(shape=st.tuples(*[strategies.sizes(9)] * 3), gamma=st.sampled_from((1e-3, 1.0)), seed=strategies.seeds())
def test_the_faster_way_of_the_build_gives_the_same_gram_matrices(
    shape: tuple[int, int, int], gamma: float, seed: int
) -> None:
    X = random(*shape, seed=seed)
    kernel = {"kernel": "rbf", "gamma": gamma, "degree": 3, "coef0": 1.0}
    H = torch_ops.gram_core(X, **kernel, workspace=torch.full((X.numel() + 3,), torch.nan).double())
    ratios.assert_within(ratios.gram_rbf(H.numpy(), reference.gram(X.numpy(), gamma=gamma), X.numpy(), gamma=gamma))
    assert torch.equal(H, H.mT)


def test_largest_is_the_largest_entry() -> None:
    X, batches = random(23, 2), mini_batches(23, 5, seed=0)
    for gamma in (0.01, 10.0):
        cache = KernelCache(X, batches, gamma=gamma)
        assert cache.largest == max(inverse.matrix.max() for inverse in entries(cache, X))


def test_progress_counts_the_mini_batches_done() -> None:
    X, batches, seen = random(23, 2), mini_batches(23, 5, seed=0), []
    KernelCache(X, batches, memory_budget=smallest_budget(X, batches), progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def test_the_source_is_a_fingerprint_of_data_composition_and_kernel() -> None:
    X, batches = random(12, 3), list(mini_batches(12, 5, seed=0))
    changed = X.clone()
    changed[3, 1] += 2**-50
    different = {
        "itself": KernelCache(X, batches),
        "data": KernelCache(changed, batches),
        "precision of the data": KernelCache(X.float(), batches),
        "order of the mini-batches": KernelCache(X, batches[::-1]),
        "order within one": KernelCache(X, [batches[0].flip(0), *batches[1:]]),
        "sizes": KernelCache(X, torch.cat(batches).split(6)),
        "kernel": KernelCache(X, batches, kernel="linear"),
        "gamma": KernelCache(X, batches, gamma=0.02),
        "ridge": KernelCache(X, batches, ridge=1e-3),
        "singular": KernelCache(X, batches, singular="raise"),
    }
    sources = {name: cache.source for name, cache in different.items()}
    assert len(set(sources.values())) == len(sources), sources
    same = [
        KernelCache(X.clone(), batches, dtype=torch.float32, memory_budget=smallest_budget(X, batches)),
        KernelCache(X, batches, gamma=np.float64(0.01), ridge=0),
    ]
    assert {cache.source for cache in same} == {sources["itself"]}


@given(
    pair=st.tuples(
        strategies.data_matrices(rows=strategies.sizes(3)), strategies.data_matrices(rows=strategies.sizes(3))
    ),
    dtypes=st.tuples(*[st.sampled_from((torch.float64, torch.float32, torch.bfloat16, torch.uint8))] * 2),
)
def test_digests_agree_for_tensors_that_do_in_every_bit_shape_and_dtype(
    pair: tuple[Array, Array], dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    one, other = (tensor(array).clamp(0, 255).to(dtype) for array, dtype in zip(pair, dtypes, strict=True))
    same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    assert (content_digest(one) == content_digest(other)) == same
    assert content_digest(one) == content_digest(one.t().contiguous().t())
    assert content_digest(one) != content_digest(one[None])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_digests_of_round_numbers_do_not_collide(dtype: torch.dtype) -> None:
    """All rows of zeros and ones, of signs, and of 0 and a power of two: few bits of each are ever set."""
    for low, high in ((0, 1), (-1, 1), (0, 2**40)):
        rows = torch.tensor(list(product((low, high), repeat=12))).to(dtype)
        assert len({content_digest(row) for row in rows}) == len(rows)


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
