"""The bench of optimizers: what it counts, compares and refuses. No test looks at how long anything takes."""

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gpu.bench import optimizers as bench
from gpu.bench.commands import MEASURED
from gpu.bench.optional import OPTIONAL
from gpu.bench.step import training
from gpu.bench.timing import against, clock, interleaved
from gpu.bench.to_loss import to_loss
from gpu.optim.baselines import BASELINES, Options, state_bytes
from gpu.train import UsageError
from gpu.train.settings import CHOICES, Settings
from tests.gpu.test_cli import command

STEP = ["bench", "optimizers", "--network", "mlp", "--repeats", "1", "--steps", "1"]
SMALL = {"width": 1, "batch_size": 32, "repeats": 1, "steps": 1}
OF_LIMITS = {"kernel-sgd": 1.0, "l-bfgs": 2.6, "esgd": 2.6, "esgd-li": 4.0, "adahessian": 4.0, "soap": 5.0}


def measured(network: str, names: tuple[str, ...], **options: int) -> dict:
    return bench.optimizers([network], names, **SMALL | options)["networks"][network]


class Shampoo(torch.optim.SGD):
    """A stand-in: SGD that keeps two factors of every matrix, as that of pytorch-optimizer does."""

    def step(self, closure: None = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                for side, d in enumerate(p.shape):
                    self.state[p] |= {f"pre_cond_{side}": torch.zeros(d, d), f"inv_pre_cond_{side}": torch.zeros(d, d)}


class SINGD(torch.optim.SGD):
    """A stand-in: SGD that keeps a K and a C, which are no state."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float, *, kfac_like: bool, alpha1: float) -> None:
        assert (kfac_like, alpha1) == (True, 0)
        super().__init__(model.parameters(), lr, weight_decay=weight_decay)
        self.Ks = {"0": SimpleNamespace(named_tensors=lambda: iter([("_mat", torch.zeros(3, 3))]))}
        self.Cs = {"0": SimpleNamespace(named_tensors=lambda: iter([("_mat", torch.zeros(2, 2))]))}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the packages of the extra `bench`."""
    stand_ins = SimpleNamespace(Shampoo=Shampoo, SINGD=SINGD)
    for name in ("pytorch_optimizer", "singd", "singd.optim", "singd.optim.optimizer"):
        monkeypatch.setitem(sys.modules, name, stand_ins)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in OPTIONAL.values():
        monkeypatch.setitem(sys.modules, package.module, None)


def test_every_optimizer_that_can_be_trained_with_has_a_learning_rate_here() -> None:
    assert set(bench.LEARNING_RATES) == {*CHOICES["optimizer"], *OPTIONAL}
    assert set(MEASURED) == set(bench.LEARNING_RATES)


@pytest.mark.parametrize("network", bench.NETWORKS)
def test_every_network_is_measured_with_kernel_sgd_and_with_second_derivatives(network: str) -> None:
    found = measured(network, ("kernel-sgd", "adahessian"))
    assert list(found["seconds_per_step"]) == ["sgd", "kernel-sgd", "adahessian"]
    for name in ("kernel-sgd", "adahessian"):
        low, high = found["spread"][name]
        assert low <= found["ratio_to_sgd"][name] <= high
        assert found["ratio_of_totals"][name] == pytest.approx(found["ratio_to_sgd"][name])  # of one round
    assert found["stand_in"]


def test_bytes_are_those_of_the_tensors_that_are_kept() -> None:
    """Of the perceptron's p parameters, in float32, with Kernel SGD's n × m numbers in the cache."""
    found = measured("mlp", ("kernel-sgd", "sgd-momentum", "adamw", "l-bfgs", "adahessian", "esgd-li"), steps=12)
    p, n, m = 256 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10, 5833, 32
    assert (found["parameters"], found["instances"]) == (p, n)
    assert found["hessian_bytes"] == {
        "sgd": 0,
        "kernel-sgd": 4 * n * m,
        "sgd-momentum": 0,
        "adamw": 0,
        "l-bfgs": 4 * (2 * 10 * p + 10 + 1),  # ten pairs, their products, one scale
        "adahessian": 4 * p,
        "esgd-li": 4 * 2 * p,
    }
    more = {name: found["state_bytes"][name] - size for name, size in found["hessian_bytes"].items()}
    assert more["kernel-sgd"] == more["sgd"] == more["esgd-li"] == 0
    assert more["sgd-momentum"] == more["adahessian"] == 4 * p
    assert more["adamw"] == 4 * (2 * p + 6)  # six counters of steps
    assert more["l-bfgs"] >= 4 * 2 * p  # the last gradient and direction


@pytest.mark.usefixtures("packages")
def test_an_optimizer_of_another_package_is_measured_with_its_factors() -> None:
    found = measured("mlp", ("shampoo", "ikfac"))
    assert list(found["seconds_per_step"]) == ["sgd", "shampoo", "ikfac"]
    squares = sum(d**2 for d in (256, 100, 100, 100, 100, 100, 100, 10, 10))
    assert found["hessian_bytes"] == {"sgd": 0, "shampoo": 4 * 2 * squares, "ikfac": 4 * (9 + 4)}
    assert found["state_bytes"] == found["hessian_bytes"]
    assert found["not_measured"] == {}
    reached = to_loss(1.5, ("shampoo", "ikfac"), repeats=1, epochs=30)
    assert None not in reached["epochs"].values()
    assert reached["learning_rates"] == {"shampoo": 0.3, "ikfac": 0.1}


@pytest.mark.usefixtures("packages")
def test_who_would_leave_layers_of_a_network_as_they_are_is_not_measured_on_it() -> None:
    found = measured("lstm", ("shampoo", "ikfac"))
    assert list(found["seconds_per_step"]) == ["sgd", "shampoo"]
    assert found["not_measured"] == {"ikfac": "does not train LSTM"}


@pytest.mark.usefixtures("no_packages")
def test_a_package_that_is_not_installed_is_named_with_how_to_install_it() -> None:
    code, output = command(*STEP, "--optimizer", "shampoo", "--optimizer", "ikfac")
    assert code == 0
    assert 'not measured: shampoo: pytorch_optimizer is not installed: pip install --editable ".[bench]"' in output
    assert "not measured: ikfac: singd is not installed" in output
    assert "not measured: k-fac: no package has one that works as it comes" in output
    code, output = command("bench", "optimizers", "--to-loss", "1", "--optimizer", "shampoo")
    assert code == 2
    assert "error: optimizer: none of these can be measured here: " in output


def test_state_that_shares_its_memory_is_counted_once() -> None:
    weight = nn.Parameter(torch.zeros(5))
    optimizer = BASELINES["sgd"]([weight], Options(lr=0.1, weight_decay=0.0, momentum=0.0, history=1, seed=0))
    buffer = torch.zeros(8)
    optimizer.state[weight] = {"buffer": buffer, "parts": [buffer[:2], torch.zeros(3)], "step": 7}
    assert state_bytes(optimizer) == 4 * (8 + 3)


def test_rounds_go_on_in_the_mini_batches_where_the_last_one_has_stopped() -> None:
    one = training(nn.Linear(256, 10), bench.usps_sized(), Settings(batch_size=2000), "sgd")
    seen: list[torch.Tensor] = []
    one.over = lambda batches: seen.extend(x for x, _, _ in batches)  # type: ignore[assignment, return-value]
    rounds = bench.rounds(one, 2)
    for _ in range(2):
        rounds()
    first, second, third = (x for x, _, _ in one.batches)
    assert [x is y for x, y in zip(seen, (first, second, third, first), strict=True)] == [True] * 4


def test_the_width_is_resnets_and_is_said() -> None:
    wide, narrow = (measured("resnet18", ("sgd",), width=width) for width in (2, 1))
    assert (wide["width"], narrow["width"]) == (2, 1)
    assert wide["parameters"] > narrow["parameters"]
    assert "width" not in measured("mlp", ("sgd",))


def test_ratios_are_those_of_each_round_and_their_median() -> None:
    found = against("sgd", {"sgd": [1.0, 2.0, 4.0], "other": [3.0, 2.0, 8.0]})
    assert found == {"ratio_to_sgd": {"other": 2.0}, "spread": {"other": [1.0, 3.0]}}


def test_one_thread_is_timed_by_what_the_processor_spent_on_it() -> None:
    ticks = iter(range(100))
    assert interleaved({"a": list, "b": list}, 2, clock=lambda: float(next(ticks))) == {"a": [1.0] * 2, "b": [1.0] * 2}
    assert [clock(threads).__name__ for threads in (1, 2)] == ["process_time", "perf_counter"]


def test_parameters_that_are_not_finite_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.LEARNING_RATES, "sgd-momentum", 1e30)
    with pytest.raises(UsageError, match="sgd-momentum has led to parameters of mlp that are not finite"):
        measured("mlp", ("sgd-momentum",), steps=3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"kernel-sgd": 1.031, "esgd": 2.6}, ["kernel-sgd takes 1.031 times one of sgd", "1.03"]),
        ({"esgd": 2.4}, ["esgd takes 2.40 times one of kernel-sgd", "2.5"]),
        ({"kernel-sgd": 0.5, "esgd": 1.3}, []),
        ({"soap": None}, ["not measured: soap", "mlp"]),
        ({"shampoo": 2.4}, ["shampoo takes 2.40 times one of kernel-sgd", "2.5"]),
    ],
    ids=str,
)
def test_a_limit_that_is_missed_is_named(changed: dict[str, float | None], said: list[str]) -> None:
    ratios = {name: ratio for name, ratio in (OF_LIMITS | changed).items() if ratio is not None}
    lines = bench.missed({"mlp": {"ratio_to_sgd": ratios}})
    assert len(lines) == bool(said)
    assert all(part in line for line in lines for part in said)


