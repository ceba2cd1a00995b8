"""Honest uses of inverses are no errors: epochs, copies, evaluation in between, closures, resumption, resampling."""

import copy
import pickle
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, kernel_inverse, mini_batches, resampled
from tests.gpu.networks import backward, random
from tests.gpu.pairing import BATCHES, D, M, N, Y, training
from tests.support import strategies


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
