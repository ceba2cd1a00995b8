"""KernelSGD keeps the conventions of torch.optim: what torch's own tests ask of any optimizer, asked of ours.

The gradients are drawn, not computed, so that two runs differ in nothing but the optimizer.
"""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler

from gpu.optim import CachedInverse, KernelSGD, kernel_groups
from tests.gpu.networks import parameter, random
from tests.support import strategies

PRECONDITIONED: dict[str, Any] = {"preconditioned": True}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tensor learning rate": {"lr": torch.tensor(0.05)},
    "L2": {"weight_decay": 0.5},
    "momentum": {"momentum": 0.9},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "momentum and L2": {"momentum": 0.9, "weight_decay": 0.1},
    "decoupled": {"weight_decay": 0.1, "decay": "decoupled"},
    "preconditioned": PRECONDITIONED,
    "preconditioned, momentum and L2": PRECONDITIONED | {"momentum": 0.9, "weight_decay": 0.1},
    "preconditioned, decoupled, augmented": PRECONDITIONED
    | {"weight_decay": 0.1, "decay": "decoupled", "bias": "augmented", "momentum": 0.5},
    "preconditioned, maximize": PRECONDITIONED | {"maximize": True, "lr": torch.tensor(0.05)},
}
configurations = pytest.mark.parametrize("options", CONFIGURATIONS.values(), ids=CONFIGURATIONS)

INVERSE = CachedInverse.unchecked(random(4, 4, seed=9))


