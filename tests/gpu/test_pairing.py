"""An inverse is used with its own mini-batch, or there is an error: the attacks; honest uses are in test_honest_pairs.

All mini-batches have the same size here, so that no shape gives a wrong pair away.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from gpu.optim import KernelCache, kernel_inverse, mini_batches, resampled
from tests.gpu.networks import backward, random
from tests.gpu.pairing import BATCHES, D, M, N, Y, accepted, assert_refused, training


def test_the_inverse_of_another_mini_batch_is_refused() -> None:
    run = training()
    pairs = run.pairs()
    for x, y, own in pairs:
        for _, _, inverse in pairs:
            if inverse is not own:
                run.run(x, y)
                assert_refused(run, inverse)


@given(order=st.permutations(range(M)), flipped=st.integers(0, M * D - 1), bit=st.integers(0, 31))
def test_no_permutation_and_no_flipped_bit_goes_unnoticed(order: list[int], flipped: int, bit: int) -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    changed = x[order].contiguous()
    if order == sorted(order):
        changed.view(torch.int32).view(-1)[flipped] ^= -(2**31) if bit == 31 else 2**bit
    run.run(changed.nan_to_num(), y[order])
    assert_refused(run, inverse)
    with pytest.raises(ValueError, match="none of the 6 in the cache"):
        run.cache.lookup(changed)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda x: x + 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "flip": lambda x: x.flip(1),
    "sign": lambda x: -x,
    "crop": lambda x: x * (torch.arange(D) < 4),
    "mix-up": lambda x: x.lerp(x.roll(1, 0), 0.1),
    "rounding": lambda x: x.half().float(),
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_an_augmented_copy_is_refused(augment: Callable[[Tensor], Tensor]) -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    run.run(augment(x), y)
    assert_refused(run, inverse)
    with pytest.raises(ValueError, match="none of the 6 in the cache"):
        run.cache.lookup(augment(x))


def test_a_shuffled_loader_beside_the_entries_of_the_cache_is_refused() -> None:
    run = training()
    loader = DataLoader(TensorDataset(run.X, Y), batch_size=M, shuffle=True, generator=torch.Generator().manual_seed(0))
    for (x, y), (_, _, inverse) in zip(loader, run.pairs(), strict=True):
        run.run(x, y)
        assert_refused(run, inverse)
        with pytest.raises(ValueError, match="kernel_inverse"):
            run.cache.lookup(x)


def write_the_batch(x: Tensor) -> None:
    x[0, 0] += 1


def write_and_undo_half(x: Tensor) -> None:
    x.mul_(2)


def replace_its_memory(x: Tensor) -> None:
    x.data = x.data + 1


@pytest.mark.parametrize("change", [write_the_batch, write_and_undo_half, replace_its_memory])
def test_a_mini_batch_written_to_before_the_forward_pass_is_refused(
    change: Callable[[Tensor], None],
) -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    change(x)
    run.run(x, y)
    assert_refused(run, inverse)


@pytest.mark.parametrize("change", [write_the_batch, write_and_undo_half, replace_its_memory])
def test_what_the_model_was_run_on_counts_not_what_is_written_there_later(
    change: Callable[[Tensor], None],
) -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    run.run(x, y)
    change(x)
    assert_refused(run, kernel_inverse(x))
    run.optimizer.step(inverse=inverse)


@pytest.mark.parametrize("through", ["torch", "numpy"])
def test_a_buffer_that_holds_the_next_mini_batch_by_the_time_of_the_step_is_refused(through: str) -> None:
    """Its contents are those of the inverse; the gradient is that of what it held before."""
    run = training()
    buffer = torch.empty(M, D)
    write = buffer.copy_ if through == "torch" else lambda x: np.copyto(buffer.numpy(), x.numpy())
    write(run.X[BATCHES[0]])
    run.cache.lookup(buffer)
    run.run(buffer, Y[BATCHES[0]])
    write(run.X[BATCHES[1]])
    assert_refused(run, run.cache.lookup(buffer))
    run.optimizer.step(inverse=run.cache.lookup(run.X[BATCHES[0]]))


def test_a_loader_that_fills_one_buffer_through_numpy_is_no_exception() -> None:
    """The inverses of an epoch are looked up beforehand; the next comes in another order, in the same tensor."""
    run, buffer = training(), torch.empty(M, D)

    def filled(order: range) -> Iterator[Tensor]:
        for batch in order:
            buffer.numpy()[:] = run.X[BATCHES[batch]].numpy()
            yield buffer

    inverses = [run.cache.lookup(x) for x in filled(range(6))]
    for x, inverse in zip(filled(range(6)), inverses, strict=True):
        run.epoch([(x, Y[inverse.indices], inverse)])
    for x, inverse in zip(filled(range(5, -1, -1)), inverses, strict=True):
        run.run(x, Y[:M])
        assert_refused(run, inverse)


@pytest.mark.parametrize("through", ["torch", "numpy", "data"])
@pytest.mark.parametrize("same", [True, False], ids=["the very tensor", "a view"])
def test_data_written_to_is_refused_at_once(through: str, same: bool) -> None:
    run = training()
    other = run.X if same else run.X.view(N, D)
    pairs = run.cache.batches(run.X, Y)
    next(pairs)
    writable = {"torch": other, "numpy": other.numpy(), "data": other.data}[through]
    writable[BATCHES[1][2], 2] += 1
    for batches in (pairs, islice(run.cache.batches(other, Y), 1, None)):
        with pytest.raises(ValueError, match="X: its mini-batch 1 "):
            next(batches)


def test_other_data_of_the_same_shape_is_refused_even_in_the_same_memory() -> None:
    """What torch allocates next tends to lie where the data lay before."""
    run = training(random(N, D))
    for seed in range(1, 20):
        X = random(N, D, seed=0)
        next(run.cache.batches(X, Y))
        del X
        with pytest.raises(ValueError, match="X: its mini-batch 0"):
            next(run.cache.batches(random(N, D, seed=seed), Y))


@pytest.mark.parametrize("other", [lambda X: X[:-1], lambda X: X.flip(0), lambda X: X.double(), lambda X: X[None]])
def test_part_of_the_data_or_another_form_of_it_is_refused(other: Callable[[Tensor], Tensor]) -> None:
    run = training()
    with pytest.raises(ValueError, match=r"X: (its mini-batch|expected at least 30 instances)"):
        list(run.cache.batches(other(run.X)))


def changed(X: Tensor) -> Tensor:
    X = X.clone()
    X[0, 0] += 1
    return X


OTHER_RUNS: dict[str, Callable[[Tensor], KernelCache]] = {
    "data": lambda X: KernelCache(changed(X), BATCHES),
    "data of the same mini-batches in another order": lambda X: KernelCache(X.flip(0), [N - 1 - b for b in BATCHES]),
    "kernel": lambda X: KernelCache(X, BATCHES, kernel="linear"),
    "gamma": lambda X: KernelCache(X, BATCHES, gamma=0.1),
    "ridge": lambda X: KernelCache(X, BATCHES, ridge=0.1),
    "composition": lambda X: KernelCache(X, mini_batches(N, M, seed=1)),
    "order of the mini-batches": lambda X: KernelCache(X, BATCHES[::-1]),
    "resampling": lambda X: KernelCache(X, BATCHES, fixed=False),
}


@pytest.mark.parametrize("other", OTHER_RUNS.values(), ids=OTHER_RUNS)
@pytest.mark.parametrize("accumulated", [False, True], ids=["step", "accumulate"])
def test_a_run_resumed_with_another_cache_is_refused(other: Callable[[Tensor], KernelCache], accumulated: bool) -> None:
    """The new pairs are consistent in themselves; that they are not those of the run is in the state."""
    run = training()
    for x, y, inverse in run.pairs():
        run.optimizer.zero_grad()
        run.take(x, y, inverse, accumulated=accumulated)
    resumed = training()
    resumed.optimizer.load_state_dict(run.optimizer.state_dict())
    cache = other(run.X)
    data = next(X for X in (run.X, changed(run.X), run.X.flip(0)) if accepted(cache, X))
    for x, y, inverse in cache.batches(data, Y):
        resumed.run(x, y)
        assert_refused(resumed, inverse, "from the cache")
        resumed.optimizer.zero_grad()
        with pytest.raises(ValueError, match="from the cache"), resumed.optimizer.accumulate(inverse):
            backward(resumed.model, x, y)


def test_an_entry_kept_from_the_mini_batch_before_is_refused() -> None:
    run = training()
    kept = None
    for x, y, inverse in run.pairs():
        run.run(x, y)
        if kept is not None:
            assert_refused(run, kept)
        run.optimizer.step(inverse=inverse)
        kept = inverse


def test_an_entry_of_the_epoch_before_is_refused_after_resampling() -> None:
    run = training()
    before, after = islice(resampled(run.X, M, seed=0), 2)
    for x, y, _ in after.batches(run.X, Y):
        run.run(x, y)
        for _, inverse in before.batches(run.X):
            assert_refused(run, inverse)


def test_a_forward_pass_of_another_mini_batch_in_between_is_refused() -> None:
    run = training()
    (x, y, inverse), (other, its_labels, _), *_ = run.pairs()
    run.run(x, y)
    backward(run.model, other, its_labels)
    assert_refused(run, inverse)
    run.run(other, its_labels)
    run.model(x)
    assert_refused(run, inverse)


def test_a_gradient_of_which_the_model_has_run_nothing_is_refused() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    run.run(x, y)
    run.optimizer.step(inverse=inverse)
    assert_refused(run, inverse, "has not been run in training mode")


def test_the_refusal_says_that_the_shape_counts() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    with pytest.raises(ValueError, match="shape counts"):
        run.cache.lookup(x[:, None])
    run.run(x, y)
    assert_refused(run, kernel_inverse(x[:, None]), "order, shape and dtype count")
    run.optimizer.step(inverse=inverse)


def test_a_tensor_handed_out_and_refilled_unseen_is_what_lookup_finds_in_it() -> None:
    run = training()
    (x, _, first), (other, y, second), *_ = run.pairs()
    x.numpy()[:] = other.numpy()
    assert run.cache.lookup(x) is second
    run.run(x, y)
    assert_refused(run, first)
    run.optimizer.step(inverse=second)


def test_an_inverse_computed_on_the_spot_belongs_to_its_mini_batch_alone() -> None:
    run = training()
    x, y, _ = run.pairs()[0]
    noisy = x + 0.1
    inverse = kernel_inverse(noisy)
    run.run(x, y)
    assert_refused(run, inverse)
    run.run(noisy, y)
    run.optimizer.step(inverse=inverse)
