"""The trainer: what it trains, when it stops, and that an interruption at any moment changes nothing."""

import csv
import json
import math
import os
import random
import time
from dataclasses import asdict, replace
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import cross_entropy

from gpu.optim import KernelCache, mini_batches
from gpu.train import CheckpointError, Dataset, Settings, Study, UsageError, checkpoint, fit, loop, mlp, models
from gpu.train import study as studies
from gpu.train.data import hold_out
from gpu.train.loop import CHECKPOINT, METRICS, WALL_CLOCK, epochs_of_batches, settled
from gpu.train.settings import CHOICES
from tests.gpu.ranks import context

OPTIMIZERS = CHOICES["optimizer"]
SMALL = Settings(hidden=(6,), batch_size=16, epochs=4, gamma=1.0)


def clusters(seed: int = 0, n: int = 100, d: int = 4, classes: int = 3) -> Dataset:
    """Normal clusters around one centre a class; a quarter is for testing. 60 of 100 are left to train on."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = (rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    return Dataset(
        "clusters", X[: 3 * n // 4], y[: 3 * n // 4], X[3 * n // 4 :], y[3 * n // 4 :], tuple(range(classes))
    )


DATA = clusters()
os_replace = os.replace


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without its wall-clock columns."""
    with (folder / METRICS).open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in csv.DictReader(file)]


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """All that a run leaves behind, bit for bit: model, best model, optimizer state; metrics."""
    tensors, record = checkpoint.load(folder / CHECKPOINT)
    for group in record["optimizer"]["param_groups"]:
        group.pop("differentiable", None)  # torch itself adds it to an optimizer that was loaded
    return {name: tensor.tolist() for name, tensor in tensors.items()} | record["optimizer"], rows(folder)


def by_hand(run: Settings, data: Dataset, momentum: float) -> tuple[torch.nn.Module, list[float]]:
    """A plain loop around torch.optim.SGD: the network and the mean loss of every epoch."""
    train, _ = hold_out(len(data.X_train), run.validation, seed=run.seed)
    X, y = data.X_train[train], data.y_train[train]
    model = mlp((data.features, *run.hidden, len(data.classes)), seed=run.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.lr, momentum=momentum, weight_decay=run.weight_decay)
    losses = []
    for _ in range(run.epochs):
        total = 0.0
        for i in mini_batches(len(X), run.batch_size, seed=run.seed):
            optimizer.zero_grad()
            loss = cross_entropy(model(X[i]), y[i])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(i)
        losses.append(total / len(X))
    return model, losses


def assert_same_training(folder: Path, model: torch.nn.Module, losses: list[float]) -> None:
    tensors, record = checkpoint.load(folder / CHECKPOINT)
    for name, tensor in model.state_dict().items():
        assert tensors[f"model.{name}"].equal(tensor), name
    # The same float32 losses, added up in float64 in another order.
    assert [row["loss"] for row in record["history"]] == pytest.approx(losses, rel=len(DATA.y_train) * 2.0**-52)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum"])
@given(seed=st.integers(0, 1000))
def test_the_baselines_train_bit_for_bit_as_a_plain_loop_around_torch_sgd(tmp_path_factory, optimizer, seed):
    folder = tmp_path_factory.mktemp("run")
    run = replace(SMALL, optimizer=optimizer, seed=seed)
    fit(run, DATA, folder)
    assert_same_training(folder, *by_hand(run, DATA, run.momentum if optimizer == "sgd-momentum" else 0.0))


@given(seed=st.integers(0, 1000))
def test_with_the_identity_for_a_kernel_matrix_kernel_sgd_trains_bit_for_bit_as_sgd(tmp_path_factory, seed):
    # γ → ∞ gives H = I, and m >= d_in moves every column. η is a power of two so that η·g needs no rounding: one
    # implementation rounds it before the subtraction, another does not.
    folder = tmp_path_factory.mktemp("run")
    run = replace(SMALL, gamma=1e30, lr=0.125, batch_size=20, seed=seed)
    fit(run, DATA, folder)
    assert_same_training(folder, *by_hand(run, DATA, momentum=0.0))