def layer(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """A weight (3, 6) and its bias."""
    return [parameter(random(*shape, seed=seed, dtype=dtype)) for seed, shape in enumerate(((3, 6), (3,)))]


def draw_gradients(params: list[nn.Parameter], step: int) -> None:
    for seed, p in enumerate(params):
        p.grad = random(*p.shape, seed=1000 * step + seed, dtype=p.dtype)


def run(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps with gradients that depend on their number alone."""
    for number in steps:
        draw_gradients([p for group in optimizer.param_groups for p in group["params"]], number)
        if isinstance(optimizer, KernelSGD):
            dtype = optimizer.param_groups[0]["params"][0].dtype
            optimizer.step(inverse=CachedInverse.unchecked(INVERSE.matrix.to(dtype)))
        else:
            optimizer.step()


def values(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def assert_identical(first: list[Tensor], second: list[Tensor]) -> None:
    """Bit for bit, dtype included."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def assert_same_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """All that was saved is there again: tensors bit for bit, options of the same type and value."""
    state = optimizer.state_dict()
    torch.testing.assert_close(state["state"], saved["state"], rtol=0, atol=0)
    for mine, its in zip(state["param_groups"], saved["param_groups"], strict=True):
        for option, value in its.items():
            assert (option, type(mine[option]), mine[option]) == (option, type(value), value)


@contextmanager
def nothing_changes(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Parameters, gradients and state come out of the block as they went in."""
    before, gradients = values(optimizer), [p.grad for group in optimizer.param_groups for p in group["params"]]
    held = [None if g is None else g.to_dense().clone() for g in gradients]
    state = copy.deepcopy(optimizer.state_dict())
    yield
    assert_same_state(optimizer, state)
    assert_identical(values(optimizer), before)
    after = [p.grad for group in optimizer.param_groups for p in group["params"]]
    for gradient, then in zip(after, held, strict=True):
        assert (gradient is None) == (then is None)
        assert gradient is None or torch.equal(gradient.to_dense(), then)


@pytest.mark.parametrize(
    "bad",
    [
        *({name: value} for name in ("lr", "momentum", "weight_decay") for value in (-0.1, float("nan"), float("inf"))),
        {"lr": True},
        {"lr": torch.tensor([0.1, 0.1])},
        {"lr": torch.tensor(-0.1)},
        {"decay": "L2"},
        {"bias": "none"},
        {"step_rule": "fast"},
        PRECONDITIONED | {"step_rule": "monotone", "momentum": 0.9},
        PRECONDITIONED | {"step_rule": "monotone", "maximize": True},
        PRECONDITIONED | {"step_rule": "monotone", "capturable": True},
    ],
    ids=str,
)
def test_bad_options_are_a_value_error(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=list(bad)[-1] if "step_rule" not in bad else "step_rule"):
        KernelSGD(layer(), **bad)


@pytest.mark.parametrize("option", ["foreach", "fused", "differentiable", "nesterov", "dampening"])
def test_options_that_do_not_exist_are_a_type_error(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        KernelSGD(layer(), **{option: True})


def test_parameters_are_distinct_tensors_in_an_iterable() -> None:
    weight, bias = layer()
    with pytest.raises(TypeError, match="iterable of Tensors or dicts"):
        KernelSGD(weight)
    with pytest.raises(ValueError, match="empty parameter list"):
        KernelSGD([])
    with pytest.raises(ValueError, match="more than one parameter group"):
        KernelSGD([{"params": weight}, {"params": weight}])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        KernelSGD([weight, weight])
    with pytest.raises(ValueError, match="with/without names"):
        KernelSGD([("weight", weight), bias])


@pytest.mark.parametrize(
    "shapes", [[], [(3,)], [(3, 6), (6,)], [(3,), (3, 6)], [(3, 6), (3, 6)], [(3, 6), (3,), (3,)]], ids=str
)
def test_a_preconditioned_group_is_one_layer(shapes: list[tuple[int, ...]]) -> None:
    optimizer = KernelSGD(layer())
    with nothing_changes(optimizer), pytest.raises(ValueError, match="one layer"):
        optimizer.add_param_group({"params": [parameter(random(*shape)) for shape in shapes], "preconditioned": True})


def test_complex_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="complex"):
        KernelSGD([nn.Parameter(torch.zeros(2, dtype=torch.complex128))])


def test_sparse_gradients_are_refused_and_move_nothing() -> None:
    params = layer()
    optimizer = KernelSGD(params)
    draw_gradients(params, 0)
    params[1].grad = params[1].grad.to_sparse()
    with nothing_changes(optimizer), pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


@configurations
def test_parameters_without_gradient_do_not_move(options: dict[str, Any]) -> None:
    optimizer = KernelSGD(layer(), **options)
    with nothing_changes(optimizer):
        optimizer.step()


@configurations
def test_zero_gradients_move_nothing_without_decay(options: dict[str, Any]) -> None:
    params = layer()
    optimizer = KernelSGD(params, **options | {"weight_decay": 0.0})
    before = values(optimizer)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(inverse=INVERSE)
    assert_identical(values(optimizer), before)


@configurations
def test_the_step_leaves_gradients_and_inverse_as_they_are(options: dict[str, Any]) -> None:
    params = layer()
    optimizer = KernelSGD(params, **options)
    inverse = CachedInverse.unchecked(INVERSE.matrix.clone())
    for number in range(2):
        draw_gradients(params, number)
        gradients = [p.grad.clone() for p in params]
        optimizer.step(inverse=inverse)
        assert_identical([p.grad for p in params], gradients)
    assert torch.equal(inverse.matrix, INVERSE.matrix)


def test_the_closure_is_evaluated_with_gradients_and_its_value_returned() -> None:
    params = layer()
    optimizer = KernelSGD(params, 0.5, **PRECONDITIONED)
    before = values(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum((p**2).sum() / 2 for p in params)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure, inverse=CachedInverse.unchecked(torch.eye(6, dtype=torch.float64)))
    assert loss.item() == sum((p**2).sum() / 2 for p in before)
    assert_identical(values(optimizer), [p / 2 for p in before])
    assert optimizer.step(inverse=INVERSE) is None


def test_learning_rate_and_weight_decay_are_those_of_the_group() -> None:
    own = [{"lr": 0.3, "weight_decay": 0.0}, {"lr": 0.0}, {"weight_decay": 0.2}, PRECONDITIONED | {"lr": 0.7}]
    common = {"lr": 0.1, "weight_decay": 0.5}
    together = KernelSGD([{"params": layer()} | options for options in own[:2]], **common)
    for options in own[2:]:
        together.add_param_group({"params": layer()} | options)
    alone = [KernelSGD(layer(), **common | options) for options in own]
    for number in range(3):
        for optimizer in (together, *alone):
            for group in optimizer.param_groups:
                draw_gradients(group["params"], number)
            optimizer.step(inverse=INVERSE)
    assert_identical(values(together), [p for optimizer in alone for p in values(optimizer)])


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@configurations
def test_a_tensor_learning_rate_is_a_float(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    rate = torch.full(shape, 0.05)
    one, other = (KernelSGD(layer(), **options | {"lr": lr}) for lr in (rate, float(rate)))
    for optimizer in (one, other):
        run(optimizer, range(3))
    assert_identical(values(one), values(other))


@configurations
def test_maximize_is_descent_along_the_negated_gradient(options: dict[str, Any]) -> None:
    up, down = (KernelSGD(layer(), **options | {"maximize": maximize}) for maximize in (True, False))
    for number in range(3):
        for optimizer, sign in ((up, 1), (down, -1)):
            params = optimizer.param_groups[0]["params"]
            draw_gradients(params, number)
            for p in params:
                p.grad.mul_(sign)
            optimizer.step(inverse=INVERSE)
    assert_identical(values(up), values(down))


@given(
    dtype=strategies.dtypes(),
    lr=strategies.learning_rates(),
    as_tensor=st.booleans(),
    momentum=st.sampled_from((0.0, 0.5, 0.9)),
    weight_decay=st.sampled_from((0.0, 1e-4, 0.5)),
    maximize=st.booleans(),
    seed=strategies.seeds(),
)
def test_plain_groups_are_torch_sgd_bit_for_bit(
    dtype: str, lr: float, as_tensor: bool, momentum: float, weight_decay: float, maximize: bool, seed: int
) -> None:
    """The fused one: the unfused one rounds a product more, so that it may differ in the last bit."""
    options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "maximize": maximize}
    rate = torch.tensor(lr) if as_tensor else lr
    ours = KernelSGD(layer(getattr(torch, dtype)), rate, **options)
    theirs = torch.optim.SGD(layer(getattr(torch, dtype)), rate, fused=True, **options)
    run(ours, range(seed, seed + 10))
    run(theirs, range(seed, seed + 10))
    assert_identical(values(ours), values(theirs))


def test_step_hooks_see_the_inverse_and_run_around_the_step() -> None:
    params = layer()
    optimizer = KernelSGD(params, **PRECONDITIONED)
    before, seen = values(optimizer), []

    def pre(_optimizer: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append((kwargs["inverse"], torch.equal(params[0], before[0])))

    hooks = (optimizer.register_step_pre_hook(pre), optimizer.register_step_post_hook(pre))
    run(optimizer, range(1))
    assert [unmoved for _, unmoved in seen] == [True, False]
    assert all(isinstance(inverse, CachedInverse) for inverse, _ in seen)
    for hook in hooks:
        hook.remove()
    run(optimizer, range(1))
    assert len(seen) == 2


def test_state_dict_hooks_and_load_state_dict_hooks_are_called() -> None:
    optimizer, calls = KernelSGD(layer(), momentum=0.9), []
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: calls.append("saved") or state | {"note": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: calls.append(f"before loading {state['note']}"))
    optimizer.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["before saving", "saved", "before loading 1", "loaded"]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))], ids=["deepcopy", "pickle"]
)
@configurations
def test_a_copy_goes_on_as_the_original_does(options: dict[str, Any], duplicate: Callable[..., KernelSGD]) -> None:
    optimizer = KernelSGD(layer(), **options)
    run(optimizer, range(3))
    twin = duplicate(optimizer)
    assert twin.param_groups[0]["params"][0] is not optimizer.param_groups[0]["params"][0]
    assert_same_state(twin, optimizer.state_dict())
    run(optimizer, range(3, 6))
    run(twin, range(3, 6))
    assert_identical(values(twin), values(optimizer))


