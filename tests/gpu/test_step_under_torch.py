"""The step under what torch offers: CUDA graphs, torch.compile, autocast, GradScaler, channels_last, the profiler."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler, optimizer
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, mini_batches
from tests.gpu.networks import backward, parameter, random
from tests.support import ratios

# Powers of two throughout: their products are exact, whichever factor they are multiplied into first.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum and L2": {"momentum": 0.5, "weight_decay": 0.5},
    "decoupled, augmented": {"weight_decay": 0.5, "decay": "decoupled", "bias": "augmented", "momentum": 0.5},
    "maximize": {"maximize": True, "weight_decay": 0.5},
}
options_of_steps = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)

aten = torch.ops.aten
READ_BY_THE_HOST = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.allclose}


class NothingRead(TorchDispatchMode):
    """Fails where the host asks for a number: on a GPU it would wait for it, and no graph could be captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in READ_BY_THE_HOST:
            raise RuntimeError(f"read: {func}")
        return func(*args, **(kwargs or {}))


def groups() -> list[dict[str, Any]]:
    """A layer (3, 6) with its bias, a vector, and a matrix that no fused kernel can walk through."""
    weight, bias, vector = (parameter(random(*shape, seed=n)) for n, shape in enumerate(((3, 6), (3,), (4,))))
    strided = nn.Parameter(random(4, 5, seed=3).T)
    return [{"params": [weight, bias], "preconditioned": True}, {"params": [vector, strided]}]


def step(optimizer: KernelSGD, number: int) -> None:
    """A step with gradients and an inverse that depend on its number alone."""
    for seed, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        p.grad = random(*p.shape, seed=100 * number + seed)
    optimizer.step(inverse=CachedInverse.unchecked(random(4, 4, seed=number)))


def parameters(optimizer: KernelSGD) -> list[Tensor]:
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


@options_of_steps
def test_a_capturable_step_is_the_step_and_the_host_reads_nothing(options: dict[str, Any]) -> None:
    rates = [0.25, torch.tensor(0.25).double(), torch.tensor([0.25]).double()]
    optimizers = [KernelSGD(groups(), lr, capturable=isinstance(lr, Tensor), **options) for lr in rates]
    for number in range(3):
        with NothingRead():
            for one in optimizers:
                step(one, number)
    for one in optimizers[1:]:
        torch.testing.assert_close(parameters(one), parameters(optimizers[0]), rtol=0, atol=0)


def test_an_lr_that_is_a_tensor_is_read_unless_the_group_is_capturable() -> None:
    one = KernelSGD(groups(), torch.tensor(0.25))
    with NothingRead(), pytest.raises(RuntimeError, match="read: aten"):
        step(one, 0)


def test_accumulating_and_stepping_can_be_captured_together() -> None:
    P = CachedInverse.unchecked(random(4, 4))
    number, tensor = (KernelSGD(groups(), lr, weight_decay=0.5) for lr in (0.25, torch.tensor(0.25).double()))
    tensor.param_groups[0]["capturable"] = tensor.param_groups[1]["capturable"] = True
    for one in (number, tensor):
        with NothingRead():
            one.zero_grad()
            for factor in (1.0, 2.0):
                with one.accumulate(P):
                    sum((factor * p).sum() for group in one.param_groups for p in group["params"]).backward()
            one.step()
    torch.testing.assert_close(parameters(tensor), parameters(number), rtol=0, atol=0)


def test_a_capturable_step_follows_what_a_scheduler_writes_into_its_lr() -> None:
    number, tensor = KernelSGD(groups(), 0.5), KernelSGD(groups(), torch.tensor(0.5).double(), capturable=True)
    place = tensor.param_groups[0]["lr"]
    for one in (number, tensor):
        schedule = lr_scheduler.ExponentialLR(one, 0.5)
        for count in range(3):
            step(one, count)
            schedule.step()
    assert tensor.param_groups[0]["lr"] is place
    assert place == 0.0625
    torch.testing.assert_close(parameters(tensor), parameters(number), rtol=0, atol=0)


def test_a_capturable_group_refuses_an_lr_that_lies_elsewhere_than_its_parameters() -> None:
    one = KernelSGD(groups(), capturable=True)
    one.param_groups[1]["lr"] = torch.tensor(0.25, device="meta")
    before = copy.deepcopy(parameters(one))
    with pytest.raises(ValueError, match=r"lr: .* on cpu like its parameters, got a tensor on meta"):
        step(one, 0)
    torch.testing.assert_close(parameters(one), before, rtol=0, atol=0)


def test_a_capturable_group_refuses_an_inverse_that_the_host_would_have_to_check() -> None:
    model, X = nn.Linear(6, 3).double(), random(8, 6)
    one = KernelSGD(kernel_groups(model), capturable=True, model=model)
    backward(model, X, torch.arange(8) % 3)
    with pytest.raises(ValueError, match=r"unchecked\(buffer\).*got mini-batch 0"):
        one.step(inverse=KernelCache(X, [torch.arange(8)]).lookup(X))