@given(resample=st.booleans(), seed=st.integers(0, 1000), start=st.integers(0, 3), size=st.integers(1, 70))
def test_all_optimizers_get_the_same_mini_batches_in_the_same_order(resample, seed, start, size):
    X, y = DATA.X_train, DATA.y_train
    seen = {}
    for optimizer in OPTIMIZERS:
        run = replace(SMALL, optimizer=optimizer, resample=resample, seed=seed, batch_size=size, epochs=9)
        epochs = epochs_of_batches(run, X, y, start)
        seen[optimizer] = [[(x, labels) for x, labels, _ in batches] for batches, _ in islice(epochs, 2)]
        epochs.close()
        for epoch in seen[optimizer]:
            pairs = [(*x.tolist(), label.item()) for xs, labels in epoch for x, label in zip(xs, labels, strict=True)]
            assert sorted(pairs) == sorted((*x.tolist(), label.item()) for x, label in zip(X, y, strict=True))
    for optimizer in OPTIMIZERS[1:]:
        for ours, theirs in zip(seen[OPTIMIZERS[0]], seen[optimizer], strict=True):
            assert all(a.equal(b) for p, q in zip(ours, theirs, strict=True) for a, b in zip(p, q, strict=True))
    first, second = (torch.cat([x for x, _ in epoch]) for epoch in seen["sgd"])
    assert first.equal(second) is not resample


def test_resumed_resampling_goes_on_with_the_mini_batches_of_its_epoch():
    for optimizer in ("kernel-sgd", "sgd"):
        run = replace(SMALL, optimizer=optimizer, resample=True)
        whole, later = (epochs_of_batches(run, DATA.X_train, DATA.y_train, start) for start in (0, 2))
        third, third_again = next(islice(whole, 2, None))[0], next(later)[0]
        assert all(a[0].equal(b[0]) for a, b in zip(third, third_again, strict=True))
        whole.close()
        later.close()


@given(seed=st.integers(0, 2**32 - 1), other=st.integers(0, 2**32 - 1))
def test_initial_weights_follow_from_the_seed_alone(seed, other):
    torch.manual_seed(other)
    before = torch.get_rng_state()
    first, second = (mlp((3, 5, 2), seed=seed) for _ in range(2))
    assert torch.get_rng_state().equal(before)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    different = mlp((3, 5, 2), seed=other)
    assert different[0].weight.equal(first[0].weight) is (seed == other)


@given(steps=st.lists(st.sampled_from([0.0, 0.9e-4, -0.9e-4, 1.5e-4, -1.5e-4, 1.0]), max_size=9))
def test_the_loss_has_settled_after_three_small_changes_in_a_row(steps):
    losses = [sum(steps[:k]) for k in range(len(steps) + 1)]
    in_a_row = 0
    for change in steps:
        in_a_row = in_a_row + 1 if abs(change) < 1e-4 else 0
    assert settled(losses) is (in_a_row >= 3)