@configurations
def test_a_state_dict_of_tensors_and_json_goes_on_bit_for_bit(options: dict[str, Any]) -> None:
    optimizer = KernelSGD(layer(), **options)
    run(optimizer, range(3))
    saved = optimizer.state_dict()
    tensors = {(number, name): t.clone() for number, state in saved["state"].items() for name, t in state.items()}
    record = json.dumps(saved["param_groups"], default=float)
    parameters = values(optimizer)
    run(optimizer, range(3, 6))

    resumed = KernelSGD([parameter(p) for p in parameters], **options)
    state: dict[int, dict[str, Tensor]] = {}
    for (number, name), t in tensors.items():
        state.setdefault(number, {})[name] = t
    resumed.load_state_dict({"state": state, "param_groups": json.loads(record)})
    run(resumed, range(3, 6))
    assert_identical(values(resumed), values(optimizer))


@configurations
def test_equal_runs_have_equal_state_dicts(options: dict[str, Any]) -> None:
    one, other = (KernelSGD(layer(), **options) for _ in range(2))
    run(one, range(2))
    run(other, range(2))
    first, second = one.state_dict(), other.state_dict()
    assert json.dumps(first["param_groups"], default=float) == json.dumps(second["param_groups"], default=float)
    assert [list(state) for state in first["state"].values()] == [list(state) for state in second["state"].values()]
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@configurations
def test_loading_a_state_dict_casts_nothing(options: dict[str, Any], dtype: torch.dtype) -> None:
    optimizer = KernelSGD(layer(dtype), **options)
    run(optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    loaded = KernelSGD(layer(dtype), **options)
    loaded.load_state_dict(copy.deepcopy(saved))
    assert_same_state(loaded, saved)


def test_a_state_dict_without_newer_options_loads_with_their_defaults() -> None:
    options: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.1}
    optimizer, older = KernelSGD(layer(), **options), KernelSGD(layer(), **options)
    saved = older.state_dict()
    for newer in ("decay", "bias", "maximize", "preconditioned", "step_rule", "source", "stalled"):
        del saved["param_groups"][0][newer]
    older.load_state_dict(saved)
    run(optimizer, range(3))
    run(older, range(3))
    assert_same_state(older, optimizer.state_dict())
    assert_identical(values(older), values(optimizer))


