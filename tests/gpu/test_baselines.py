"""The baselines: each reaches a minimum, keeps its state, refuses bad options, and is there on the command line."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from gpu import command_line
from gpu.optim.baselines import (
    BASELINES,
    ESGD,
    LBFGS,
    SOAP,
    TAKES_LOSS,
    AdaHessian,
    LiESGD,
    Options,
    curvature,
    hessian_bytes,
)
from gpu.train import CheckpointError, Settings, UsageError, checkpoint, fit, mlp
from gpu.train.loop import CHECKPOINT, build_optimizer
from gpu.train.settings import CHOICES
from tests.gpu.networks import parameter, random
from tests.gpu.quadratics import SIZE, Quadratics, flat, step
from tests.gpu.test_baseline_formulas import needs_muon
from tests.gpu.test_cli import command
from tests.gpu.test_train import DATA, SMALL

NAMES = [pytest.param(name, marks=[needs_muon] if name == "muon" else []) for name in BASELINES]
every_baseline = pytest.mark.parametrize("name", NAMES)


def options(**changed: Any) -> Options:
    return Options(**{"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "history": 3, "seed": 1, **changed})


DECOUPLED = ("adamw", "muon", "soap")


@every_baseline
def test_each_baseline_reaches_the_minimum_of_a_quadratic(name):
    """Of J, the L2 term included where it is part of the loss. Steps that do not shrink by themselves end with η."""
    wd = 0.0 if name in DECOUPLED else 0.5
    problem = Quadratics(0, wd, definite=True)
    params = problem.params()
    optimizer = BASELINES[name](params, options(lr=0.5, weight_decay=wd))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    for _ in range(500):
        step(optimizer, lambda: problem.loss(0, params))
        schedule.step()
    minimum = np.linalg.solve(problem.A[0] + wd * np.eye(SIZE), problem.b[0])
    np.testing.assert_allclose(flat(params), minimum, rtol=0, atol=1e-3)


def small_network() -> tuple[nn.Sequential, Callable[[], Tensor]]:
    """A smooth network in float64 and its loss on five instances."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(random(*p.shape, seed=k))
    x, y = random(5, 3, seed=9), torch.arange(5) % 2
    return model, lambda: cross_entropy(model(x), y)


def hessian(model: nn.Module, loss: Callable[[], Tensor]) -> np.ndarray:
    """Exact, column by column."""
    params = list(model.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), params, create_graph=True)])
    columns = [torch.autograd.grad(g, params, retain_graph=True, materialize_grads=True) for g in gradient]
    return np.stack([flat(list(column)) for column in columns])


@pytest.mark.parametrize(
    ("build", "estimate"),
    [
        (lambda p, **o: ESGD(p, 0.0, update_every=1, **o), lambda state, n: state["D"] / n),
        (lambda p, **o: LiESGD(p, 0.0, decay=0.9999, **o), lambda state, _: state["Hv_squared"]),
    ],
    ids=["esgd", "esgd-li"],
)
def test_the_squared_products_tend_to_the_squared_row_norms_of_the_hessian(build, estimate):
    """(Hv)_i is normal of variance r², so the mean of n squares has the expectation r² and the deviation r²·√(2/n)."""
    n, wd = 800, 0.3
    model, loss = small_network()
    row_norms = ((hessian(model, loss) + wd * np.eye(26)) ** 2).sum(1)
    optimizer = build(model.parameters(), weight_decay=wd, seed=3)
    for _ in range(n):
        optimizer.step(loss)
    found = flat([estimate(optimizer.state[p], n) for p in model.parameters()])
    np.testing.assert_array_less(np.abs(found - row_norms), 5 * np.sqrt(2 / n) * row_norms)


def test_random_vectors_have_their_distributions_and_depend_on_seed_and_number_alone():
    params, n = [torch.zeros(100, 90), torch.zeros(1000, dtype=torch.float64)], 10_000
    before = torch.get_rng_state()
    for draw, fourth in ((curvature.gaussian, 3), (curvature.rademacher, 1)):
        one = draw(params, 5, 7)
        assert [v.dtype for v in one] == [torch.float32, torch.float64]
        assert all(a.equal(b) for a, b in zip(one, draw(params, 5, 7), strict=True))
        values = torch.cat([v.double().flatten() for v in one])
        assert abs(values.mean().item()) < 5 / n**0.5
        assert abs((values**2).mean().item() - 1) <= 5 * ((fourth - 1) / n) ** 0.5
        assert abs((values**4).mean().item() - fourth) <= 5 * (96 / n) ** 0.5
        for other in (draw(params, 6, 7), draw(params, 5, 8)):  # uncorrelated: the mean of products of deviation 1/√n
            products = values * torch.cat([v.double().flatten() for v in other])
            assert abs(products.mean().item()) < 5 / n**0.5
    assert before.equal(torch.get_rng_state())


