"""The kernel cache: its inverses are the reference's, its mini-batches are those of the epoch."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import reference
from gpu import torch_ops
from gpu.optim import KernelCache, kernel_inverse, mini_batches
from gpu.optim.digests import content_digest
from tests.gpu.caches import duplicated, entries, smallest_budget
from tests.gpu.networks import random, tensor
from tests.support import ratios, strategies

Array = NDArray[np.floating]


def indices(batches: Sequence[NDArray[np.int64]]) -> list[Tensor]:
    return [torch.from_numpy(batch) for batch in batches]


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


@pytest.mark.parametrize("kernel", ["rbf", "linear", "polynomial"])
@given(
    X=strategies.not_finite(strategies.data_matrices(rows=st.just(7))),
    batches=strategies.mini_batch_compositions(st.just(7)),
)
def test_data_that_is_not_finite_is_an_error(kernel: str, X: Array, batches: tuple[NDArray[np.int64], ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        KernelCache(tensor(X), indices(batches), kernel=kernel)


@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
def test_a_kernel_matrix_that_overflows_is_an_error(kernel: str) -> None:
    X, batches = random(9, 2), mini_batches(9, 3, seed=0)
    X[batches[1]] *= 1e160
    with pytest.raises(FloatingPointError, match=f"mini-batch 1: the {kernel} Gram matrix overflows"):
        KernelCache(X, batches, kernel=kernel, gamma=1.0)


def test_an_inverse_that_the_dtype_cannot_hold_is_an_error() -> None:
    """1/⟨x, x⟩ = 1e40 fits float64, not float32."""
    X, options = torch.full((3, 1), 1e-20, dtype=torch.float64), {"kernel": "linear", "singular": "raise"}
    batches = list(torch.arange(3).split(1))
    assert KernelCache(X, batches, **options).largest == pytest.approx(1e40)
    with pytest.raises(FloatingPointError, match=r"mini-batches 0 to 2: .*torch\.float32"):
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


def test_largest_is_the_largest_entry() -> None:
    X, batches = random(23, 2), mini_batches(23, 5, seed=0)
    for gamma in (0.01, 10.0):
        cache = KernelCache(X, batches, gamma=gamma)
        assert cache.largest == max(inverse.matrix.max() for inverse in entries(cache, X))


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
