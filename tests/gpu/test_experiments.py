"""The paper's experiments: what is chosen and shown, and that a study may be stopped at any moment."""

import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from sklearn.datasets import dump_svmlight_file

from gpu.__main__ import app
from gpu.experiments import grid
from gpu.experiments import page as pages
from gpu.experiments.grid import Outcome, Runs
from gpu.experiments.paper import every_optimizer, first_order, kernels
from gpu.experiments.protocol import Arm, Protocol, choose, number_of_runs, study
from gpu.experiments.reproduce import TARGETS, folder_of
from gpu.train import Result, Settings
from gpu.train.data import Dataset, load
from gpu.train.data.table1 import rows as rows_of_table1
from gpu.train.loop import METRICS, WALL_CLOCK
from gpu.train.models import build_model
from gpu.train.study import Failure
from tests.gpu.ranks import context
from tests.gpu.test_cli import ROOT, command

SMALL = {
    "digits": ("--epochs", "4", "--hidden", "10"),
    "digits-32": ("--epochs", "2", "--width", "2", "--repeats", "1"),
    "words": ("--epochs", "2", "--units", "20", "--repeats", "1"),
}
TINY = ("--quick", *SMALL["digits"])
NEEDED = {"digits": 15, "digits-32": 25, "words": 60}  # percent; by chance 10, 10 and 50
KERNEL, PLAIN = Arm("kernel-sgd", Settings()), Arm("sgd", Settings(optimizer="sgd"))
SOAP = 2 * (64**2 + 10**2) + 2 * (10**2 + 10**2)  # of the small perceptron: two moments, two bases of every matrix
RESULT = Result("sgd", 0, 0.9, 0.9, 0.9, 0.95, 3, 4, False, 0.1, 2.0, 0.5, 0, 0, 0)


def reproduce(target: str, out: Path, *options: str) -> list[dict[str, str]]:
    """The rows of the CSV that the command leaves."""
    code, output = command("reproduce", target, *TINY, "--out", out, *options)
    assert code == 0, output
    assert ("stand-in for" in " ".join(output.split())) is ("--data-dir" not in options)
    assert (out / f"{target}.png").read_bytes().startswith(b"\x89PNG")
    return rows(out / f"{target}.csv")


def held(optimizer: str, data: Dataset, settings: Settings) -> int | None:
    """How many numbers of the Hessian the optimizer keeps; None where that is not counted here."""
    n = len(data.with_validation(settings.validation, seed=0).y_train)
    weights = sum(p.numel() for p in build_model(data, settings).parameters() if p.requires_grad)
    assert n % settings.batch_size  # a ragged mini-batch is among them
    return {
        "kernel-sgd": n * settings.batch_size,
        **dict.fromkeys(("sgd", "sgd-momentum", "adamw"), 0),
        **dict.fromkeys(("esgd", "adahessian"), weights),
        "esgd-li": 2 * weights,
        "l-bfgs": 2 * 10 * weights + 11,  # and ten 1/yᵀs, one scale
        "soap": SOAP if data.name == "digits" else None,
    }[optimizer]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The protocol


def test_the_grid_of_kernel_sgd_is_4_by_4_and_of_others_4_and_its_best_is_run_on_seeds_0_to_4() -> None:
    asked: list[Runs] = []

    def run(runs: Runs) -> dict[str, Outcome]:
        asked.append(runs)
        best = {"kernel-sgd": (0.01, 0.001), "sgd": (0.1, Settings().gamma)}
        return {
            name: replace(RESULT, seed=s.seed, validation_accuracy=0.9 if (s.lr, s.gamma) == best[s.optimizer] else 0.5)
            for name, s in runs.items()
        }

    kernel, plain = study((KERNEL, PLAIN), Protocol(), run)
    grid, repeated = (set(runs.values()) for runs in asked)
    values = (0.1, 0.01, 0.001, 0.0001)
    assert grid == {Settings(lr=lr, gamma=gamma) for lr in values for gamma in values} | {
        Settings(optimizer="sgd", lr=lr) for lr in values
    }
    assert repeated == {
        replace(chosen, seed=seed)
        for chosen in (Settings(lr=0.01, gamma=0.001), Settings(optimizer="sgd", lr=0.1))
        for seed in range(5)
    }
    assert [f.chosen for f in (kernel, plain)] == [Settings(lr=0.01, gamma=0.001), Settings(optimizer="sgd", lr=0.1)]
    assert [r.seed for r in kernel.results] == [0, 1, 2, 3, 4]
    assert number_of_runs((KERNEL, PLAIN), Protocol()) == len(asked[0]) + len(set(asked[1]) - set(asked[0]))


