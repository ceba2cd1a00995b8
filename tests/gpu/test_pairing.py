"""An inverse is used with its own mini-batch, or there is an error: the attacks, and the honest uses beside them.

All mini-batches have the same size here, so that no shape gives a wrong pair away.
"""

import copy
import gc
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, kernel_inverse, mini_batches, resampled
from tests.gpu.networks import backward, random
from tests.support import strategies

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
        if accumulated:
            with run.optimizer.accumulate(inverse):
                backward(run.model, x, y)
            run.optimizer.step()
        else:
            backward(run.model, x, y)
            run.optimizer.step(inverse=inverse)
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


def accepted(cache: KernelCache, X: Tensor) -> bool:
    try:
        list(cache.batches(X))
    except ValueError:
        return False
    return True


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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_without_a_watched_model_a_cached_inverse_is_refused(copied: Callable[..., KernelSGD]) -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    unwatched = KernelSGD(kernel_groups(run.model))
    backward(run.model, x, y)
    duplicate = copied(run.optimizer)
    for p, original in zip(duplicate.param_groups[0]["params"], run.model[2].parameters(), strict=True):
        p.grad = original.grad
    for optimizer in (unwatched, duplicate):
        with pytest.raises(RuntimeError, match=r"watch\(model\)"):
            optimizer.step(inverse=inverse)
    unwatched.watch(run.model)
    unwatched.zero_grad()
    backward(run.model, x, y)
    unwatched.step(inverse=inverse)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("step_rule", ["constant", "monotone"])
def test_a_model_is_watched_once_until_another_is_or_the_optimizer_is_gone(step_rule: str) -> None:
    model = nn.Sequential(nn.Linear(D, 4), nn.Linear(4, 3))
    others = [copy.deepcopy(model), copy.deepcopy(model)]
    each = 1 if step_rule == "constant" else 2
    optimizer = KernelSGD(kernel_groups(model, step_rule=step_rule), model=model)
    optimizer.watch(model)
    assert hooks(model) == each
    if step_rule == "constant":
        for other in others:
            optimizer.watch(other)
        assert [hooks(m) for m in (model, *others)] == [0, 0, 1]
    kept = model(random(M, D, dtype=torch.float32)).sum()
    del optimizer
    gc.collect()
    assert [hooks(m) for m in (model, *others)] == [0, 0, 0]
    kept.backward()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: torch.load(saved(m), weights_only=False)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copied_model_is_not_watched(copied: Callable[[nn.Module], nn.Module]) -> None:
    """Also in the middle of a step, when the watch holds tensors that cannot be copied."""
    run = training()
    x, y, inverse = run.pairs()[0]
    run.run(x.clone().requires_grad_() * 1, y)
    twin = copied(run.model)
    run.run(x, y)
    backward(twin, x + 1, y)
    run.optimizer.step(inverse=inverse)


def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


ODD_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": torch.Tensor.to_sparse,
    "sparse rows": torch.Tensor.to_sparse_csr,
    "meta": lambda x: x.to("meta"),
    "conjugate": lambda x: torch.complex(x, x).conj(),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("odd", ODD_INPUTS.values(), ids=ODD_INPUTS)
def test_a_watched_model_runs_on_whatever_it_ran_on_before(odd: Callable[[Tensor], Tensor]) -> None:
    """What has no digest is no mini-batch of any inverse, and no concern of an unchecked one."""

    class Densely(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.ones(M, D) + 0 * x.shape[0])

    model = Densely()
    optimizer = KernelSGD(kernel_groups(model), model=model)
    backward(model, odd(random(M, D, dtype=torch.float32)), Y[:M])
    refusal = (NotImplementedError, "meta") if odd is ODD_INPUTS["meta"] else (ValueError, "not what the model was")
    with pytest.raises(refusal[0], match=refusal[1]):
        optimizer.step(inverse=kernel_inverse(torch.ones(M, D)))
    optimizer.step(inverse=CachedInverse.unchecked(torch.eye(M)))


