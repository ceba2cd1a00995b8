"""Gradient accumulation: every micro-batch with its own inverse, as if its step had been taken alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import reference
from gpu.optim import CachedInverse, KernelSGD, kernel_groups
from tests.gpu.networks import backward, parameter, random, tensor
from tests.gpu.steps import Array, found, unchecked
from tests.support import strategies


class MicroBatches:
    """Micro-batches of one layer: each a gradient, and an inverse of its own size."""

    def __init__(self, d_in: int, sizes: list[int], seed: int) -> None:
        self.W = random(3, d_in, seed=seed)
        self.gradients = [random(3, d_in, seed=seed + 1 + i) for i in range(len(sizes))]
        self.inverses = [found(random(m, m, seed=seed + 100 + i)) for i, m in enumerate(sizes)]

    def expected(self) -> Array:
        """Σ Gᵢ·Pᵢ."""
        return np.sum([found(G) @ P for G, P in zip(self.gradients, self.preconditioners(), strict=True)], axis=0)

    def preconditioners(self) -> list[Array]:
        return [reference.reshape_inverse(inverse, self.W.shape[1]) for inverse in self.inverses]

    def bound(self) -> Array:
        """Of every rounding of every sum: (d_in + number) · u · Σ |Gᵢ|·|Pᵢ|, and as much for `expected`."""
        size = np.sum(
            [abs(found(G)) @ abs(P) for G, P in zip(self.gradients, self.preconditioners(), strict=True)], axis=0
        )
        return 2 * (self.W.shape[1] + len(self.gradients)) * 2**-53 * size

    def accumulate(self, optimizer: KernelSGD, weight: nn.Parameter) -> None:
        for G, inverse in zip(self.gradients, self.inverses, strict=True):
            with optimizer.accumulate(unchecked(inverse)):
                (weight * G).sum().backward()


@given(d_in=strategies.sizes(6), sizes=st.lists(strategies.sizes(8), min_size=1, max_size=4), seed=strategies.seeds())
def test_accumulation_adds_up_individually_preconditioned_gradients(d_in: int, sizes: list[int], seed: int) -> None:
    micro = MicroBatches(d_in, sizes, seed)
    weight = parameter(micro.W)
    optimizer = KernelSGD([weight], 0.25, preconditioned=True)
    micro.accumulate(optimizer, weight)
    assert (abs(found(weight.grad) - micro.expected()) <= micro.bound()).all()
    gradient = weight.grad.clone()
    optimizer.step()
    assert torch.equal(weight, micro.W - 0.25 * gradient)


@given(d_in=strategies.sizes(6), sizes=st.lists(strategies.sizes(8), min_size=1, max_size=4), seed=strategies.seeds())
def test_the_l2_term_of_an_accumulated_step_has_the_mean_of_the_inverses(
    d_in: int, sizes: list[int], seed: int
) -> None:
    micro = MicroBatches(d_in, sizes, seed)
    weight = parameter(micro.W)
    optimizer = KernelSGD([weight], 1.0, weight_decay=0.5, preconditioned=True)
    micro.accumulate(optimizer, weight)
    optimizer.step()
    W, mean = found(micro.W), np.mean(micro.preconditioners(), axis=0)
    size = abs(W) @ np.mean(np.abs(micro.preconditioners()), axis=0)
    bound = micro.bound() + 2 * (d_in + len(sizes) + 3) * 2**-53 * (abs(W) + size + abs(micro.expected()))
    assert (abs(found(weight) - (W - micro.expected() - 0.5 * W @ mean)) <= bound).all()


@pytest.mark.parametrize("bias", ["plain", "augmented"])
def test_accumulating_one_mini_batch_is_its_step(bias: Any) -> None:
    W, b, inverse = random(3, 6), random(3, seed=1), CachedInverse.unchecked(random(4, 4, seed=2))
    x, y = random(4, 6, seed=3), torch.tensor([0, 1, 2, 1])
    moved = []
    for accumulated in (True, False):
        model = nn.Linear(6, 3, dtype=torch.float64)
        model.load_state_dict({"weight": W, "bias": b})
        optimizer = KernelSGD(kernel_groups(model), 0.3, bias=bias, weight_decay=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            if accumulated:
                with optimizer.accumulate(inverse):
                    backward(model, x, y)
                optimizer.step()
            else:
                backward(model, x, y)
                optimizer.step(inverse=inverse)
        moved.append(list(model.parameters()))
    # Two steps with sums of at most 7 terms, of sizes below 10.
    torch.testing.assert_close(*moved, rtol=0, atol=2 * 2 * 9 * 10 * 2**-53)


def test_scaling_and_clipping_act_on_the_preconditioned_gradient() -> None:
    micro = MicroBatches(5, [3, 7], seed=0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, unscaled = parameter(micro.W), parameter(micro.W)
    optimizers = [KernelSGD([weight], 0.5, weight_decay=0.1, preconditioned=True) for weight in (scaled, unscaled)]
    for G, inverse in zip(micro.gradients, micro.inverses, strict=True):
        with optimizers[0].accumulate(unchecked(inverse)):
            scaler.scale((scaled * G).sum()).backward()
    micro.accumulate(optimizers[1], unscaled)
    scaler.unscale_(optimizers[0])
    assert torch.equal(scaled.grad, unscaled.grad)
    norms = [torch.nn.utils.clip_grad_norm_([weight], 0.01) for weight in (scaled, unscaled)]
    assert norms[0] == norms[1] > 0.01
    scaler.step(optimizers[0])
    optimizers[1].step()
    assert torch.equal(scaled, unscaled)
    moved = micro.W - 0.5 * 0.1 * micro.W @ tensor(np.mean(micro.preconditioners(), axis=0)) - unscaled
    # What is left after the L2 term is η times a gradient of the clipped norm, which torch misses by 1e-6 in all.
    assert moved.detach().norm().item() == pytest.approx(0.5 * 0.01, rel=1e-5)


def train_on(model: nn.Module, x: Tensor, y: Tensor, *, fails: bool) -> None:
    backward(model, x, y)
    if fails:
        raise ValueError("body")


@pytest.mark.parametrize("failure", ["body", "inverse"])
def test_a_failed_accumulation_leaves_every_gradient_as_it_was(failure: str) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    optimizer = KernelSGD(kernel_groups(model))
    x, y = random(4, 5), torch.tensor([0, 1, 2, 0])
    inverse = CachedInverse.unchecked(torch.eye(4, dtype=torch.float64))
    with optimizer.accumulate(inverse):
        backward(model, x, y)
    before = [p.grad.clone() for p in model.parameters()]
    wrong = CachedInverse.unchecked(torch.eye(4)) if failure == "inverse" else inverse
    with pytest.raises(ValueError, match=failure), optimizer.accumulate(wrong):
        train_on(model, x + 1, y, fails=failure == "body")
    torch.testing.assert_close([p.grad for p in model.parameters()], before, rtol=0, atol=0)
    optimizer.step()


def test_plain_gradients_accumulate_as_in_torch() -> None:
    models = [nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizer = KernelSGD(kernel_groups(models[0]))
    for seed in range(3):
        x, y = random(4, 5, seed=seed), torch.tensor([0, 1, 2, 0])
        with optimizer.accumulate(CachedInverse.unchecked(random(4, 4, seed=seed))):
            backward(models[0], x, y)
        backward(models[1], x, y)
    for name in ("0.weight", "0.bias", "2.bias"):
        assert torch.equal(models[0].get_parameter(name).grad, models[1].get_parameter(name).grad)


def test_gradients_accumulated_and_not_do_not_mix() -> None:
    """Neither a second inverse for what is preconditioned already, nor a backward pass outside."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    optimizer = KernelSGD(kernel_groups(model), model=model)
    x, y, inverse = random(4, 5), torch.tensor([0, 1, 2, 0]), CachedInverse.unchecked(torch.eye(4).double())
    with optimizer.accumulate(inverse):
        backward(model, x, y)
    with pytest.raises(ValueError, match="already"):
        optimizer.step(inverse=inverse)
    backward(model, x, y)
    with pytest.raises(ValueError, match="within accumulate"):
        optimizer.step()