def test_a_run_stops_when_its_loss_has_settled_or_its_epochs_are_done(tmp_path):
    still = replace(SMALL, lr=0.0, epochs=20)
    result = fit(still, DATA, tmp_path)
    assert (result.epochs, result.settled) == (4, True)
    assert fit(replace(still, epochs=2), DATA, make(tmp_path / "short")).epochs == 2


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@given(seed=st.integers(0, 1000), optimizer=st.sampled_from(OPTIMIZERS))
def test_the_result_is_that_of_the_last_of_the_best_validation_epochs(tmp_path_factory, seed, optimizer):
    folder = tmp_path_factory.mktemp("run")
    run = replace(SMALL, optimizer=optimizer, seed=seed, epochs=7)
    result = fit(run, DATA, folder)
    validation = [float(row["validation_accuracy"]) for row in rows(folder)]
    best = max(k for k, value in enumerate(validation, 1) if value == max(validation))
    assert (result.best_epoch, result.epochs) == (best, 7)
    assert result.test_accuracy == float(rows(folder)[best - 1]["test_accuracy"])
    assert result.last_test_accuracy == float(rows(folder)[-1]["test_accuracy"])

    tensors, _ = checkpoint.load(folder / CHECKPOINT)
    model = mlp((DATA.features, *run.hidden, 3), seed=0)
    model.load_state_dict({k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")})
    train, held = hold_out(len(DATA.X_train), run.validation, seed=seed)
    correct = model(DATA.X_train).argmax(1) == DATA.y_train
    assert correct[held].double().mean().item() == max(validation)
    assert correct[train].double().mean().item() == pytest.approx(result.train_accuracy)
    assert (model(DATA.X_test).argmax(1) == DATA.y_test).double().mean().item() == result.test_accuracy


class Interruption(BaseException):
    """As KeyboardInterrupt: nothing is expected to catch it."""


class Writes:
    """Counts what is written to files and what is renamed, and interrupts at number `stop_at`, a write halfway."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done, self.stop_at = 0, -1
        for owner, name in ((Path, "write_text"), (Path, "write_bytes"), (os, "replace")):
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, original):
        def called(first, second, **options):
            if self.done == self.stop_at:
                if original is not os_replace:
                    original(first, second[: len(second) // 2], **options)
                raise Interruption
            self.done += 1
            return original(first, second, **options)

        return called


@pytest.mark.parametrize(
    ("optimizer", "resample"),
    [("kernel-sgd", False), ("kernel-sgd", True), ("sgd-momentum", False), ("l-bfgs", False), ("esgd", False)],
)
def test_a_run_interrupted_at_any_write_and_resumed_ends_as_if_nothing_had_happened(
    tmp_path, monkeypatch, optimizer, resample
):
    # Dropout, so that the random numbers matter; a large step, so that the best network is not the latest.
    monkeypatch.setattr(
        models, "mlp", lambda sizes, seed: torch.nn.Sequential(*mlp(sizes, seed=seed), torch.nn.Dropout(0.2))
    )
    run = replace(SMALL, optimizer=optimizer, resample=resample, lr=0.5, epochs=5)
    writes = Writes(monkeypatch)
    whole = make(tmp_path / "whole")
    expected = fit(run, DATA, whole)

    for moment in range(writes.done):
        broken = make(tmp_path / str(moment))
        writes.done, writes.stop_at = 0, moment
        with pytest.raises(Interruption):
            fit(run, DATA, broken)
        if (broken / METRICS).exists():
            assert rows(broken) == rows(whole)[: len(rows(broken))]
        writes.stop_at = -1
        torch.manual_seed(99)
        result = fit(run, DATA, broken)

        assert outcome(broken) == outcome(whole)
        untimed = dict.fromkeys(WALL_CLOCK, 0.0)
        assert replace(result, **untimed) == replace(expected, **untimed)
        assert {path.name for path in broken.iterdir()} == {CHECKPOINT, METRICS}


def run_alone(folder: Path) -> None:
    torch.set_num_threads(1)
    fit(Settings(batch_size=16, epochs=60, lr=0.05), clusters(n=400, d=8), folder)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_resumed_ends_bit_for_bit_as_one_left_alone(tmp_path):
    def start(folder: Path) -> BaseProcess:
        process = context.Process(target=run_alone, args=(folder,))
        process.start()
        return process

    def epochs_done(folder: Path) -> int:
        return len(rows(folder)) if (folder / METRICS).exists() else 0

    whole, killed = make(tmp_path / "whole"), make(tmp_path / "killed")
    run_alone(whole)
    for _ in range(2):
        done = epochs_done(killed)
        process = start(killed)
        while process.is_alive() and epochs_done(killed) == done:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        assert rows(killed) == rows(whole)[: len(rows(killed))]
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert outcome(killed) == outcome(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder, to be looked at only."""
    folder = tmp_path_factory.mktemp("finished")
    fit(SMALL, DATA, folder)
    return folder


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_checkpoint_with_one_bit_turned_over_or_its_end_cut_off_is_refused(
    finished, tmp_path_factory, where, bit, cut
):
    whole = (finished / CHECKPOINT).read_bytes()
    place = int(where * len(whole))
    damaged = bytearray(whole[:place] if cut else whole)
    if not cut:
        damaged[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("damaged") / CHECKPOINT
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=CHECKPOINT):
        fit(SMALL, DATA, path.parent)


def test_a_checkpoint_is_read_without_unpickling(finished):
    whole = (finished / CHECKPOINT).read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} <= {"F32", "U8"}
    assert json.loads(header["__metadata__"]["record"])["settings"]["optimizer"] == "kernel-sgd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.2}, "lr was 0.1, is 0.2"),
        ({"hidden": (7,)}, "hidden was"),
        ({"gamma": 0.5}, "gamma was 1.0, is 0.5"),
        ({"seed": 1}, "seed was 0, is 1"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(finished, change, message):
    with pytest.raises(CheckpointError, match=message):
        fit(replace(SMALL, **change), DATA, finished)


def test_a_run_is_not_resumed_with_other_data(finished):
    moved = DATA.X_train.clone()
    moved[0, 0] = torch.nextafter(moved[0, 0], torch.tensor(math.inf))
    relabelled = DATA.y_test.clone()
    relabelled[0] = (relabelled[0] + 1) % 3
    for other in (replace(DATA, X_train=moved), replace(DATA, y_test=relabelled), clusters(seed=1)):
        with pytest.raises(CheckpointError, match="other data"):
            fit(SMALL, other, finished)


def test_a_run_is_not_resumed_with_the_inverses_of_another_cache(finished, tmp_path):
    tensors, record = checkpoint.load(finished / CHECKPOINT)
    assert record["inverses"]["source"]
    another = {"inverses": {**record["inverses"], "source": "another"}, "history": record["history"][:-1]}
    checkpoint.save(tmp_path / CHECKPOINT, tensors, {**record, **another})
    with pytest.raises(CheckpointError, match="inverse kernel matrices were another"):
        fit(SMALL, DATA, tmp_path)


def test_a_checkpoint_of_another_version_is_refused(finished, tmp_path):
    tensors, record = checkpoint.load(finished / CHECKPOINT)
    del record["inverses"]
    checkpoint.save(tmp_path / CHECKPOINT, tensors, record)
    with pytest.raises(CheckpointError, match="another version"):
        fit(SMALL, DATA, tmp_path)


def test_no_inverses_are_built_that_no_epoch_trains_on(tmp_path, monkeypatch):
    built = []
    build = KernelCache.__init__

    def counted(self, X, batches, **options):
        build(self, X, batches, **options)
        built.append(self)

    monkeypatch.setattr(KernelCache, "__init__", counted)
    run = replace(SMALL, resample=True, epochs=3)
    fit(run, DATA, tmp_path)
    assert len(built) == 3
    fit(run, DATA, tmp_path)
    assert len(built) == 3


def test_pseudoinverses_are_those_of_the_epochs_trained_on(tmp_path):
    """Four pairs of equal instances; how many mini-batches hold a whole pair depends on the epoch."""
    X = DATA.X_train.clone()
    X[:20] = X[20:40]
    data = replace(DATA, X_train=X)
    run = replace(SMALL, resample=True, epochs=6, batch_size=4)
    result = fit(run, data, tmp_path)
    train, _ = hold_out(len(X), run.validation, seed=run.seed)
    counts = [
        sum(len(X[train][batch].unique(dim=0)) < len(batch) for batch in mini_batches(60, 4, seed=(0, epoch)))
        for epoch in range(7)
    ]
    assert result.pseudoinverses == max(counts[:6]) > counts[6]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loss_that_is_not_finite_stops_the_run_and_says_with_what(tmp_path, optimizer):
    with pytest.raises(FloatingPointError, match=r"epoch 1 is (nan|inf) with lr = 1e\+30") as caught:
        fit(replace(SMALL, optimizer=optimizer, lr=1e30, gamma=0.02), DATA, tmp_path)
    assert ("gamma = 0.02, largest entry of P = " in str(caught.value)) is (optimizer == "kernel-sgd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "adam"},
        {"kernel": "laplace"},
        {"lr": -0.1},
        {"lr": math.nan},
        {"lr": 1e39},
        {"weight_decay": 1e39},
        {"momentum": 1e39},
        {"threads": 10**10},
        {"seed": 2**32},
        {"gamma": 0.0},
        {"gamma": math.inf},
        {"validation": 1.0},
        {"hidden": (5, 0)},
        {"epochs": 0},
        {"coef0": math.nan},
        {"step_rule": "monotone", "layers": "all"},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))}: "):
        Settings(**wrong)