def test_a_graph_to_differentiate_twice_is_built_only_in_the_steps_that_draw_a_vector(monkeypatch):
    built, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **o: built.append(o.get("create_graph", "product")) or grad(*a, **o)
    )
    for kind in (ESGD, AdaHessian):
        built.clear()
        model, loss = small_network()
        optimizer = kind(model.parameters(), update_every=3)
        for _ in range(4):
            optimizer.step(loss)
        assert built == [True, "product", False, False, True, "product"]


@every_baseline
def test_a_step_returns_the_loss_it_started_from_and_calls_for_it_once(name):
    model, loss = small_network()
    before, calls = loss().item(), []
    optimizer = BASELINES[name](list(model.parameters()), options())

    def closure() -> Tensor:
        calls.append(loss())
        if not isinstance(optimizer, TAKES_LOSS):
            calls[-1].backward()
        return calls[-1]

    assert optimizer.step(closure).item() == before
    assert len(calls) == 1
    assert loss().item() != before or name == "soap"  # which begins with its bases


@every_baseline
def test_a_baseline_saved_and_loaded_goes_on_bit_for_bit(tmp_path, name):
    """As many steps after the checkpoint as before: more than the history, than ESGD's 20 and SOAP's 10 steps."""
    steps = 21 if name in ("esgd", "soap") else 4
    model, loss = small_network()
    optimizer = BASELINES[name](list(model.parameters()), options())
    for _ in range(steps):
        step(optimizer, loss)
    checkpoint.save(tmp_path / "saved", *checkpoint.pack_optimizer(optimizer))
    resumed, its_loss = small_network()
    resumed.load_state_dict(model.state_dict())
    torch.manual_seed(99)
    second = BASELINES[name](list(resumed.parameters()), options(lr=9.0, weight_decay=9.0, momentum=0.1, seed=9))
    tensors, record = checkpoint.load(tmp_path / "saved")
    kept = copy.deepcopy(record)
    checkpoint.unpack_optimizer(second, tensors, record)
    assert record == kept
    for _ in range(steps):
        step(optimizer, loss)
        step(second, its_loss)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    packed, again = checkpoint.pack_optimizer(optimizer), checkpoint.pack_optimizer(second)
    torch.testing.assert_close(again[0], packed[0], rtol=0, atol=0)
    assert json.loads(json.dumps(again[1]["state"])) == json.loads(json.dumps(packed[1]["state"]))


@every_baseline
def test_a_baseline_s_state_dict_goes_on_bit_for_bit(name):
    model, loss = small_network()
    optimizer = BASELINES[name](list(model.parameters()), options())
    for _ in range(4):
        step(optimizer, loss)
    twin, its_loss = small_network()
    twin.load_state_dict(model.state_dict())
    second = BASELINES[name](list(twin.parameters()), options())
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(4):
        step(optimizer, loss)
        step(second, its_loss)
    torch.testing.assert_close(dict(twin.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if "l-bfgs" not in name.values])
def test_a_copy_of_a_baseline_goes_on_bit_for_bit(name):
    """torch.optim.LBFGS cannot be copied."""
    model, _ = small_network()
    x, y = random(5, 3, seed=9), torch.arange(5) % 2
    optimizer = BASELINES[name](list(model.parameters()), options())
    step(optimizer, lambda: cross_entropy(model(x), y))
    twin, second = copy.deepcopy((model, optimizer))
    for _ in range(3):
        step(optimizer, lambda: cross_entropy(model(x), y))
        step(second, lambda: cross_entropy(twin(x), y))
    torch.testing.assert_close(dict(twin.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


NEGATIVE = {"weight_decay": -1.0, "lr": -0.1}
BAD: list[tuple[type[Optimizer], dict[str, Any]]] = [
    *((kind, {name: value}) for kind in (*TAKES_LOSS, SOAP) for name, value in NEGATIVE.items()),
    *((kind, {"lr": value}) for kind in (*TAKES_LOSS, SOAP) for value in (float("nan"), float("inf"))),
    *((kind, {"seed": -1}) for kind in (ESGD, LiESGD, AdaHessian)),
    *((kind, {"update_every": value}) for kind in (ESGD, AdaHessian, SOAP) for value in (0, 1.5)),
    *((kind, {"eps": -1.0}) for kind in (LiESGD, AdaHessian, SOAP)),
    *((kind, {"betas": betas}) for kind in (AdaHessian, SOAP) for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))),
    (ESGD, {"damping": -1.0}),
    (LiESGD, {"decay": 1.0}),
    (LiESGD, {"clip": -1.0}),
    (AdaHessian, {"power": 1.5}),
    (LBFGS, {"history": 0}),
    (SOAP, {"max_side": 0}),
]


@pytest.mark.parametrize(("kind", "bad"), BAD, ids=str)
def test_bad_options_of_a_baseline_are_a_value_error_that_names_them(kind, bad):
    (named,) = bad
    with pytest.raises(ValueError, match="beta" if named == "betas" else named):
        kind([parameter(random(2, 3))], **bad)


