"""What a run records for an audit of the claims is what the reference says of the same weights and mini-batches."""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag
from torch import Tensor

from gpu.optim import KernelCache, mini_batches
from gpu.train import Settings, checkpoint, fit, mlp
from gpu.train.claims import CLAIMS, COLUMNS, ClaimsRecord
from gpu.train.loop import CHECKPOINT, METRICS, WALL_CLOCK
from reference import algorithm
from reference.conditions import max_learning_rate, sharp_learning_rate
from reference.kernels import gram
from reference.loss import softmax_cross_entropy
from reference.network import Layer, forward, initial_layers
from reference.reshape import reshape_inverse
from tests.gpu.networks import backward, kernel_sgd, layers_of, network, random, tensor
from tests.gpu.test_train import DATA, SMALL, Interruption, Writes, make, outcome

EPS = 2.0**-52
RECORDED = replace(SMALL, record_claims=True)
BOUNDS = ("mean_bound", "l2_bound", "data_bound")


@dataclass(frozen=True)
class Expected:
    """What the reference says of one step: the bounds, the rises, and how much rounding may matter."""

    bounds: tuple[float, float, float]
    layer_rise: float
    step_rise: float
    relative: float


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / CLAIMS).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def objective(layers: tuple[Layer, ...], x: Tensor, y: Tensor, weight_decay: float, moving: slice) -> float:
    """The mean cross-entropy and λ/2·‖·‖² of the layers that move."""
    loss, _ = softmax_cross_entropy(forward(layers, x.numpy())[0], y.numpy())
    size = sum(np.sum(part**2) for layer in layers[moving] for part in (layer.weight, layer.bias))
    return float(loss) + weight_decay / 2 * float(size)


def by_reference(
    layers: tuple[Layer, ...], x: Tensor, y: Tensor, inverse: Tensor, settings: algorithm.Settings
) -> Expected:
    logits, inputs = forward(layers, x.numpy())
    Z, ones, plain, decay = inputs[-1], np.ones((len(x), 1)), settings.bias == "plain", settings.weight_decay
    if not plain:
        Z = np.hstack((Z, ones))
    P = reshape_inverse(inverse.numpy(), Z.shape[1])
    _, dlogits = softmax_cross_entropy(logits, y.numpy())
    mean = max_learning_rate(Z, P, bias=plain)
    data = sharp_learning_rate(Z, P, dlogits * len(x), bias=plain)
    # The L2 term is that of more instances, √(2λm)·e_j.
    whole, joint = (np.hstack((Z, ones)), block_diag(P, 1)) if plain else (Z, P)
    stacked = np.vstack((whole, math.sqrt(2 * decay * len(x)) * np.eye(len(joint))))
    l2 = max_learning_rate(stacked, joint) * len(x) / len(stacked)

    after = algorithm.step(algorithm.initial_state(layers), x.numpy(), y.numpy(), inverse.numpy(), settings)[0].layers
    last, every = slice(-1, None), slice(None)

    def rise(to: tuple[Layer, ...], moving: slice) -> float:
        return objective(to, x, y, decay, moving) - objective(layers, x, y, decay, moving)

    # All terms of a sum over those of K, which they may cancel in.
    size = np.abs(stacked) @ np.abs(joint) @ np.abs(stacked).T
    cancellation = np.linalg.norm(size, np.inf) * mean / 4 / len(x) if mean < math.inf else 1.0
    relative = 30 * EPS * sum(stacked.shape) * cancellation
    return Expected(
        (mean, l2, data), rise((*layers[:-1], after[-1]), last), rise(after, every), max(float(relative), 1e-12)
    )


