"""The rule itself: what KernelSGD does to a layer, against the reference."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from gpu.optim import CachedInverse, KernelSGD, kernel_groups
from tests.gpu.networks import backward, parameter, random, tensor
from tests.support import ratios, strategies
from tests.support.strategies import Preconditioned

Array = NDArray[np.floating]


def unchecked(inverse: Array) -> CachedInverse:
    return CachedInverse.unchecked(tensor(inverse, inverse.dtype.name))


def layer(*values: Array, gradients: Iterable[Array]) -> list[nn.Parameter]:
    """The parameters of one layer, of these values and gradients."""
    pairs = zip(values, gradients, strict=True)
    return [parameter(tensor(v, v.dtype.name), tensor(g, g.dtype.name)) for v, g in pairs]


def found(p: Tensor) -> Array:
    return p.detach().numpy()


def assert_is_step(computed: Array, W: Array, grad: Array, inverse: Array, lr: float, largest: Array) -> None:
    """W − lr · grad · P within the step's ratio, `largest` the size of the terms that grad is the sum of."""
    P = reference.reshape_inverse(inverse, W.shape[1])
    exact = reference.kernel_sgd_step(W, grad, P, lr)
    kind = computed.dtype
    arguments = (np.asarray(part, kind) for part in (W, largest, P))
    ratios.assert_within(ratios.step(computed, exact, *arguments, lr))


def with_bias(case: Preconditioned, seed: int) -> tuple[Array, Array]:
    """A bias and its gradient for this layer."""
    generator = np.random.default_rng(seed)
    bias, gradient = (generator.standard_normal(len(case.W)).astype(case.W.dtype) for _ in range(2))
    return bias, gradient


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