def test_chosen_is_the_highest_validation_accuracy_of_equals_the_first_and_none_where_all_have_failed() -> None:
    grid = PLAIN.grid(Protocol())
    accuracies = dict(zip(grid, (0.5, 0.7, 0.7, 0.6), strict=True))
    outcomes: dict[str, Outcome] = {name: replace(RESULT, validation_accuracy=a) for name, a in accuracies.items()}
    names = list(grid)
    assert choose(grid, outcomes) == grid[names[1]]
    outcomes[names[1]] = Failure("sgd", 0, "not finite")
    assert choose(grid, outcomes) == grid[names[2]]
    assert choose(grid, dict.fromkeys(grid, Failure("sgd", 0, "not finite"))) is None


def test_failures_of_grid_and_repeats_are_kept_beside_the_results() -> None:
    def run(runs: Runs) -> dict[str, Outcome]:
        return {
            name: Failure(s.optimizer, s.seed, "") if s.lr == 0.1 or s.seed == 1 else replace(RESULT, seed=s.seed)
            for name, s in runs.items()
        }

    (found,) = study((PLAIN,), Protocol(repeats=3), run)
    assert [r.seed for r in found.results] == [0, 2]
    assert len(found.folders) == 2
    assert [f.seed for f in found.failures] == [0, 1]


# What is shown


def test_a_quantity_is_our_mean_and_deviation_the_paper_s_and_the_difference() -> None:
    assert pages.quantity("t", [1.0, 3.0], 5.0, 0.5) == {
        "t": 2.0, "t sd": 2**0.5, "t paper": 5.0, "t paper sd": 0.5, "t difference": -3.0
    }  # fmt: skip
    assert set(pages.quantity("t", []).values()) == {None}


def test_the_paper_s_figures_are_those_of_its_tables() -> None:
    usps = every_optimizer("usps")
    assert usps["kernel-sgd"] == {
        "train_acc": 99.90, "train_acc_std": 0.09, "test_acc": 93.63, "test_acc_std": 0.34,
        "time_s": 30, "time_s_std": 16, "hessian_mib": 1.42,
    }  # fmt: skip
    assert usps["sgd"] == first_order("usps")["sgd"]
    assert usps["adahessian"]["test_acc"] == 93.46
    assert "time_s" not in every_optimizer("cov-tw")["l-bfgs"]
    assert every_optimizer("digits") == {}
    assert kernels("cifar10")["random PSD"] == {"test_acc": 10.07}
    assert kernels("usps") == {}
    assert rows_of_table1()["imdb"]["train"] == "25000"


@pytest.mark.slow
def test_on_the_paper_s_data_its_numbers_and_the_difference_stand_beside_ours(tmp_path: Path) -> None:
    for name, instances in (("usps", 7291), ("usps.t", 2007)):
        y = np.arange(instances) % 10
        X = np.random.default_rng(0).random((instances, 20)) + (y[:, None] == np.arange(20))
        dump_svmlight_file(X.round(2), y + 1, str(tmp_path / name), zero_based=False)
    data = ("--data", "usps", "--data-dir", str(tmp_path), "--epochs", "1")
    (row, _) = reproduce("layers", tmp_path / "out", *data)
    assert (row["test % paper"], row["test % paper sd"]) == ("93.63", "0.34")
    assert float(row["test % difference"]) == pytest.approx(float(row["test %"]) - 93.63)
    _, output = command("reproduce", "layers", *TINY, "--out", tmp_path / "out", *data)
    assert "paper 93.63" in output


# The targets, on bundled data


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "target"),
    # ResNet-18's second derivatives take half a minute here, whatever its width; test_models has them.
    [*product(["digits"], TARGETS), *product(["words"], ["table2", "figure2", "figure3"]), ("digits-32", "layers")],
)
def test_every_target_trains_to_better_than_chance_and_measures_its_inverses(
    data: str, target: str, studies: Path
) -> None:
    out = studies / f"{TARGETS[target].study}-{data}"
    found = reproduce(target, out, *SMALL[data], "--data", data)
    config = json.loads((out / "config.json").read_text())
    assert [row[""] for row in found] == list(config["arms"])
    learnt = []
    for row, kept in zip(found, config["arms"].values(), strict=True):
        if "test %" in row and row[""] != "random-psd":
            learnt.append(float(row["test %"]) > NEEDED[data] < float(row["training %"]))
            settings = Settings(**{**kept, "hidden": tuple(kept["hidden"])})
            numbers = held(settings.optimizer, load(data), settings)
            assert numbers is None or float(row["Hessian MiB"]) == pytest.approx(numbers * 4 / 2**20)
    assert all(learnt) if data == "digits" else any(learnt) or target.startswith("figure")
    for label in (row[""] for row in found if row[""] != "random-psd"):
        losses = [[float(row["loss"]) for row in rows(path)] for path in (out / label).rglob(METRICS)]
        assert any(run[-1] < run[0] for run in losses)


def test_table1_counts_what_is_loaded(tmp_path: Path) -> None:
    code, output = command("reproduce", "table1", "--out", tmp_path / "out")
    assert code == 0
    assert "stand-in for" in " ".join(output.split())
    (row,) = rows(tmp_path / "out" / "table1.csv")
    assert [row[name] for name in ("train", "test", "classes")] == ["1437", "360", "10"]