def test_a_memory_budget_that_is_too_small_is_named(tmp_path):
    with pytest.raises(UsageError, match="memory_budget"):
        fit(replace(SMALL, memory_budget=100), DATA, tmp_path)


STUDY = Study(
    data="digits", data_dir=None, scaling="unit", optimizers=("kernel-sgd", "sgd"), seeds=(3, 4), settings=SMALL
)


def test_a_study_pairs_its_runs_by_seed_and_repeats_none_that_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    studies.create(STUDY, DATA, folder)
    results = studies.run(STUDY, DATA, folder)
    assert [(r.seed, r.optimizer) for r in results] == [(3, "kernel-sgd"), (3, "sgd"), (4, "kernel-sgd"), (4, "sgd")]
    monkeypatch.setattr(studies, "fit", None)
    assert studies.run(STUDY, DATA, folder) == results

    summary = studies.summarise(STUDY, results)
    differences = [
        results[0].test_accuracy - results[1].test_accuracy,
        results[2].test_accuracy - results[3].test_accuracy,
    ]
    assert summary["paired_differences"]["kernel-sgd - sgd"]["mean"] == pytest.approx(sum(differences) / 2)
    assert summary["optimizers"]["kernel-sgd"]["inverse_bytes"] == 60 * 16 * 4
    assert summary["optimizers"]["sgd"]["inverse_bytes"] == 0


