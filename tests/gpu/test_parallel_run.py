"""A training run on several ranks: what it trains, and that a killed rank ends it with one epoch lost at most."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import typer
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from gpu.optim import KernelCache, KernelSGD, kernel_groups, mini_batches
from gpu.optim.parallel import average
from gpu.train import Dataset, Settings, UsageError, checkpoint, mlp
from gpu.train import fit as fit_alone
from gpu.train.data import hold_out
from gpu.train.loop import CHECKPOINT, METRICS, WALL_CLOCK
from gpu.train.parallel import fit, main
from tests.gpu.networks import random
from tests.gpu.ranks import SECONDS, Found, on_ranks, started

X, Y = random(100, 5, dtype=torch.float32), torch.arange(100) % 3
DATA = Dataset("noise", X[:80], Y[:80], X[80:], Y[80:], (0, 1, 2))  # 64 to train on: 4 steps of 2 ranks with 8 each
RUN = Settings(hidden=(6,), batch_size=8, epochs=5, gamma=0.5)


def trained(folder: str, settings: Settings, dies_after: int = 0) -> Found:
    """What every rank holds in the end. After the epoch `dies_after` rank 1 kills itself."""

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == dies_after and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    result = fit(settings, DATA, Path(folder), on_epoch=on_epoch)
    figures = [result.test_accuracy, result.validation_accuracy, result.best_epoch, result.epochs, result.loss]
    return {"figures": torch.tensor(figures, dtype=torch.float64), "bytes": torch.tensor(result.inverse_bytes)}


def rows(folder: Path) -> list[dict[str, str]]:
    if not (folder / METRICS).exists():
        return []
    with (folder / METRICS).open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, list[float]]:
    tensors, _ = checkpoint.load(folder / CHECKPOINT)
    return {name: t.tolist() for name, t in tensors.items() if name.startswith("model.")}


@pytest.mark.slow
def test_a_run_on_two_ranks_is_one_that_accumulates_two_mini_batches_bit_for_bit(tmp_path):
    found = on_ranks(2, trained, str(tmp_path), RUN)
    assert found[0]["figures"].equal(found[1]["figures"])
    assert [int(one["bytes"]) for one in found] == [32 * 8 * 4] * 2  # half of the inverses each

    picked, _ = hold_out(80, RUN.validation, seed=RUN.seed)
    x_train, y_train = DATA.X_train[picked], DATA.y_train[picked]
    model = mlp((5, 6, 3), seed=RUN.seed)
    optimizer = KernelSGD(kernel_groups(model), RUN.lr, weight_decay=RUN.weight_decay, model=model)
    cache = KernelCache(x_train, mini_batches(64, 8, seed=RUN.seed), gamma=RUN.gamma)
    losses = []
    for _ in range(RUN.epochs):
        met = []
        for pair in zip(*[cache.batches(x_train, y_train)] * 2, strict=True):
            optimizer.zero_grad()
            for x, y, inverse in pair:
                with optimizer.accumulate(inverse):
                    loss = cross_entropy(model(x), y)
                    (loss / 2).backward()
                met.append(loss.item())
            optimizer.step()
        losses.append(sum(met) / len(met))
    assert weights(tmp_path) == {f"model.{name}": t.tolist() for name, t in model.state_dict().items()}
    # The same float32 losses, added up in float64 in another order.
    assert [float(row["loss"]) for row in rows(tmp_path)] == pytest.approx(losses, rel=8 * 2.0**-52)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_all_instances_whatever_the_sizes_of_the_mini_batches(tmp_path):
    still = replace(RUN, lr=0.0, epochs=1, batch_size=9)  # 64 on 3 ranks: 27, 27, and 10 as 4, 3, 3
    three = tmp_path / "three"
    three.mkdir()
    on_ranks(3, trained, str(three), still)
    alone = fit_alone(still, DATA, tmp_path)
    # Either mean of at most m float32 losses is off by (m + 3)·u, u = 2⁻²⁴, and each loss by some roundings of its own.
    assert float(rows(three)[0]["loss"]) == pytest.approx(alone.loss, rel=2 * (9 + 3 + 16) * 2.0**-24)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_which_goes_on_from_its_checkpoint_on_as_many_ranks_or_others(tmp_path):
    whole, killed, elsewhere, marks = (tmp_path / name for name in ("whole", "killed", "elsewhere", "marks"))
    for folder in (whole, killed, marks):
        folder.mkdir()
    on_ranks(2, trained, str(whole), RUN)
    with started(2, trained, str(killed), RUN, 3, folder=marks) as processes:
        for process in processes:
            process.join(SECONDS)
        assert [process.exitcode for process in processes] == [1, -signal.SIGKILL]
    message = (marks / "0.error").read_text()
    assert message.startswith("LostRankError: rank 0 of 2: the exchange with the other ranks failed")
    assert rows(killed) == rows(whole)[:3]

    shutil.copytree(killed, elsewhere)
    on_ranks(2, trained, str(killed), RUN)
    assert rows(killed) == rows(whole)
    assert weights(killed) == weights(whole)

    found = on_ranks(3, trained, str(elsewhere), RUN)
    assert all(one["figures"].equal(found[0]["figures"]) for one in found)
    assert rows(elsewhere)[:3] == rows(whole)[:3]
    assert len(rows(elsewhere)) == RUN.epochs
    assert weights(elsewhere) != weights(whole)


def waiting_in_vain() -> Found:
    group = dist.new_group(timeout=timedelta(seconds=1))
    if dist.get_rank() == 1:
        time.sleep(SECONDS)
    average([torch.ones(1)], 1, group)
    return {}


@pytest.mark.slow
def test_a_rank_that_does_not_answer_is_an_error_on_the_others_within_the_time_limit(tmp_path):
    with started(2, waiting_in_vain, folder=tmp_path) as (here, there):
        here.join(SECONDS / 2)
        assert (here.exitcode, there.is_alive()) == (1, True)
    assert "has not answered within the time limit" in (tmp_path / "0.error").read_text()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_ends_the_run_on_all(tmp_path):
    with started(2, trained, str(tmp_path), replace(RUN, lr=1e30), folder=tmp_path) as processes:
        for process in processes:
            process.join(SECONDS)
    for rank in range(2):
        assert (tmp_path / f"{rank}.error").read_text().startswith("FloatingPointError: the loss of epoch 1 is nan")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("step_rule", "monotone"),
        ("resample", True),
        ("record_claims", True),
        ("kernel", "random-psd"),
    ],
)
def test_settings_that_several_ranks_cannot_have_are_refused(tmp_path, name, value):
    with pytest.raises(UsageError, match=f"{name}: expected .* on several ranks, got {value}"):
        fit(replace(RUN, **{name: value}), DATA, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected one of the two"),
        (["--out", "a", "--resume", "b"], "leave out --out"),
        (["--out", "a"], "expected to be started by torchrun"),
        (["--resume", "nothing"], "nothing to resume"),
        (["--resume", "nothing", "--batch-size", "8"], "leave out --batch-size"),
        (["--out", "a", "--lr", "-1"], "lr: expected a finite number >= 0, got -1.0"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(monkeypatch, options, message):
    monkeypatch.delenv("RANK", raising=False)
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert message in line


def torchrun(ranks: int, *options: str) -> subprocess.Popen[str]:
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "gpu.train.parallel"]
    return subprocess.Popen(
        [sys.executable, "-m", *command, *options], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
    )


def children(pid: int) -> list[int]:
    """In the order in which they were started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs: Any = (map(int, line.split()) for line in listed.splitlines())
    return sorted(child for child, parent in pairs if parent == pid)