def test_a_watched_model_can_be_differentiated_functionally_exported_and_compiled() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    values = dict(run.model.named_parameters())
    torch.func.grad(lambda p: torch.func.functional_call(run.model, p, (x,)).sum())(values)
    torch.func.vmap(torch.func.grad(lambda x: run.model(x).sum()))(x)
    torch.export.export(run.model, (x,))
    compiled = torch.compile(run.model, backend="eager", fullgraph=True)
    wrong = run.pairs()[1][2]
    run.optimizer.zero_grad()
    backward(compiled, x, y)
    assert_refused(run, wrong)
    run.optimizer.step(inverse=inverse)
    run.optimizer.zero_grad()
    backward(compiled, x, y)
    x.add_(1)
    assert_refused(run, kernel_inverse(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("step_rule", ["constant", "monotone"])
def test_a_watched_model_can_be_traced_and_scripted_beforehand_or_afterwards(step_rule: str) -> None:
    model, x = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Linear(4, 3)), random(M, D, dtype=torch.float32)
    before = torch.jit.script(model)
    optimizer = KernelSGD(kernel_groups(model, step_rule=step_rule), model=model)
    traced = torch.jit.trace(model, x)
    backward(model, x, Y[:M])
    optimizer.step(inverse=kernel_inverse(x))
    assert torch.equal(traced(x), model(x))
    assert torch.equal(before(x), model(x))
    del optimizer
    gc.collect()
    torch.jit.script(model)


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


def test_a_watched_model_keeps_no_mini_batch_alive() -> None:
    run = training()
    x = random(M, D, dtype=torch.float32)
    run.run(x, Y[:M])
    seen = ref(x)
    del x
    assert seen() is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_cache_hands_out_the_same_inverses(copied: Callable[[KernelCache], KernelCache]) -> None:
    run = training()
    twin = copied(run.cache)
    run.epoch(list(twin.batches(run.X, Y)))
    for (_, _, one), (_, _, other) in zip(twin.batches(run.X, Y), run.pairs(), strict=True):
        assert (one.source, one.batch, one.digest) == (other.source, other.batch, other.digest)
        assert torch.equal(one.matrix, other.matrix)


def test_an_inference_tensor_is_identified_by_its_contents() -> None:
    run = training()
    with torch.inference_mode():
        x, _, inverse = run.pairs()[0]
    run.model[0].requires_grad_(False)  # torch does not save it for a gradient
    backward(run.model, x, Y[BATCHES[0]])
    run.optimizer.step(inverse=inverse)


def test_running_another_model_does_not_count() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    twin = copy.deepcopy(run.model)
    run.optimizer.zero_grad()
    backward(twin, x, y)
    for p, other in zip(run.model.parameters(), twin.parameters(), strict=True):
        p.grad = other.grad
    assert_refused(run, inverse, "has not been run")


def test_an_inverse_computed_on_the_spot_belongs_to_its_mini_batch_alone() -> None:
    run = training()
    x, y, _ = run.pairs()[0]
    noisy = x + 0.1
    inverse = kernel_inverse(noisy)
    run.run(x, y)
    assert_refused(run, inverse)
    run.run(noisy, y)
    run.optimizer.step(inverse=inverse)


def test_a_micro_batch_accumulated_with_the_inverse_of_another_is_refused() -> None:
    run = training()
    (x, y, _), (_, _, inverse), *_ = run.pairs()
    with pytest.raises(ValueError, match="not what the model was run on"), run.optimizer.accumulate(inverse):
        backward(run.model, x, y)
    assert all(p.grad is None for p in run.model.parameters())


def test_a_failed_micro_batch_is_forgotten() -> None:
    run = training()
    (x, _, inverse), (other, its_labels, its_inverse), *_ = run.pairs()
    with pytest.raises(IndexError), run.optimizer.accumulate(inverse):
        backward(run.model, x, Y[:M] + 3)
    with run.optimizer.accumulate(its_inverse):
        backward(run.model, other, its_labels)
    run.optimizer.step()


def test_a_backward_pass_outside_between_two_micro_batches_is_refused() -> None:
    run = training()
    (x, y, inverse), (other, its_labels, its_inverse), *_ = run.pairs()
    with run.optimizer.accumulate(inverse):
        backward(run.model, x, y)
    backward(run.model, other, its_labels)
    with pytest.raises(ValueError, match="within accumulate"), run.optimizer.accumulate(its_inverse):
        backward(run.model, other, its_labels)


@pytest.mark.parametrize("change", ["written", "replaced"])
def test_a_gradient_changed_between_two_micro_batches_is_refused(change: str) -> None:
    weight = nn.Parameter(random(3, 6))
    optimizer = KernelSGD([weight], preconditioned=True)
    inverse = CachedInverse.unchecked(torch.eye(4).double())
    with optimizer.accumulate(inverse):
        weight.sum().backward()
    if change == "written":
        weight.grad.mul_(2)
    else:
        weight.grad = 2 * weight.grad
    with pytest.raises(ValueError, match="within accumulate"), optimizer.accumulate(inverse):
        weight.sum().backward()


def test_gradients_that_are_gone_are_no_longer_accumulated() -> None:
    run, twin = training(), training()
    twin.model.load_state_dict(run.model.state_dict())
    for group in (*run.optimizer.param_groups, *twin.optimizer.param_groups):
        group["weight_decay"] = 0.1
    (x, y, inverse), (other, its_labels, its_inverse), *_ = run.pairs()
    for accumulated in (False, True):
        with run.optimizer.accumulate(inverse):
            backward(run.model, x, y)
        run.model.zero_grad()
        for each in (run, twin):
            if accumulated:
                with each.optimizer.accumulate(its_inverse):
                    backward(each.model, other, its_labels)
                each.optimizer.step()
            else:
                backward(each.model, other, its_labels)
                each.optimizer.step(inverse=its_inverse)
        assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), twin.model.parameters(), strict=True))
        for each in (run, twin):
            each.optimizer.zero_grad()


def test_a_micro_batch_joined_from_two_is_refused() -> None:
    run = training()
    (x, y, inverse), (other, its_labels, _), *_ = run.pairs()
    with pytest.raises(ValueError, match="not what the model was run on"), run.optimizer.accumulate(inverse):
        backward(run.model, torch.cat((x, other)), torch.cat((y, its_labels)))


