"""The rule itself: what KernelSGD does to a layer, against the reference."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from gpu.optim import CachedInverse, KernelSGD, kernel_groups
from tests.gpu.networks import backward, parameter, random, tensor
from tests.gpu.steps import assert_is_step, found, layer, unchecked, with_bias
from tests.support import strategies
from tests.support.strategies import Preconditioned


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(data=st.data())
def test_the_weight_moves_by_the_gradient_times_the_reshaped_inverse(dtype: str, data: st.DataObject) -> None:
    W, grad, inverse, lr = data.draw(strategies.preconditioned_gradients(dtype))
    (weight,) = layer(W, gradients=[grad])
    KernelSGD([weight], lr, preconditioned=True).step(inverse=unchecked(inverse))
    assert_is_step(found(weight), W, grad, inverse, lr, abs(grad))


@given(case=strategies.preconditioned_gradients(), seed=strategies.seeds())
def test_a_plain_bias_moves_by_sgd(case: Preconditioned, seed: int) -> None:
    b, g = with_bias(case, seed)
    weight, bias = layer(case.W, b, gradients=[case.grad, g])
    alone = parameter(tensor(b), tensor(g))
    KernelSGD([weight, bias], case.lr, preconditioned=True).step(inverse=unchecked(case.inverse))
    torch.optim.SGD([alone], case.lr).step()
    assert torch.equal(bias, alone)
    assert_is_step(found(weight), case.W, case.grad, case.inverse, case.lr, abs(case.grad))


@given(case=strategies.preconditioned_gradients(), seed=strategies.seeds())
def test_an_augmented_bias_is_the_last_column_of_the_weight(case: Preconditioned, seed: int) -> None:
    b, g = with_bias(case, seed)
    weight, bias = layer(case.W, b, gradients=[case.grad, g])
    KernelSGD([weight, bias], case.lr, preconditioned=True, bias="augmented").step(inverse=unchecked(case.inverse))
    W, grad = np.column_stack((case.W, b)), np.column_stack((case.grad, g))
    assert_is_step(np.column_stack((found(weight), found(bias))), W, grad, case.inverse, case.lr, abs(grad))


@given(case=strategies.preconditioned_gradients(), weight_decay=st.sampled_from((1e-4, 0.5, 3.0)))
def test_the_l2_term_is_preconditioned_with_the_gradient(case: Preconditioned, weight_decay: float) -> None:
    W, grad, inverse, lr = case
    (weight,) = layer(W, gradients=[grad])
    KernelSGD([weight], lr, weight_decay=weight_decay, preconditioned=True).step(inverse=unchecked(inverse))
    assert_is_step(found(weight), W, grad + weight_decay * W, inverse, lr, abs(grad) + weight_decay * abs(W))


@given(case=strategies.preconditioned_gradients(), weight_decay=st.sampled_from((1e-4, 0.5, 3.0)))
def test_decoupled_decay_shrinks_the_weight_and_is_not_preconditioned(
    case: Preconditioned, weight_decay: float
) -> None:
    W, grad, inverse, lr = case
    (weight,) = layer(W, gradients=[grad])
    options: dict[str, Any] = {"weight_decay": weight_decay, "decay": "decoupled", "preconditioned": True}
    KernelSGD([weight], lr, **options).step(inverse=unchecked(inverse))
    assert_is_step(found(weight), (1 - lr * weight_decay) * W, grad, inverse, lr, abs(grad))


@given(case=strategies.preconditioned_gradients(), momentum=st.sampled_from((0.5, 0.9)), seed=strategies.seeds())
def test_momentum_adds_up_preconditioned_gradients(case: Preconditioned, momentum: float, seed: int) -> None:
    """v ← μv + G·P and W ← W − ηv, each step judged from where it started."""
    W, _, inverse, lr = case
    (weight,) = layer(W, gradients=[W])
    optimizer = KernelSGD([weight], lr, momentum=momentum, preconditioned=True)
    v = np.zeros_like(W)
    for number in range(4):
        before = found(weight).copy()
        weight.grad = random(*W.shape, seed=seed + number)
        optimizer.step(inverse=unchecked(inverse))
        G, computed = found(weight.grad), found(optimizer.state[weight]["momentum_buffer"]).copy()
        assert_is_step(computed, momentum * v, -G, inverse, 1.0, abs(G))
        # One product and one sum, rounded each.
        assert (abs(found(weight) - (before - lr * computed)) <= 2**-52 * (abs(before) + 2 * lr * abs(computed))).all()
        v = computed


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("bias", ["plain", "augmented"])
@pytest.mark.parametrize("m", [5, 18, 30])
def test_a_convolution_is_the_matrix_of_its_flattened_filters(memory: torch.memory_format, bias: Any, m: int) -> None:
    W, b, G, g = random(3, 2, 3, 3), random(3, seed=1), random(3, 2, 3, 3, seed=2), random(3, seed=3)
    inverse = random(m, m, seed=4)
    flat = layer(found(W.flatten(1)), found(b), gradients=[found(G.flatten(1)), found(g)])
    filters = layer(found(W), found(b), gradients=[found(G), found(g)])
    filters[0].data = filters[0].data.to(memory_format=memory)
    for params in (flat, filters):
        optimizer = KernelSGD(params, 0.3, preconditioned=True, bias=bias, momentum=0.9, weight_decay=0.1)
        for _ in range(2):
            optimizer.step(inverse=CachedInverse.unchecked(inverse))
    assert filters[0].is_contiguous(memory_format=memory)
    # The same product of the same numbers; only its memory differs.
    largest = (G.flatten(1).abs() + 0.1 * W.flatten(1).abs()).sum() * inverse.abs().max() * 2
    for one, other in zip(filters, flat, strict=True):
        torch.testing.assert_close(one.flatten(1) if one.ndim > 1 else one, other, rtol=0, atol=21 * 2**-53 * largest)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(data=st.data(), momentum=st.sampled_from((0.0, 0.9)), weight_decay=st.sampled_from((0.0, 0.5)))
def test_columns_beyond_m_stay_bit_for_bit(
    dtype: str, data: st.DataObject, momentum: float, weight_decay: float
) -> None:
    """The paper's zero padding: an augmented bias is among them; the L2 term does not move them either."""
    W, grad, inverse, lr = data.draw(strategies.preconditioned_gradients(dtype, columns=strategies.sizes(12)))
    m = min(len(inverse), W.shape[1])
    b = W[:, 0].copy()
    weight, bias = layer(W, b, gradients=[grad, b])
    options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "bias": "augmented"}
    optimizer = KernelSGD([weight, bias], lr, preconditioned=True, **options)
    for _ in range(2):
        optimizer.step(inverse=unchecked(inverse))
    assert np.array_equal(found(weight)[:, m:], W[:, m:])
    if len(inverse) <= W.shape[1]:
        assert np.array_equal(found(bias), b)


