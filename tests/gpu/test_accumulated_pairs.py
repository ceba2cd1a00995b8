"""Micro-batches accumulated, each with its own inverse, or there is an error."""

import pytest
import torch
from torch import nn

from gpu.optim import CachedInverse, KernelSGD
from tests.gpu.networks import backward, random
from tests.gpu.pairing import M, Y, training


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
            each.take(other, its_labels, its_inverse, accumulated=accumulated)
        assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), twin.model.parameters(), strict=True))
        for each in (run, twin):
            each.optimizer.zero_grad()


def test_a_micro_batch_joined_from_two_is_refused() -> None:
    run = training()
    (x, y, inverse), (other, its_labels, _), *_ = run.pairs()
    with pytest.raises(ValueError, match="not what the model was run on"), run.optimizer.accumulate(inverse):
        backward(run.model, torch.cat((x, other)), torch.cat((y, its_labels)))