@pytest.mark.parametrize("kind", TAKES_LOSS)
def test_optimizers_of_the_whole_hessian_take_one_group(kind):
    groups = [{"params": [parameter(random(2, 3))]}, {"params": [parameter(random(3))]}]
    with pytest.raises(ValueError, match="group"):
        kind(groups)


@every_baseline
def test_parameters_that_need_no_gradient_stay(name):
    model, loss = small_network()
    model[0].weight.requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = BASELINES[name](list(model.parameters()), options())
    for _ in range(2):
        step(optimizer, loss)
    assert [p.equal(b) for p, b in zip(model.parameters(), before, strict=True)] == [True, False, False, False]
    groups = build_optimizer(model, Settings(optimizer=name)).param_groups
    assert (
        sum(p.numel() for group in groups for p in group["params"]) == 4 + 4 * 2 + 2
    )  # nothing is kept for the others


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esgd", lambda n: 4 * n),
        ("esgd-li", lambda n: 4 * 2 * n),
        ("adahessian", lambda n: 4 * n),
        ("l-bfgs", lambda n: 4 * (2 * 3 * n + 3 + 1)),  # s and y, yᵀs of every pair, and one scale
        ("soap", lambda _: 4 * 2 * (8**2 + 5**2 + 3**2 + 8**2)),
        *((name, lambda _: 0) for name in ("sgd", "sgd-momentum", "adamw")),
    ],
)
def test_hessian_memory_is_that_of_the_storages_in_the_state(name, expected):
    model = mlp((5, 8, 3), seed=0)
    x, y = random(9, 5, dtype=torch.float32), torch.arange(9) % 3
    optimizer = BASELINES[name](list(model.parameters()), options(lr=0.01))
    for _ in range(8):
        step(optimizer, lambda: cross_entropy(model(x), y))
    assert hessian_bytes(optimizer) == expected(5 * 8 + 8 + 8 * 3 + 3)


def test_hessian_memory_counts_a_storage_once_and_the_whole_of_it():
    optimizer = ESGD([parameter(random(3)), parameter(random(3))])
    whole = torch.zeros(100, dtype=torch.float64)
    for k, p in enumerate(optimizer.param_groups[0]["params"]):
        optimizer.state[p]["D"] = whole[3 * k : 3 * k + 3]
    assert hessian_bytes(optimizer) == 800


def test_settings_reach_the_optimizer_they_are_for():
    model, _ = small_network()
    found = {
        name: build_optimizer(model, Settings(optimizer=name, lr=0.3, history=3, momentum=0.7, seed=5)).param_groups[0]
        for name in CHOICES["optimizer"]
        if name != "muon" or hasattr(torch.optim, "Muon")
    }
    assert all(group["lr"] == 0.3 and group["weight_decay"] == 1e-4 for group in found.values())
    assert [found[name]["seed"] for name in ("esgd", "esgd-li", "adahessian")] == [5, 5, 5]
    assert (found["l-bfgs"]["history_size"], found["l-bfgs"]["max_iter"]) == (3, 1)
    assert (found["sgd"]["momentum"], found["sgd-momentum"]["momentum"]) == (0.0, 0.7)


def test_a_checkpoint_from_before_there_was_a_history_is_continued(tmp_path):
    run = replace(SMALL, optimizer="sgd")
    fit(replace(run, epochs=2), DATA, tmp_path)
    tensors, record = checkpoint.load(tmp_path / CHECKPOINT)
    del record["settings"]["history"]
    record["settings"]["epochs"] = run.epochs
    checkpoint.save(tmp_path / CHECKPOINT, tensors, record)
    with pytest.raises(CheckpointError, match="history was 10, is 3"):
        fit(replace(run, history=3), DATA, tmp_path)
    assert fit(run, DATA, tmp_path).epochs == run.epochs


def test_the_command_line_names_every_optimizer():
    assert CHOICES["optimizer"] == command_line.OPTIMIZERS


def test_muon_is_an_error_in_one_line_where_torch_has_none(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UsageError, match=r"muon needs torch >= 2\.9, this is"):
        Settings(optimizer="muon")


def test_a_history_below_one_is_an_error():
    with pytest.raises(UsageError, match="history: expected a finite number >= 1, got 0"):
        Settings(history=0)


RATES = {"sgd": 0.5, "l-bfgs": 1.0, "adamw": 0.01, "muon": 0.01, "soap": 0.01}


@every_baseline
def test_each_baseline_learns_the_digits_better_than_chance(tmp_path, name):
    """360 test instances of 10 classes: guesses are right in 10 % of them, with a deviation of 1.6 %."""
    out = tmp_path / "run"
    arguments = ["--optimizer", name, "--epochs", "2", "--lr", RATES.get(name, 0.1), "--history", 3, "--out", out]
    code, output = command("train", *map(str, arguments))
    assert code == 0, output
    assert json.loads((out / "config.json").read_text())["settings"]["history"] == 3
    summary = json.loads((out / "summary.json").read_text())
    assert summary["optimizers"][name]["test_accuracy"]["mean"] > 0.18