@pytest.mark.gpu
@pytest.mark.slow
def test_nccl_runs_it_on_a_gpu(tmp_path):
    launcher = torchrun(1, "--out", str(tmp_path / "run"), "--epochs", "2", "--device", "cuda")
    try:
        _, errors = launcher.communicate(timeout=SECONDS)
        assert launcher.returncode == 0, errors
    finally:
        launcher.kill()
    assert len(rows(tmp_path / "run" / "kernel-sgd-seed0")) == 2


@pytest.mark.slow
def test_torchrun_starts_it_and_after_a_kill_of_one_rank_goes_on_with_another_number(tmp_path):
    folder, place = tmp_path / "run", tmp_path / "run" / "kernel-sgd-seed0"
    launcher = torchrun(2, "--out", str(folder), "--epochs", "40", "--lr", "0.01")
    try:
        deadline = time.monotonic() + SECONDS
        while len(rows(place)) < 2 and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(children(launcher.pid)[-1], signal.SIGKILL)
        _, errors = launcher.communicate(timeout=SECONDS)
        assert launcher.returncode != 0
        assert "Signal 9 (SIGKILL)" in errors
        done = rows(place)
        assert 2 <= len(done) < 40

        launcher = torchrun(1, "--resume", str(folder))
        _, errors = launcher.communicate(timeout=SECONDS)
        assert launcher.returncode == 0, errors
        assert json.loads((folder / "config.json").read_text())["ranks"] == 2
    finally:
        for child in children(launcher.pid):
            os.kill(child, signal.SIGKILL)
        launcher.kill()
    assert rows(place)[: len(done)] == done
    assert len(rows(place)) == 40
    assert (place / "result.json").exists()