class Allocations(TorchDispatchMode):
    """The largest number of entries of any result while it is on."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, Tensor) and part.dtype != torch.uint8:  # bytes to be digested, a view
                self.largest = max(self.largest, part.numel())
        return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": "augmented", "weight_decay": 0.1},
        {"momentum": 0.9},
        {"decay": "decoupled", "weight_decay": 0.1, "maximize": True},
        {"step_rule": "monotone"},
        {"step_rule": "monotone", "bias": "augmented"},
    ],
    ids=str,
)
def test_nothing_larger_than_the_layer_its_features_or_the_inverse_is_ever_formed(options: dict[str, Any]) -> None:
    classes, d_in, m = 3, 500, 4
    model = nn.Linear(d_in, classes, dtype=torch.float64)
    optimizer = KernelSGD(kernel_groups(model), model=model, **options)
    inverse = CachedInverse.unchecked(torch.eye(m, dtype=torch.float64))
    x, y = random(m, d_in), torch.tensor([0, 1, 2, 0])
    backward(model, x, y)
    with Allocations() as seen:
        optimizer.step(inverse=inverse)
        if options.get("step_rule") != "monotone":
            optimizer.zero_grad()
            with optimizer.accumulate(inverse):
                backward(model, x, y)
            optimizer.step()
    assert classes * d_in <= seen.largest <= max(classes, m) * (d_in + 1)


@pytest.mark.parametrize("nothing", [None, torch.eye(4), np.eye(4), 1.0], ids=lambda value: type(value).__name__)
def test_a_preconditioned_layer_without_a_cached_inverse_is_an_error(nothing: Any) -> None:
    optimizer = KernelSGD([parameter(random(3, 6), random(3, 6))], preconditioned=True)
    with pytest.raises(ValueError, match=f"CachedInverse.*{type(nothing).__name__}"):
        optimizer.step(inverse=nothing)


def test_an_inverse_of_another_dtype_than_the_weights_is_an_error() -> None:
    optimizer = KernelSGD([parameter(random(3, 6), random(3, 6))], preconditioned=True)
    with pytest.raises(ValueError, match=r"expected torch.float64 on cpu .*got torch.float32"):
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4)))


@pytest.mark.parametrize("shape", [(2, 3), (0, 0), (3,), (1, 2, 2)], ids=str)
def test_an_inverse_that_is_not_square_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"matrix: expected shape \(m, m\)"):
        CachedInverse.unchecked(torch.zeros(shape))


def test_no_inverse_is_needed_where_no_preconditioned_layer_has_a_gradient() -> None:
    weight, plain = parameter(random(3, 6)), parameter(random(4), random(4))
    optimizer = KernelSGD([{"params": [weight], "preconditioned": True}, {"params": [plain]}], 1.0)
    optimizer.step()
    assert torch.equal(plain, random(4) - random(4))


class Precision(TorchDispatchMode):
    """Whether every product while it is on is computed in full precision."""

    full: tuple[bool, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in func.name():
            matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
            newer = hasattr(matmul, "fp32_precision")
            precision = matmul.fp32_precision if newer else torch.get_float32_matmul_precision()
            full = precision in ("none", "ieee", "highest") and not torch.is_autocast_enabled("cpu")
            self.full = (*self.full, full)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("accumulated", [False, True], ids=["step", "accumulate"])
def test_reduced_precision_of_the_caller_does_not_reach_the_step(accumulated: bool) -> None:
    weight = parameter(random(3, 6, dtype=torch.float32), random(3, 6, dtype=torch.float32))
    optimizer = KernelSGD([weight], preconditioned=True)
    inverse = CachedInverse.unchecked(torch.eye(4))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), Precision() as seen:
            if accumulated:
                optimizer.zero_grad()
                with optimizer.accumulate(inverse):
                    weight.grad = random(3, 6, dtype=torch.float32)
            else:
                optimizer.step(inverse=inverse)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen.full == (True,)


@pytest.mark.parametrize("bias", ["plain", "augmented"])
@pytest.mark.parametrize("m", [3, 9])
@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1, "step_rule": "monotone"},
        {"weight_decay": 0.1, "momentum": 0.9},
        {"weight_decay": 0.1, "decay": "decoupled", "step_rule": "monotone"},
        {"weight_decay": 0.1, "decay": "decoupled"},
    ],
    ids=str,
)
def test_a_bias_without_a_gradient_stays_and_the_weight_moves_as_if_alone(
    bias: Any, m: int, options: dict[str, Any]
) -> None:
    model = nn.Linear(6, 3, dtype=torch.float64)
    twin = copy.deepcopy(model)
    inverse = unchecked(reference.inverse_gram(reference.gram(random(m, 2))))
    optimizers = [
        KernelSGD([{"params": list(model.parameters()), "bias": bias}], preconditioned=True, model=model, **options),
        KernelSGD([twin.weight], preconditioned=True, model=twin, **options),
    ]
    start = copy.deepcopy(model)
    for _ in range(2):
        for net, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            backward(net, random(m, 6), torch.arange(m) % 3)
            net.bias.grad = None
            optimizer.step(inverse=inverse)
    assert torch.equal(model.bias, start.bias)
    assert not torch.equal(model.weight, start.weight)
    assert torch.equal(model.weight, twin.weight)


def test_every_preconditioned_layer_takes_the_leading_block_of_its_own_width() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 5), nn.Linear(5, 2)).double()
    before = {name: found(p).copy() for name, p in model.named_parameters()}
    optimizer = KernelSGD(kernel_groups(model, "all"), 0.1)
    inverse = found(random(4, 4))
    backward(model, random(4, 6), torch.tensor([0, 1, 1, 0]))
    optimizer.step(inverse=unchecked(inverse))
    for name in ("0.weight", "1.weight", "2.weight"):
        weight = model.get_parameter(name)
        gradient = found(weight.grad)
        assert_is_step(found(weight), before[name], gradient, inverse, 0.1, abs(gradient))
