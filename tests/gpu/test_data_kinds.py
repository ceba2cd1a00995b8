"""What all data sets have in common: scaling of images, what the kernel sees, validation, fingerprints, stand-ins."""

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console
from torch.nn.functional import one_hot

from gpu import torch_ops
from gpu.bench.step import step
from gpu.optim import mini_batches
from gpu.train import CheckpointError, Settings, Study, UsageError, checkpoint, fit, loop, mlp, report
from gpu.train import study as studies
from gpu.train.data import SCALINGS, kind, load, scaling, stand_in
from gpu.train.data.bundled import BUNDLED
from gpu.train.data.dataset import TENSORS
from gpu.train.loop import Run, accuracy, epochs_of_batches
from gpu.train.models import build_model, described, network_of
from tests.gpu.test_cli import command

EPS = torch.finfo(torch.float32).eps
IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(3), st.just(2), st.just(2)))
WORDS = load("words")
TEXT = Settings(network="mlp", hidden=(6,), epochs=3, gamma=0.1)


@pytest.mark.parametrize("how", SCALINGS)
@given(train=IMAGES, test=IMAGES)
def test_images_are_scaled_by_the_training_images_alone_channel_by_channel_where_it_is_to_standard(how, train, test):
    scaled = scaling.scaled_images(train, test, how)
    assert all(part.dtype == torch.float32 for part in scaled)
    X = train.astype(float)
    axes = (0, 2, 3) if how == "standard" else (0, 1, 2, 3)
    low, high = (f(X, axis=axes, keepdims=True) for f in (np.min, np.max))
    match how:
        case "none":
            offset, factor = np.zeros_like(low), np.ones_like(low)
        case "unit":
            offset, factor = low, high - low
        case "symmetric":
            offset, factor = (low + high) / 2, (high - low) / 2
        case "standard":
            offset, factor = X.mean(axes, keepdims=True), X.std(axes, keepdims=True)
    factor = np.where(high == low, 1, factor) if how != "none" else factor
    for part, images in zip(scaled, (train, test), strict=True):
        exact = (images.astype(float) - offset) / factor
        np.testing.assert_allclose(part.numpy(), exact, rtol=4 * EPS, atol=1e-9)