def test_a_run_that_failed_is_recorded_counted_in_no_mean_and_not_repeated(tmp_path, monkeypatch):
    real = studies.fit

    def fails_once(settings, *arguments, **options):
        if (settings.optimizer, settings.seed) == ("sgd", 3):
            raise FloatingPointError("the loss is nan")
        return real(settings, *arguments, **options)

    monkeypatch.setattr(studies, "fit", fails_once)
    folder = tmp_path / "study"
    studies.create(STUDY, DATA, folder)
    results = studies.run(STUDY, DATA, folder)
    assert results[1] == studies.Failure("sgd", 3, "the loss is nan")
    monkeypatch.setattr(studies, "fit", None)
    assert studies.run(STUDY, DATA, folder) == results

    summary = studies.summarise(STUDY, results)
    assert summary["failed"] == [{"optimizer": "sgd", "seed": 3, "message": "the loss is nan"}]
    assert summary["optimizers"]["sgd"]["test_accuracy"] == {"mean": results[3].test_accuracy, "sd": None}
    difference = summary["paired_differences"]["kernel-sgd - sgd"]
    assert difference == {"mean": results[2].test_accuracy - results[3].test_accuracy, "interval": None, "n": 1}
    (folder / "sgd-seed3" / "failure.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"failure\.json: damaged"):
        studies.run(STUDY, DATA, folder)


def test_a_study_is_reopened_as_it_was_made_but_only_with_its_own_data(tmp_path):
    study = replace(STUDY, settings=replace(SMALL, hidden=(5, 4), gamma=0.1, resample=True))
    data = study.load_data()
    studies.create(study, data, tmp_path / "study")
    again, read = studies.reopen(tmp_path / "study")
    assert again == study
    assert read.fingerprint() == data.fingerprint()

    studies.create(study, DATA, tmp_path / "other")
    with pytest.raises(CheckpointError, match="other data"):
        studies.reopen(tmp_path / "other")
    with pytest.raises(UsageError, match="exists and is not empty"):
        studies.create(study, data, tmp_path / "study")
    with pytest.raises(UsageError, match="nothing to resume"):
        studies.reopen(tmp_path)
    studies.create(study, data, tmp_path / "ranks", ranks=2)
    assert studies.reopen(tmp_path / "ranks", ranks=True)[0] == study
    for place, ranks, words in (("ranks", False, r"gpu\.train\.parallel"), ("study", True, "python -m gpu train")):
        with pytest.raises(UsageError, match=f"continue it as it was begun, with .*{words}"):
            studies.reopen(tmp_path / place, ranks=ranks)
    whole = json.loads((tmp_path / "study" / "config.json").read_text())
    for damaged in ("{", json.dumps({**whole, "seeds": []}), json.dumps({**whole, "optimizers": []})):
        (tmp_path / "study" / "config.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            studies.reopen(tmp_path / "study")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ranks", "study"]


def test_to_restore_a_run_writes_nothing(tmp_path):
    """Several ranks do so at once."""
    fit(SMALL, DATA, tmp_path)
    (tmp_path / METRICS).unlink()
    assert loop.Run(SMALL, DATA, tmp_path).restore()
    assert not (tmp_path / METRICS).exists()
    fit(SMALL, DATA, tmp_path)
    assert (tmp_path / METRICS).exists()


def test_a_study_appears_with_its_configuration_or_not_at_all(tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interruption

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(Interruption):
        studies.create(STUDY, DATA, tmp_path / "study")
    assert not list(tmp_path.iterdir())


@given(pairs=st.lists(st.tuples(*[st.integers(0, 360)] * 2), min_size=1, max_size=12))
def test_the_interval_of_paired_differences_is_student_s(pairs):
    a, b = (np.array(part) / 360 for part in zip(*pairs, strict=True))
    computed = studies.paired_difference(a, b)
    assert computed["mean"] == pytest.approx(np.mean(a - b), abs=1e-12)
    if len(pairs) == 1:
        assert computed["interval"] is None
    elif np.ptp(a - b) > 1e-12:
        expected = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert computed["interval"] == pytest.approx([expected.low, expected.high], abs=1e-9)


@given(steps=st.integers(0, 3), momentum=st.sampled_from([0.0, 0.5]))
def test_an_optimizer_s_state_comes_back_from_a_checkpoint_bit_for_bit(tmp_path_factory, steps, momentum):
    def optimizer():
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(3, 2))
        return weight, torch.optim.SGD([weight], lr=0.1, momentum=momentum)

    weight, first = optimizer()
    for _ in range(steps):
        weight.square().sum().backward()
        first.step()
    path = tmp_path_factory.mktemp("state") / CHECKPOINT
    tensors, record = checkpoint.pack_optimizer(first)
    checkpoint.save(path, tensors, record)
    _, second = optimizer()
    checkpoint.unpack_optimizer(second, *checkpoint.load(path))
    assert str(second.state_dict()) == str(first.state_dict())


def test_a_result_holds_plain_numbers_that_json_can_hold(finished):
    result = fit(SMALL, DATA, finished)
    assert json.loads(json.dumps(asdict(result))) == asdict(result)


def test_random_inverses_are_those_of_normal_matrices_of_the_seed_times_their_transpose_over_m():
    settings = replace(SMALL, kernel="random-psd", seed=5)
    batches, cache = loop.random_inverses(settings, DATA.X_train, DATA.y_train)
    n, m = len(DATA.X_train), settings.batch_size
    A = torch.randn(n, m, generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    for (x, y, inverse), picked in zip(batches, mini_batches(n, m, seed=5), strict=True):
        assert torch.equal(x, DATA.X_train[picked])
        assert torch.equal(y, DATA.y_train[picked])
        H = A[picked] @ A[picked].T / m
        assert inverse.matrix.dtype == torch.float32
        residual = np.abs(inverse.matrix.numpy().astype(float) @ H - np.eye(len(H))).max()
        # Rounded once, from float64: |X̂ − X|·|H| ≤ u·|X|·|H|, whose entries are at most ‖X‖₂·‖H‖₂.
        assert residual < 2 * 2**-24 * np.linalg.cond(H)
    assert len(batches[-1][1]) == n % m
    assert cache.nbytes == n * m * 4


def test_random_psd_is_drawn_once_a_run():
    with pytest.raises(UsageError, match="random-psd"):
        Settings(kernel="random-psd", resample=True)