def test_a_state_dict_of_other_groups_does_not_load() -> None:
    optimizer = KernelSGD(layer(), momentum=0.9)
    run(optimizer, range(1))
    with nothing_changes(optimizer), pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(KernelSGD([{"params": [p]} for p in layer()]).state_dict())
    with nothing_changes(optimizer), pytest.raises(ValueError, match="size of optimizer's group"):
        optimizer.load_state_dict(KernelSGD(layer()[:1]).state_dict())


@configurations
def test_memory_layout_does_not_matter(options: dict[str, Any]) -> None:
    """The sums of a product may be taken in another order: equal within its bound, not bit for bit."""
    plain, strided = (KernelSGD(layer(), **options) for _ in range(2))
    weight = strided.param_groups[0]["params"][0]
    weight.data = torch.empty(6, 6, dtype=weight.dtype).t()[::2].copy_(weight)
    assert not weight.is_contiguous()
    for number in range(3):
        for optimizer in (plain, strided):
            params = optimizer.param_groups[0]["params"]
            draw_gradients(params, number)
            if optimizer is strided:
                params[0].grad = torch.empty_like(params[0]).copy_(params[0].grad)
            optimizer.step(inverse=INVERSE)
    # Three steps, each within 6 + 2 roundings of sums of which none is above 100 in size.
    torch.testing.assert_close(values(strided), values(plain), rtol=0, atol=3 * 8 * 100 * 2**-53)