@pytest.mark.gpu
@options_of_steps
def test_a_captured_step_is_the_step_on_what_its_buffers_hold(options: dict[str, Any]) -> None:
    X, Y = random(60, 20, dtype=torch.float32).cuda(), (torch.arange(60) % 3).cuda()
    cache = KernelCache(X, mini_batches(60, 12, seed=0), gamma=0.1)
    models = [nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3)).cuda() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    lr = torch.tensor(0.25, device="cuda")
    eager = KernelSGD(kernel_groups(models[0]), 0.25, **options)
    captured = KernelSGD(kernel_groups(models[1]), lr, capturable=True, **options)
    x, y, buffer = X[:12].clone(), Y[:12].clone(), torch.empty(12, 12, device="cuda")

    def whole_step(model: nn.Module, one: KernelSGD) -> None:
        one.zero_grad()
        backward(model, x, y)
        one.step(inverse=CachedInverse.unchecked(buffer))

    graph = torch.cuda.CUDAGraph()
    for epoch in range(3):
        if epoch == 1:
            with torch.cuda.graph(graph):
                whole_step(models[1], captured)
        for number, (batch, labels, inverse) in enumerate(cache.batches(X, Y)):
            x.copy_(batch)
            y.copy_(labels)
            buffer.copy_(inverse.matrix)
            eager.param_groups[0]["lr"] = eager.param_groups[1]["lr"] = 0.5 ** (number + 2)
            lr.fill_(0.5 ** (number + 2))
            whole_step(models[0], eager)
            torch.cuda.synchronize()
            if epoch == 0:
                with torch.cuda.stream(torch.cuda.Stream()):
                    whole_step(models[1], captured)
                torch.cuda.synchronize()
            else:
                graph.replay()
    # Fifteen steps of float32 sums of at most 60 terms below 10; the two may order them differently.
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=15 * 60 * 10 * 2**-24)


def trained(*, compiled: str = "", **options: Any) -> list[Tensor]:
    """Six steps of a small network whose model or step is compiled."""
    torch._dynamo.reset()
    X, Y = random(24, 6), torch.arange(24) % 3
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    for seed, p in enumerate(model.parameters()):
        p.data = random(*p.shape, seed=seed)
    one = KernelSGD(kernel_groups(model), 0.25, model=model, **options)
    net = torch.compile(model, backend="aot_eager") if compiled == "model" else model
    move = torch.compile(one.step, backend="aot_eager") if compiled == "step" else one.step
    batches = list(KernelCache(X, mini_batches(24, 8, seed=0), gamma=0.1).batches(X, Y))
    for x, y, inverse in batches * 2:
        one.zero_grad()
        backward(net, x, y)
        move(inverse=inverse)
    one.zero_grad()
    backward(net, *batches[0][:2])
    with pytest.raises(ValueError, match="not what the model was run on"):
        move(inverse=batches[1][2])
    return [p.detach() for p in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["model", "step"])
@options_of_steps
def test_compiled_model_and_compiled_step_train_alike_and_refuse_the_same(
    compiled: str, options: dict[str, Any]
) -> None:
    # Six steps of sums of at most 30 terms below 100: entries of the inverses are, and so is what they multiply.
    torch.testing.assert_close(
        trained(compiled=compiled, **options), trained(**options), rtol=0, atol=6 * 30 * 100 * 2**-52
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_under_autocast_and_a_grad_scaler_the_step_is_that_of_the_unscaled_gradient(dtype: torch.dtype) -> None:
    X, Y = random(24, 6, dtype=torch.float32), torch.arange(24) % 3
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    weight = model[2].weight
    one = KernelSGD(kernel_groups(model), 0.25, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for x, y, inverse in KernelCache(X, mini_batches(24, 8, seed=0), gamma=0.1).batches(X, Y):
        one.zero_grad()
        W = weight.detach().numpy().copy()
        with torch.autocast("cpu", dtype=dtype):
            logits = model(x)
            assert logits.dtype is dtype
            scaler.scale(cross_entropy(logits, y)).backward()
            G = (weight.grad / 1024).numpy()
            scaler.step(one, inverse=inverse)
            scaler.update()
        P = reference.reshape_inverse(inverse.matrix.numpy(), 5).astype("float32")
        exact = reference.kernel_sgd_step(W, G, P, 0.25)
        ratios.assert_within(ratios.step(weight.detach().numpy(), exact, W, abs(G), P, 0.25))


@pytest.mark.parametrize("layers", ["last", "all"])
def test_images_and_filters_in_channels_last_train_as_contiguous_ones(layers: Any) -> None:
    X, Y = random(24, 3, 6, 6), torch.arange(24) % 3
    cache = KernelCache(X, mini_batches(24, 8, seed=0), gamma=0.01)
    moved = []
    for memory in (torch.contiguous_format, torch.channels_last):
        model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
        for seed, p in enumerate(model.parameters()):
            p.data = random(*p.shape, seed=seed)
        model.to(memory_format=memory)
        one = KernelSGD(kernel_groups(model, layers), 0.25, weight_decay=0.5, momentum=0.5, model=model)
        for x, y, inverse in cache.batches(X, Y):
            one.zero_grad()
            image = x.contiguous(memory_format=memory)
            backward(model, image, y)
            one.step(inverse=inverse)
            assert cache.lookup(image) is inverse
        moved.append([p.detach() for p in model.parameters()])
    # Three steps of sums of at most 60 terms below 1000.
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=3 * 60 * 1000 * 2**-52)


def test_a_profiler_finds_the_label_of_the_step() -> None:
    one = KernelSGD(groups())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(one, 0)
    assert "Optimizer.step#KernelSGD.step" in {event.key for event in profile.key_averages()}


def test_hooks_on_every_optimizer_see_the_step() -> None:
    seen: list[Any] = []
    handles = [
        register(lambda one, *_: seen.append(one))
        for register in (optimizer.register_optimizer_step_pre_hook, optimizer.register_optimizer_step_post_hook)
    ]
    one = KernelSGD(groups())
    for handle in handles:
        step(one, 0)
        handle.remove()
    step(one, 0)
    assert seen == [one] * 3