def test_the_histogram_of_many_images_is_that_of_all_of_them(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    whole = scaling.scaled_images(images, images, "standard")[0]
    monkeypatch.setattr(scaling, "CHUNK", 2)
    assert scaling.scaled_images(images, images, "standard")[0].equal(whole)


def test_of_text_the_scaling_is_that_of_what_the_kernel_sees():
    raw, unit = (load("words", scaling=how) for how in ("none", "unit"))
    assert raw.kernel_train is not None
    assert unit.kernel_train is not None
    for name in set(TENSORS) - {"kernel_train"}:
        assert getattr(raw, name).equal(getattr(unit, name)), name
    assert (unit.kernel_train.min(), unit.kernel_train.max()) == (0, 1)
    low, high = raw.kernel_train.min(), raw.kernel_train.max()
    assert ((raw.kernel_train - low) / (high - low) - unit.kernel_train).abs().max() < 30 * EPS


@pytest.mark.parametrize("name", TENSORS)
def test_the_fingerprint_changes_with_every_tensor(name):
    data = WORDS  # with everything that a data set may have
    changed = getattr(data, name).clone()
    changed[-1:] += 1
    assert replace(data, **{name: changed}).fingerprint() != data.fingerprint()
    if name not in TENSORS[:4]:
        assert replace(data, **{name: None}).fingerprint() != data.fingerprint()
    assert replace(data, kernel_train=data.vectors, vectors=data.kernel_train).fingerprint() != data.fingerprint()


def test_the_fingerprint_of_tabular_data_is_that_of_its_four_tensors_alone():
    digits = load("digits")
    digest = hashlib.sha256()
    for part in (digits.X_train, digits.y_train, digits.X_test, digits.y_test):
        digest.update(f"{tuple(part.shape)}".encode() + part.numpy().tobytes())
    assert digits.fingerprint() == digest.hexdigest()


def test_all_tensors_of_a_data_set_move_to_another_device():
    moved = WORDS.to("meta")
    assert {getattr(moved, name).device.type for name in TENSORS} == {"meta"}


@given(seed=st.integers(0, 1000), fraction=st.floats(0.1, 0.9))
def test_validation_instances_are_those_the_data_come_with_or_else_held_out(seed, fraction):
    assert WORDS.with_validation(fraction, seed=seed) is WORDS
    bare = replace(WORDS, X_valid=None, y_valid=None)
    parts = bare.with_validation(fraction, seed=seed)
    n = len(bare.y_train)
    assert len(parts.y_valid) == round(n * fraction)
    assert sorted([*parts.X_train.tolist(), *parts.X_valid.tolist()]) == sorted(bare.X_train.tolist())
    # What the kernel sees of an instance, and its label, go where the instance goes.
    instances = zip(bare.X_train, bare.kernel_train, bare.y_train, strict=True)
    mean = {tuple(x.tolist()): (k.tolist(), int(y)) for x, k, y in instances}
    for x, k, y in zip(parts.X_train, parts.kernel_train, parts.y_train, strict=True):
        assert mean[tuple(x.tolist())] == (k.tolist(), int(y))
    for x, y in zip(parts.X_valid, parts.y_valid, strict=True):
        assert mean[tuple(x.tolist())][1] == int(y)


@pytest.mark.parametrize("resample", [False, True])
def test_the_inverses_of_text_are_those_of_its_mean_word_vectors_and_go_with_its_mini_batches(tmp_path, resample):
    settings = replace(TEXT, resample=resample, batch_size=50)
    run = Run(settings, WORDS, tmp_path)
    assert run.X.equal(WORDS.X_train)  # none is held out: the validation instances are given
    assert run.X_held.equal(WORDS.X_valid)
    epochs = epochs_of_batches(settings, run.X, run.y, 0, run.kernel_input)
    batches, _ = next(epochs)
    epochs.close()
    seed: Any = (0, 0) if resample else 0
    for (x, y, inverse), i in zip(batches, mini_batches(700, 50, seed=seed), strict=True):
        assert x.equal(WORDS.X_train[i])
        assert y.equal(WORDS.y_train[i])
        H = torch_ops.gram(WORDS.kernel_train[i].double(), gamma=0.1)
        assert (inverse.matrix - torch_ops.inverse_gram(H)).abs().max() < 1e-3 * inverse.matrix.abs().max()
        run.optimizer.zero_grad()
        run.model(x).sum().backward()
        run.optimizer.step(inverse=inverse)
    run.optimizer.zero_grad()
    run.model(batches[1][0]).sum().backward()
    with pytest.raises(ValueError, match="is not what the model was run on"):
        run.optimizer.step(inverse=batches[0][2])


def test_the_record_of_the_claims_is_not_for_text_nor_for_networks_that_a_forward_pass_changes(tmp_path):
    for data, words in ((WORDS, "perceptron"), (load("digits-32"), "ResNet-18")):
        settings = Settings(network="mlp" if data is WORDS else "auto", record_claims=True)
        with pytest.raises(UsageError, match=f"record_claims: .*{words}"):
            fit(settings, data, tmp_path)


def test_a_perceptron_sees_images_flattened_and_of_a_text_the_mean_of_its_word_vectors():
    images = load("digits-32")
    settings = Settings(network="mlp", hidden=(5,))
    x = images.X_test[:4]
    assert build_model(images, settings)(x).equal(mlp((images.features, 5, 10), seed=0)(x.reshape(4, -1)))
    x = torch.cat([WORDS.X_test[:4], torch.zeros_like(WORDS.X_test[:1])])
    means = [WORDS.vectors[row[row > 0]].mean(0) if row.any() else WORDS.vectors[0] for row in x]
    made, plain = build_model(WORDS, settings), mlp((WORDS.features, 5, 2), seed=0)
    assert (made(x) - plain(torch.stack(means))).abs().max() < 30 * EPS
    assert len([p for p in made.parameters() if p.requires_grad]) == len(list(plain.parameters()))


def test_the_network_is_the_paper_s_for_the_kind_of_data_or_the_perceptron_and_no_other():
    settings = Settings(hidden=(5,), width=3, units=7)
    sizes = {"digits": {64, 5, 10}, "digits-32": {3, 6, 12, 24, 10}, "words": {28, 100, 7, 2}}  # 28: four gates
    networks = {"digits": "mlp", "digits-32": "resnet18", "words": "lstm"}
    for name, network in networks.items():
        data = load(name)
        assert data.kind == kind(name)
        assert network_of(data.kind, settings) == network
        model = build_model(data, settings)
        assert model(data.X_test[:3]).shape == (3, len(data.classes))
        assert {n for p in model.parameters() if p.requires_grad for n in p.shape[:2]} == sizes[name]
        for other in {*networks.values()} - {network, "mlp"}:
            with pytest.raises(
                UsageError, match=f"network: expected .*{network}.* for data of this kind, got '{other}'"
            ):
                build_model(data, replace(settings, network=other))
    assert "3 channels" in described("image", settings)
    assert "7 units" in described("text", settings)
    assert "hidden layers 5" in described("features", settings)


def test_what_was_begun_before_networks_had_names_goes_on_as_the_perceptron(tmp_path):
    settings = Settings(optimizer="sgd", network="mlp", hidden=(3,), epochs=1)
    study = Study(data="digits-32", data_dir=None, scaling="unit", optimizers=("sgd",), seeds=(0, 1), settings=settings)
    data = study.load_data()
    studies.create(study, data, tmp_path / "study")
    config = json.loads((tmp_path / "study" / "config.json").read_text())
    for name in ("network", "width", "units"):
        del config["settings"][name]
    (tmp_path / "study" / "config.json").write_text(json.dumps(config))
    assert studies.reopen(tmp_path / "study")[0] == study
    fit(settings, data, tmp_path)
    tensors, record = checkpoint.load(tmp_path / loop.CHECKPOINT)
    for name in ("network", "width", "units"):
        del record["settings"][name]
    checkpoint.save(tmp_path / loop.CHECKPOINT, tensors, record)
    assert Run(settings, data, tmp_path).restore()
    with pytest.raises(CheckpointError, match="network was mlp, is resnet18"):
        Run(replace(settings, network="auto", width=64), data, tmp_path).restore()


@pytest.mark.parametrize("command_line", [("train",), ("reproduce", "layers", "--quick")])
def test_a_network_that_cannot_read_the_data_is_an_error_before_anything_is_written(tmp_path, command_line):
    code, output = command(*command_line, "--network", "lstm", "--out", tmp_path / "out")
    assert code == 2
    assert "network: expected mlp for data of this kind, got 'lstm'" in " ".join(output.split())
    assert not (tmp_path / "out").exists()


def test_accuracy_is_counted_in_evaluation_mode_part_by_part_and_leaves_the_network_as_it_was():
    data = load("digits-32")
    X, y = data.X_test[:300], data.y_test[:300]
    model = build_model(data, Settings(width=2))
    model(X)  # moves the running mean and variance
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = (copy.deepcopy(model).eval()(X).argmax(1) == y).double().mean()
    assert accuracy(model, X, y) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EVALUATED", 7)
        assert accuracy(model, X, y) == expected
    assert model.training
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not accuracy(model.eval(), X, y).isnan()
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["kernel-sgd", "sgd"])
@pytest.mark.parametrize("name", BUNDLED)
def test_what_stands_in_can_be_learnt(tmp_path, name, optimizer):
    data = load(name)
    epochs = {"features": 25, "image": 2, "text": 15}[data.kind]
    settings = Settings(optimizer=optimizer, hidden=(50,), width=4, epochs=epochs, gamma=0.1)
    result = fit(settings, data, tmp_path)
    chance = one_hot(data.y_test).double().mean(0).max()
    assert result.test_accuracy > chance + 0.3
    assert report.read_metrics(tmp_path / loop.METRICS)[1][0] > result.loss


