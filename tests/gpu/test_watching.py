"""What a watched model is: seen in all it is run on, changed in nothing, keeping nothing alive."""

import copy
import gc
import io
import pickle
from collections.abc import Callable
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from gpu.optim import CachedInverse, KernelSGD, kernel_groups, kernel_inverse
from tests.gpu.networks import backward, random
from tests.gpu.pairing import D, M, Y, assert_refused, training


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


def test_a_watched_model_keeps_no_mini_batch_alive() -> None:
    run = training()
    x = random(M, D, dtype=torch.float32)
    run.run(x, Y[:M])
    seen = ref(x)
    del x
    assert seen() is None


def test_running_another_model_does_not_count() -> None:
    run = training()
    x, y, inverse = run.pairs()[0]
    twin = copy.deepcopy(run.model)
    run.optimizer.zero_grad()
    backward(twin, x, y)
    for p, other in zip(run.model.parameters(), twin.parameters(), strict=True):
        p.grad = other.grad
    assert_refused(run, inverse, "has not been run")