def test_a_gradient_from_before_the_first_micro_batch_is_refused() -> None:
    weight = parameter(random(3, 6), random(3, 6))
    optimizer = KernelSGD([weight], preconditioned=True)
    with pytest.raises(ValueError, match="zero_grad"), optimizer.accumulate(unchecked(np.eye(4))):
        (2 * weight).sum().backward()
    assert torch.equal(weight.grad, random(3, 6))


def test_gradients_set_to_zero_are_not_from_outside() -> None:
    weight = parameter(random(3, 6))
    optimizer = KernelSGD([weight], 1.0, preconditioned=True)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        with optimizer.accumulate(unchecked(np.eye(4))):
            (2 * weight).sum().backward()
        optimizer.step()
    assert torch.equal(weight[:, :4], random(3, 6)[:, :4] - 2 - 2)
    assert torch.equal(weight[:, 4:], random(3, 6)[:, 4:])


def test_plain_groups_accumulate_without_an_inverse() -> None:
    p = parameter(random(4))
    optimizer = KernelSGD([p], 0.5)
    for _ in range(2):
        with optimizer.accumulate():
            p.sum().backward()
    optimizer.step()
    assert torch.equal(p, random(4) - 1)


@pytest.mark.parametrize("bias", ["plain", "augmented"])
def test_accumulation_over_a_bias_that_has_a_gradient_in_some_micro_batches_only(bias: Any) -> None:
    """The bias's L2 term is that of the micro-batches that it took part in, over the number of all."""
    W, b, P = random(3, 4), random(3, seed=1), found(random(5, 5, seed=2))
    weight, offset = parameter(W), parameter(b)
    optimizer = KernelSGD([weight, offset], 1.0, weight_decay=0.5, bias=bias, preconditioned=True)
    G, g = random(3, 4, seed=3), random(3, seed=4)
    for terms in ([(weight, G)], [(weight, G), (offset, g)]):
        with optimizer.accumulate(unchecked(P)):
            sum((p * gradient).sum() for p, gradient in terms).backward()
    optimizer.step()
    alone, joint = np.zeros((3, 5)), np.column_stack((found(G), found(g)))
    alone[:, :4] = found(G)
    both = np.column_stack((found(W), found(b)))
    of_weight = np.column_stack((found(W), np.zeros(3)))
    first = np.pad((alone @ P + 0.25 * of_weight @ P)[:, :4], ((0, 0), (0, 1)))
    expected = both - first - (joint @ P + 0.25 * both @ P)
    if bias == "plain":
        P4 = P[:4, :4]
        expected = np.column_stack(
            (found(W) - 2 * found(G) @ P4 - 0.5 * found(W) @ P4, found(b) - found(g) - 0.5 * found(b))
        )
    moved = np.column_stack((found(weight), found(offset)))
    np.testing.assert_allclose(moved, expected, rtol=0, atol=50 * 2**-53 * 10)  # sums of 20 terms of sizes below 10