def test_digits_32_are_the_digits_each_pixel_a_square_of_four_by_four_in_three_channels():
    small, large = (load(name, scaling="none") for name in ("digits", "digits-32"))
    for part in ("train", "test"):
        X, images = getattr(small, f"X_{part}"), getattr(large, f"X_{part}")
        assert images.shape == (len(X), 3, 32, 32)
        squares = images.reshape(-1, 3, 8, 4, 8, 4)
        assert (squares == X.reshape(-1, 1, 8, 1, 8, 1)).all()
        assert getattr(small, f"y_{part}").equal(getattr(large, f"y_{part}"))


def test_the_generated_texts_are_the_same_every_time_and_as_their_description_says():
    assert load("words").fingerprint() == WORDS.fingerprint()
    assert WORDS.vectors.shape == (201, 100)
    for X, y, n in (
        (WORDS.X_train, WORDS.y_train, 700),
        (WORDS.X_valid, WORDS.y_valid, 100),
        (WORDS.X_test, WORDS.y_test, 200),
    ):
        assert torch.bincount(y).tolist() == [n / 2, n / 2]
        lengths = (X > 0).sum(1)
        assert lengths.min() >= 8
        assert lengths.max() <= 24
        words = [X[y == label][X[y == label] > 0] for label in (0, 1)]
        for label, chosen in enumerate(words):
            own, other = ((chosen > 40 * k) & (chosen <= 40 * k + 40) for k in (label, 1 - label))
            spread = 4 * (0.25 / len(chosen)) ** 0.5
            assert abs(own.double().mean() - 0.4) < spread
            assert abs(other.double().mean() - 0.1) < spread


@pytest.mark.parametrize("name", [*BUNDLED, "usps"])
def test_stand_ins_are_labelled_in_every_output(tmp_path, name, monkeypatch):
    study = Study(
        data=name, data_dir=None, scaling="unit", optimizers=("sgd",), seeds=(0,), settings=replace(TEXT, epochs=1)
    )
    data = load(name) if name in BUNDLED else replace(load("digits"), name=name, stand_in="")
    assert data.stand_in == stand_in(name)
    assert (data.stand_in != "") is (name in BUNDLED)
    folder = tmp_path / "study"
    studies.create(study, data, folder)
    summary = studies.summarise(study, studies.run(study, data, folder))
    assert summary["stand_in"] == data.stand_in
    label = f"{name} (stand-in for {data.stand_in})" if data.stand_in else name
    console = Console(width=200, record=True)
    console.print(report.table(summary))
    assert f"{label}: mean" in console.export_text()
    titles = []
    from matplotlib.figure import Figure

    suptitle = Figure.suptitle
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **o: titles.append(text) or suptitle(self, text, **o))
    assert report.plot(study, folder)
    assert titles == [label]
    if name == "digits":
        figures = step(data, replace(TEXT, epochs=1), repeats=1)
        assert (figures["data"], figures["stand_in"]) == (name, data.stand_in)


def test_the_bench_measures_an_epoch_on_text():
    assert step(WORDS, replace(TEXT, hidden=(4,)), repeats=1)["data"] == "words"