@pytest.mark.parametrize("bias", ["plain", "augmented"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@given(m=st.sampled_from([3, 8]), lr=st.sampled_from([0.01, 1.0, 30.0]), seed=st.integers(0, 1000))
def test_bounds_and_rises_of_a_loss_are_those_of_the_reference(bias, weight_decay, m, lr, seed):
    settings = algorithm.Settings(lr=lr, gamma=0.5, weight_decay=weight_decay, bias=bias)
    X, y = random(20, 3, seed=seed), tensor(np.random.default_rng(seed).integers(0, 3, 20), torch.int64)
    model = network(initial_layers((3, 5, 3), seed))
    optimizer = kernel_sgd(model, settings)
    cache = KernelCache(X, mini_batches(20, m, seed=seed), gamma=0.5)
    record, expected = ClaimsRecord(model, optimizer), []
    for x, labels, inverse in record.watched(cache.batches(X, y)):
        expected.append(by_reference(layers_of(model), x, labels, inverse.matrix, settings))
        optimizer.zero_grad()
        backward(model, x, labels)
        optimizer.step(inverse=inverse)
    record.finish_epoch(cache, cache.batches(X, y))

    (row,), relative = record.rows, max(step.relative for step in expected)
    for k, name in enumerate(BOUNDS):
        bounds = [step.bounds[k] for step in expected]
        assert row[f"{name}_min"] == pytest.approx(min(bounds), rel=relative)
        assert row[f"{name}_median"] == pytest.approx(median(bounds), rel=relative)
        assert row[f"{name}_exceeded"] == sum(lr > bound for bound in bounds)
    for name in ("layer", "step"):
        rises = [getattr(step, f"{name}_rise") for step in expected]
        absolute = relative * (1 + max(map(abs, rises)))
        assert row[f"{name}_largest_rise"] == pytest.approx(max(0.0, *rises), abs=absolute, rel=relative)
        assert sum(r > absolute for r in rises) <= row[f"{name}_rises"] <= sum(r > -absolute for r in rises)
    assert row["layer_unexplained"] == row["indefinite"] == 0
    assert (row["batches"], row["lr"]) == (len(cache), lr)


@given(seed=st.integers(0, 1000), ridge=st.sampled_from([0.0, 0.1]))
def test_condition_numbers_are_those_of_the_kernel_matrices_and_infinite_where_one_is_singular(seed, ridge):
    X, y = random(16, 2, seed=seed), torch.zeros(16, dtype=torch.int64)
    X[1] = X[0]
    model = network(initial_layers((2, 3), 0))
    cache = KernelCache(X, torch.arange(16).split(4), gamma=2.0, ridge=ridge)
    record = ClaimsRecord(model, kernel_sgd(model, algorithm.Settings()))
    for x, labels, _ in record.watched(cache.batches(X, y)):
        backward(model, x, labels)
    record.finish_epoch(cache, cache.batches(X, y))

    matrices = [gram(x.numpy(), gamma=2.0) + ridge * np.eye(4) for x in X.split(4)]
    kappas = [float(np.linalg.cond(H)) for H in matrices[1:]]
    kappas.append(float(np.linalg.cond(matrices[0])) if ridge else math.inf)
    (row,) = record.rows
    # λ_min is off by m·ε·λ_max, so κ by m·ε·κ relative to itself.
    finite = max(kappa for kappa in kappas if kappa < math.inf)
    for name, value in (("min", min(kappas)), ("median", median(kappas)), ("max", max(kappas))):
        assert row[f"condition_{name}"] == pytest.approx(value, rel=30 * 4 * EPS * finite)
    assert row["pseudoinverses"] == (0 if ridge else 1)


@pytest.mark.parametrize("bias", ["plain", "augmented"])
def test_the_share_that_never_moved_is_that_of_the_columns_beyond_m(tmp_path, bias):
    run = replace(RECORDED, hidden=(20,), batch_size=15, bias=bias, weight_decay=0.0, lr=0.01)
    fit(run, DATA, tmp_path)
    tensors, _ = checkpoint.load(tmp_path / CHECKPOINT)
    start = mlp((DATA.features, 20, 3), seed=run.seed)[-1]
    still = tensors["model.2.weight"] == start.weight
    last = rows(tmp_path)[-1]
    assert still[:, 15:].all()
    assert last["weights_unmoved"] == pytest.approx(still.double().mean().item(), abs=4 * EPS)
    assert last["biases_unmoved"] == (bias == "augmented")


def test_recording_changes_no_bit_of_the_training_and_without_it_there_is_no_record(tmp_path):
    recorded, plain, baseline = (make(tmp_path / name) for name in ("recorded", "plain", "baseline"))
    result = fit(RECORDED, DATA, recorded)
    untimed = dict.fromkeys(WALL_CLOCK, 0.0)
    assert replace(result, **untimed) == replace(fit(SMALL, DATA, plain), **untimed)
    fit(replace(RECORDED, optimizer="sgd"), DATA, baseline)
    state, metrics = outcome(recorded)
    assert ({name: value for name, value in state.items() if not name.startswith("claims.")}, metrics) == outcome(plain)
    for folder in (plain, baseline):
        assert {path.name for path in folder.iterdir()} == {CHECKPOINT, METRICS}
    assert list(rows(recorded)[0]) == list(COLUMNS)


@pytest.mark.parametrize("resample", [False, True])
def test_a_recorded_run_interrupted_at_any_write_has_the_record_of_one_left_alone(tmp_path, monkeypatch, resample):
    run = replace(RECORDED, resample=resample, lr=0.5, epochs=3, hidden=(20,))
    writes = Writes(monkeypatch)
    whole = make(tmp_path / "whole")
    fit(run, DATA, whole)
    expected = (whole / CLAIMS).read_text()
    assert expected.count("\n") == 4

    for moment in range(writes.done):
        broken = make(tmp_path / str(moment))
        writes.done, writes.stop_at = 0, moment
        with pytest.raises(Interruption):
            fit(run, DATA, broken)
        if (broken / CLAIMS).exists():
            assert expected.startswith((broken / CLAIMS).read_text())
        writes.stop_at = -1
        fit(run, DATA, broken)
        assert (broken / CLAIMS).read_text() == expected
        assert outcome(broken) == outcome(whole)
        assert {path.name for path in broken.iterdir()} == {CHECKPOINT, METRICS, CLAIMS}


def test_a_checkpoint_from_before_there_was_a_record_is_continued_without_one_only(tmp_path):
    fit(replace(SMALL, epochs=4), DATA, tmp_path)
    tensors, record = checkpoint.load(tmp_path / CHECKPOINT)
    for new in ("record_claims", "history"):
        del record["settings"][new]
    record["history"] = record["history"][:-1]
    checkpoint.save(tmp_path / CHECKPOINT, tensors, record)
    with pytest.raises(checkpoint.CheckpointError, match="record_claims was False, is True"):
        fit(RECORDED, DATA, tmp_path)
    assert fit(SMALL, DATA, tmp_path).epochs == 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_step_too_long_raises_the_loss_and_neither_the_monotone_rule_does_nor_any_step_within_its_bound(
    tmp_path, seed
):
    def recorded(name: str, **options: object) -> list[dict[str, float]]:
        fit(replace(RECORDED, seed=seed, epochs=2, gamma=0.02, **options), DATA, make(tmp_path / name))
        return rows(tmp_path / name)

    constant, monotone = recorded("constant", lr=3.0), recorded("monotone", lr=3.0, step_rule="monotone")
    assert sum(row["layer_rises"] for row in constant) > 0
    assert all(row["layer_largest_rise"] > 0 for row in constant if row["layer_rises"])
    assert all(row["layer_rises"] == row["layer_largest_rise"] == 0 for row in monotone)
    for row in (*constant, *monotone, *recorded("short", lr=0.01), *recorded("bare", lr=0.01, weight_decay=0.0)):
        assert row["layer_unexplained"] == 0


def test_a_loss_that_rises_within_the_bound_is_recorded_as_unexplained(tmp_path, monkeypatch):
    """A step uphill, which no claim allows."""
    monkeypatch.setattr("gpu.optim.update.torch_ops.step_block_", lambda W, G, *_: W.add_(G, alpha=1.0))
    fit(replace(RECORDED, epochs=1, lr=1e-6), DATA, tmp_path)
    (row,) = rows(tmp_path)
    assert row["layer_unexplained"] == row["layer_rises"] > 0


def test_a_rise_that_the_rounding_of_the_direction_explains_is_recorded_but_not_as_unexplained(tmp_path, monkeypatch):
    """Uphill by less than float32 may be off where the entries of P are large and cancel."""
    monkeypatch.setattr("gpu.optim.update.torch_ops.step_block_", lambda W, G, *_: W.add_(G, alpha=1e-6))
    fit(replace(RECORDED, epochs=1, gamma=1e-3, lr=1e-6, weight_decay=0.0), DATA, tmp_path)
    (row,) = rows(tmp_path)
    assert row["layer_unexplained"] == 0
    assert row["layer_rises"] > row["mean_bound_exceeded"]


def test_a_kernel_that_rounding_has_made_indefinite_leaves_no_learning_rate(tmp_path):
    fit(replace(RECORDED, gamma=1e-4, epochs=1, hidden=(20,), lr=1e-9), DATA, tmp_path)
    (row,) = rows(tmp_path)
    assert row["indefinite"] > 0
    assert row["mean_bound_min"] == 0
    assert row["mean_bound_exceeded"] >= row["indefinite"]


def test_the_setting_is_off_unless_asked_for():
    assert Settings().record_claims is False