# Honest uses: none of these may raise.


def test_epochs_repeat_over_the_cache_its_pairs_kept_or_ones_own_loader() -> None:
    run = training()
    kept = run.pairs()
    for _ in range(2):
        run.epoch(run.pairs())
        run.epoch(kept)
        run.epoch(kept[::-1])
        loader = DataLoader(TensorDataset(run.X, Y), batch_sampler=[b.tolist() for b in BATCHES])
        run.epoch([(x, y, run.cache.lookup(x)) for x, y in loader])
    assert run.optimizer.param_groups[0]["source"] == run.cache.source


@pytest.mark.parametrize(
    "duplicate",
    [
        torch.Tensor.clone,
        lambda x: x.to("cpu", copy=True),
        lambda x: torch.from_numpy(x.numpy().copy()),
        lambda x: x.t().contiguous().t(),
        lambda x: x.pin_memory() if torch.cuda.is_available() else x.detach(),
        lambda x: x.double().float(),
    ],
    ids=["clone", "moved", "through numpy", "other memory layout", "pinned", "there and back"],
)
def test_a_copy_with_the_same_bits_is_the_mini_batch(duplicate: Callable[[Tensor], Tensor]) -> None:
    run = training()
    run.epoch([(duplicate(x), y, inverse) for x, y, inverse in run.pairs()])
    run.epoch([(x, y, run.cache.lookup(duplicate(x))) for x, y, _ in run.pairs()])


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "eval"])
def test_evaluation_in_between_does_not_matter(mode: str) -> None:
    run = training()
    for x, y, inverse in run.pairs():
        run.run(x, y)
        if mode == "eval":
            run.model.eval()(run.X)
            run.model.train()
        else:
            with getattr(torch, mode)():
                run.model(run.X)
        run.optimizer.step(inverse=inverse)


def test_a_skipped_step_of_a_grad_scaler_and_zero_grad_start_anew() -> None:
    run, scaler = training(), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for number, (x, y, inverse) in enumerate(run.pairs()):
        run.optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(run.model(x), y)).backward()
        if number % 2:
            run.model[0].weight.grad.fill_(float("inf"))
        before = run.model[2].weight.detach().clone()
        scaler.step(run.optimizer, inverse=inverse)
        scaler.update()
        assert torch.equal(run.model[2].weight, before) == (number % 2 == 1)


def test_a_mini_batch_may_be_run_several_times_by_keyword_and_in_a_closure() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]

    def closure() -> Tensor:
        run.optimizer.zero_grad()
        run.model(input=x)
        loss = nn.functional.cross_entropy(run.model(input=x), y)
        loss.backward()
        return loss

    first = run.optimizer.step(closure, inverse=inverse)
    assert run.optimizer.step(closure, inverse=inverse) < first


def test_a_run_resumes_with_a_cache_built_again_from_the_same_data() -> None:
    run, resumed = training(), training()
    run.epoch(run.pairs())
    resumed.optimizer.load_state_dict(run.optimizer.state_dict())
    resumed.epoch(resumed.pairs())


def test_resampled_epochs_are_one_run_and_resume_as_such() -> None:
    run, resumed = training(), training()
    for cache in islice(resampled(run.X, M, seed=0), 3):
        run.epoch(list(cache.batches(run.X, Y)))
    resumed.optimizer.load_state_dict(run.optimizer.state_dict())
    for cache in islice(resampled(run.X.clone(), M, seed=0, start_epoch=3), 2):
        resumed.epoch(list(cache.batches(resumed.X, Y)))


def test_other_data_on_purpose_is_one_assignment_away() -> None:
    run, other = training(), training(random(N, D, seed=1, dtype=torch.float32))
    run.epoch(run.pairs())
    run.optimizer.param_groups[0]["source"] = None
    run.epoch(other.pairs())


def test_augmenting_loaders_train_with_inverses_computed_on_the_spot() -> None:
    run = training()
    run.epoch(run.pairs())
    run.epoch([(x + shift, y, kernel_inverse(x + shift)) for shift in (0.0, 0.1) for x, y, _ in run.pairs()])


def test_a_matrix_of_ones_own_is_not_checked() -> None:
    run = training()
    x, y, _ = run.pairs()[0]
    run.run(x, y)
    run.optimizer.step(inverse=CachedInverse.unchecked(torch.eye(7)))


@given(m=strategies.sizes(6), seed=strategies.seeds())
def test_pairs_of_the_cache_are_accepted_whatever_the_sizes(m: int, seed: int) -> None:
    X = random(11, D, seed=seed)
    model = nn.Linear(D, 3).double()
    optimizer = KernelSGD(kernel_groups(model), 0.01, model=model)
    cache = KernelCache(X, mini_batches(11, m, seed=seed))
    for x, y, inverse in cache.batches(X, Y[:11]):
        optimizer.zero_grad()
        backward(model, x, y)
        optimizer.step(inverse=inverse)
    assert np.isfinite(model.weight.detach().numpy()).all()