def test_named_parameters_are_kept_and_saved() -> None:
    model = nn.Linear(6, 3, dtype=torch.float64)
    optimizer = KernelSGD(model.named_parameters(), **PRECONDITIONED)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    run(optimizer, range(1))
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=10),
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ],
    ids=["step", "cosine", "one cycle", "lambda", "plateau"],
)
@pytest.mark.parametrize("preconditioned", [False, True], ids=["plain", "preconditioned"])
def test_learning_rate_schedulers_drive_it_as_they_drive_sgd(
    scheduler: Callable[..., Any], preconditioned: bool
) -> None:
    """With the identity for P, the preconditioned layer is SGD too."""
    ours = KernelSGD(layer(), 0.1, momentum=0.9, preconditioned=preconditioned)
    theirs = torch.optim.SGD(layer(), 0.1, momentum=0.9, fused=True)
    identity = CachedInverse.unchecked(torch.eye(6, dtype=torch.float64))
    schedulers = [(ours, scheduler(ours)), (theirs, scheduler(theirs))]
    rates = []
    for number in range(6):
        for optimizer, schedule in schedulers:
            draw_gradients(optimizer.param_groups[0]["params"], number)
            if optimizer is ours:
                optimizer.step(inverse=identity)
            else:
                optimizer.step()
            schedule.step(*([1.0] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
        rates.append(ours.param_groups[0]["lr"])
        assert [ours.param_groups[0][key] for key in ("lr", "momentum")] == [
            theirs.param_groups[0][key] for key in ("lr", "momentum")
        ]
    assert len(set(rates)) > 1
    # A product with the identity is exact, but a fused sum may save one rounding of numbers below 10: in each of six
    # steps, and in a velocity that adds up to ten of them.
    torch.testing.assert_close(values(ours), values(theirs), rtol=0, atol=preconditioned * 6 * 10 * 10 * 2**-53)


@configurations
def test_grad_scaler_forwards_the_inverse_and_skips_overflowed_steps(options: dict[str, Any]) -> None:
    """Powers of two scale gradients without rounding, so that the scaled run is the unscaled one bit for bit."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaled, unscaled = (KernelSGD(layer(), **options) for _ in range(2))
    for number in range(3):
        params = scaled.param_groups[0]["params"]
        draw_gradients(params, number)
        for p in params:
            p.grad.mul_(scaler.scale(torch.ones(())).item())
        if number == 1:
            params[-1].grad[0] = float("inf")
            before = values(scaled)
        scaler.step(scaled, inverse=INVERSE)
        scaler.update()
        if number == 1:
            assert_identical(values(scaled), before)
            assert scaler.get_scale() == 4.0
        else:
            run(unscaled, range(number, number + 1))
    assert_identical(values(scaled), values(unscaled))


@pytest.mark.parametrize("failure", ["missing inverse", "other dtype", "sparse", "closure"])
def test_a_failing_step_moves_nothing(failure: str) -> None:
    plain, weight = parameter(random(4)), layer()
    optimizer = KernelSGD([{"params": [plain]}, {"params": weight, "preconditioned": True}], momentum=0.9)
    run(optimizer, range(1))
    draw_gradients([plain, *weight], 1)
    inverse: Any = INVERSE

    def closure() -> None:
        raise RuntimeError("closure")

    if failure == "missing inverse":
        inverse = None
    elif failure == "other dtype":
        inverse = CachedInverse.unchecked(INVERSE.matrix.float())
    elif failure == "sparse":
        weight[1].grad = weight[1].grad.to_sparse()
    with nothing_changes(optimizer), pytest.raises((ValueError, RuntimeError), match=r"inverse|sparse|closure"):
        optimizer.step(closure if failure == "closure" else None, inverse=inverse)


@pytest.mark.parametrize("option", ["lr", "weight_decay"])
@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 1e5), (torch.float32, 1e39)])
@pytest.mark.parametrize("options", [{}, {"step_rule": "monotone"}], ids=str)
def test_a_rate_that_the_dtype_cannot_hold_moves_nothing(
    option: str, dtype: torch.dtype, value: float, options: dict[str, Any]
) -> None:
    plain, weight = parameter(random(4)), [p.to(dtype) for p in layer()]
    weight = [parameter(p.detach()) for p in weight]
    optimizer = KernelSGD([{"params": [plain]}, {"params": weight, "preconditioned": True, option: value, **options}])
    draw_gradients([plain, *weight], 1)
    inverse = CachedInverse.unchecked(INVERSE.matrix.to(dtype))
    with nothing_changes(optimizer), pytest.raises(ValueError, match=rf"{option}: .*{dtype}"):
        optimizer.step(inverse=inverse)


def test_a_bad_group_added_later_changes_nothing() -> None:
    optimizer = KernelSGD(layer(), **PRECONDITIONED)
    with nothing_changes(optimizer), pytest.raises(ValueError, match="momentum"):
        optimizer.add_param_group({"params": layer(), "momentum": -1.0})
    run(optimizer, range(1))


def test_zero_grad_forgets_gradients_and_what_was_accumulated() -> None:
    params = layer()
    optimizer = KernelSGD(params, **PRECONDITIONED)
    with optimizer.accumulate(INVERSE):
        draw_gradients(params, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    draw_gradients(params, 1)
    with pytest.raises(ValueError, match="inverse"):
        optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in params)


def test_everything_works_in_a_default_dtype_of_float64() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
        optimizer = KernelSGD(kernel_groups(model), momentum=0.9)
        run(optimizer, range(2))
        assert {p.dtype for p in model.parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(before)


def test_printing_shows_the_options_of_every_group() -> None:
    printed = repr(KernelSGD([{"params": layer()}, {"params": layer(), "decay": "decoupled"}], 0.25))
    for shown in ("KernelSGD", "Parameter Group 1", "lr: 0.25", "decay: decoupled", "step_rule: constant"):
        assert shown in printed


@configurations
def test_the_loss_goes_down_on_a_quadratic(options: dict[str, Any]) -> None:
    """½‖W − T‖² under a positive definite P; ascent for maximize."""
    weight, target = parameter(random(3, 6)), random(3, 6, seed=5)
    optimizer = KernelSGD([weight], **{"lr": 0.05} | options | {"weight_decay": 0.0})
    A = random(6, 6, seed=3)
    inverse = CachedInverse.unchecked(A @ A.T / 6 + torch.eye(6, dtype=torch.float64) / 10)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((weight - target) ** 2).sum() / 2
        loss.backward()
        losses.append(loss.item())
        optimizer.step(inverse=inverse)
    assert (losses[-1] > losses[0]) if options.get("maximize") else (losses[-1] < losses[0] / 2)
    assert np.isfinite(losses).all()