def test_targets_of_one_study_share_its_folder() -> None:
    folders = {target: folder_of(target, "digits", quick=False) for target in TARGETS}
    assert folders["table2"] == folders["figure2"] == folders["figure3"]
    assert len(set(folders.values())) == len(TARGETS) - 2
    assert folder_of("table2", "digits", quick=True) != folders["table2"]


# Stopping and going on


def everything(folder: Path) -> dict[str, object]:
    """All numbers of a study but the wall clock's."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == METRICS:
            found[name] = [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in rows(path)]
        elif path.name == "result.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in WALL_CLOCK}
        elif path.suffix == ".csv":
            clock = ("seconds", "of it kernel")
            found[name] = [{k: v for k, v in row.items() if not k.startswith(clock)} for row in rows(path)]
    return found


def arguments(out: Path, *options: str) -> list[str]:
    return ["reproduce", "layers", *TINY, "--epochs", "40", "--out", str(out), *options]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpu", *arguments(out, *options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_an_epoch(running: Callable[[], bool], out: Path) -> None:
    """Until the study has written another row, or has ended."""
    deadline, began = time.monotonic() + 60, time.time()
    while running() and not any(path.stat().st_mtime > began for path in out.rglob(METRICS)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def killed(out: Path, moment: float) -> int | None:
    """The exit code of the command, killed so many seconds after an epoch."""
    process = start(out, "--processes", "1")
    wait_for_an_epoch(lambda: process.poll() is None, out)
    time.sleep(moment)
    process.kill()
    process.communicate(timeout=60)  # waits for the pipe, which its processes hold too
    return process.returncode


def killed_while_warm(out: Path, moment: float) -> int | None:
    """The same of a process that has imported everything: to import takes seconds, with nothing to lose in them."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_without_imports, args=(theirs, arguments(out, "--processes", "1")))
    process.start()
    theirs.close()
    wait_for_an_epoch(process.is_alive, out)
    time.sleep(moment)
    process.kill()
    assert ours.poll(60)  # closed at last: its processes hold it too
    process.join()
    return process.exitcode


def _without_imports(_held: Connection, arguments: list[str]) -> None:
    """python -m gpu, whose processes are forked from it: on one thread, torch has none that a fork would lose."""
    grid._context = multiprocessing.get_context("fork")
    app(arguments, prog_name="python -m gpu")


@pytest.mark.slow
def test_a_study_killed_at_ten_moments_ends_with_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    moments = random.Random(0)
    ways = [*[killed_while_warm] * 4, killed, *[killed_while_warm] * 5]
    codes = [way(tmp_path / "killed", moments.uniform(0, 0.3)) for way in ways]
    assert codes.count(-signal.SIGKILL) > 1
    process = start(tmp_path / "killed", "--processes", "2")  # so that their number makes no difference either
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert command(*arguments(tmp_path / "whole", "--processes", "2"))[0] == 0
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_the_study_and_its_processes_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path / "out", "--epochs", "400")
    wait_for_an_epoch(lambda: process.poll() is None, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)  # waits for the pipe, which its processes hold too
    assert process.returncode == 130
    assert "the same command goes on from here" in output
    assert "Traceback" not in output, output
    assert not list((tmp_path / "out").rglob("result.json"))  # it has not waited for the runs that it was at


@pytest.mark.slow
def test_a_folder_is_for_one_process_one_protocol_and_one_data_set(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = "".join(f"{k % 2} 1:{k % 2} 2:{k}\n" for k in range(40))
    for name in ("made", "made.t"):
        (tmp_path / name).write_text(lines)
    data = ("--data", "made", "--data-dir", str(tmp_path))
    reproduce("layers", out, *data)
    for options, words in (
        ((*data, "--epochs", "5"), "other settings (protocol)"),
        ((), "other settings (data"),
        ((*data, "--scaling", "none"), "other settings (scaling"),
    ):
        code, output = command("reproduce", "layers", *TINY, "--out", out, *options)
        assert code == 2
        assert words in " ".join(output.split())
    with FileLock(out / ".lock"):
        code, output = command("reproduce", "layers", *TINY, "--out", out, *data)
    assert code == 2
    assert "another process is at work there" in output
    (tmp_path / "made").write_text(lines.replace(":1", ":2"))
    code, output = command("reproduce", "layers", *TINY, "--out", out, *data)
    assert code == 2
    assert "other data" in output


def test_a_folder_of_something_else_and_an_unknown_target_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, output = command("reproduce", "layers", *TINY, "--out", tmp_path)
    assert code == 2
    assert "is not empty" in output
    assert {path.name for path in tmp_path.iterdir()} <= {"notes.txt", ".lock"}
    code, output = command("reproduce", "table9", "--out", tmp_path / "new")
    assert code == 2
    assert "table9" in output
    assert not (tmp_path / "new").exists()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("[")
    code, output = command("reproduce", "layers", *TINY, "--out", tmp_path / "damaged")
    assert code == 2
    assert "not the configuration of a study" in output