def test_versions_are_those_of_the_optional_packages_too_as_far_as_they_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "singd":
            return "7.8"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("gpu.bench.optional.version", version)
    versions = bench.machine(1)["versions"]
    assert versions["singd"] == "7.8"
    assert versions["torch"] == torch.__version__
    assert "pytorch-optimizer" not in versions


def test_the_time_to_a_loss_says_who_reached_it_and_who_did_not() -> None:
    found = to_loss(1.5, ("sgd", "kernel-sgd"), repeats=1, epochs=8)
    assert all(1 < epochs <= 8 for epochs in found["epochs"].values())
    assert min(found["seconds"].values()) > 0
    assert found["learning_rates"] == {"sgd": 0.3, "kernel-sgd": 0.1}
    never = to_loss(0.0, ("sgd",), repeats=1, epochs=1)
    assert (never["epochs"], never["seconds"]) == ({"sgd": None}, {"sgd": None})


def test_the_command_writes_its_file_prints_a_table_and_ends_with_1_where_a_limit_is_missed(tmp_path: Path) -> None:
    written = tmp_path / "new" / "figures.json"
    arguments = [*STEP, "--optimizer", "sgd"]
    code, output = command(*arguments, "--check", "--out", written)
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert code == 1
    assert "missed: mlp: not measured: kernel-sgd" in output
    assert "a stand-in for usps" in output
    assert "k-fac" in figures["not_measured"]
    assert (figures["device"], figures["threads"], figures["repeats"]) == ("cpu", 1, 1)
    assert {"versions", "machine", "commit", "dirty", "load_average"} <= set(figures)
    assert command(*arguments)[0] == 0


def test_the_command_measures_the_time_to_a_loss_instead() -> None:
    arguments = ["--to-loss", "2.25", "--optimizer", "sgd", "--optimizer", "kernel-sgd", "--repeats", "1"]
    code, output = command("bench", "optimizers", *arguments)
    assert code == 0
    assert "to a training loss of 2.25 on digits, a stand-in for mnist and usps" in " ".join(output.split())


@pytest.mark.parametrize("option", ["network", "optimizer"])
def test_unknown_names_are_one_line(option: str) -> None:
    code, output = command("bench", "optimizers", f"--{option}", "abacus", "--repeats", "1")
    assert code == 2
    assert f"error: {option}: expected some of" in output
    assert "got abacus" in output


def test_limits_of_a_step_are_not_checked_where_none_is_measured() -> None:
    code, output = command("bench", "optimizers", "--to-loss", "2", "--check")
    assert code == 2
    assert "--check: looks at the ratios of steps" in " ".join(output.split())
