"""Data sets: what is read is what was written, scaled by the training data alone; what cannot be read is named."""

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu.train.data import SCALINGS, hold_out, libsvm, load
from gpu.train.errors import DataError

OPENERS = {"": open, ".bz2": bz2.open, ".gz": gzip.open}
EPS = torch.finfo(torch.float32).eps
VALUES = st.integers(-99, 99).map(lambda k: k / 8)


def write(path: Path, X: np.ndarray, labels: np.ndarray) -> None:
    """A LIBSVM file as its authors write it: features from 1, zeros left out."""
    lines = [
        " ".join([f"{label:g}", *(f"{j + 1}:{value!r}" for j, value in enumerate(row.tolist()) if value)])
        for row, label in zip(X, labels, strict=True)
    ]
    with OPENERS[path.suffix if path.suffix in OPENERS else ""](path, "wt", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


@given(data=st.data(), endings=st.tuples(*[st.sampled_from(list(OPENERS))] * 2))
def test_a_libsvm_file_is_read_as_it_was_written_whatever_it_is_packed_with(tmp_path_factory, data, endings):
    folder = tmp_path_factory.mktemp("data")
    n, d = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    X = data.draw(hnp.arrays(float, (n, d), elements=VALUES).filter(lambda X: X.any()))
    labels = data.draw(hnp.arrays(int, n, elements=st.integers(-3, 9)))
    picked = data.draw(st.lists(st.integers(0, n - 1), min_size=1).filter(lambda picked: X[picked].any()))
    write(folder / f"made{endings[0]}", X, labels)
    write(folder / f"made.t{endings[1]}", X[picked], labels[picked])

    read = load("made", folder, scaling="none")

    # Columns of zeros at the end leave no trace in a sparse file.
    width = read.features
    assert not X[:, width:].any()
    assert X[:, width - 1].any()
    assert read.X_train.equal(torch.tensor(X[:, :width], dtype=torch.float32))
    assert read.X_test.equal(torch.tensor(X[picked, :width], dtype=torch.float32))
    assert list(read.classes) == sorted(set(labels.tolist()))
    assert [read.classes[k] for k in read.y_train] == labels.tolist()
    assert [read.classes[k] for k in read.y_test] == labels[picked].tolist()


def test_training_and_test_files_that_end_at_different_features_get_one_width(tmp_path):
    write(tmp_path / "made", np.eye(3, 5), np.arange(3))
    write(tmp_path / "made.t", np.eye(1, 7, 6), np.zeros(1))
    made = load("made", tmp_path, scaling="none")
    assert made.X_train.shape == (3, 7)
    assert made.X_test.tolist() == [[0, 0, 0, 0, 0, 0, 1]]


def test_features_may_be_numbered_from_0_as_well_as_from_1(tmp_path):
    for first in (0, 1):
        for name in ("made", "made.t"):
            (tmp_path / name).write_text(f"1 {first}:2 {first + 2}:4\n2 {first + 1}:3\n")
        assert load("made", tmp_path, scaling="none").X_test.tolist() == [[2, 0, 4], [0, 3, 0]]


@pytest.mark.parametrize("scaling", SCALINGS)
@given(X=hnp.arrays(float, (5, 3), elements=VALUES).filter(lambda X: np.ptp(X[:4]) > 0 and X[:4].any() and X[4].any()))
def test_scaling_is_one_affine_map_that_the_training_data_alone_decides(tmp_path_factory, scaling, X):
    folder = tmp_path_factory.mktemp("data")
    write(folder / "made", X[:4], np.arange(4))
    write(folder / "made.t", X[4:], np.zeros(1))
    raw, scaled = (load("made", folder, scaling=how) for how in ("none", scaling))

    train = scaled.X_train.double()
    low, high, mean, sd = train.min(), train.max(), train.mean(), train.std(correction=0)
    match scaling:
        case "none":
            assert scaled.X_train.equal(raw.X_train)
        case "unit":
            assert (low, high) == (0, 1)
        case "symmetric":
            assert (low, high) == (-1, 1)
        case "standard":
            assert abs(mean) < 30 * EPS
            assert abs(sd - 1) < 30 * EPS
    raw_low, raw_high = raw.X_train.double().min(), raw.X_train.double().max()
    slope = (high - low) / (raw_high - raw_low)
    line = (raw.X_test.double() - raw_low) * slope + low
    assert ((scaled.X_test - line).abs() <= 30 * EPS * (1 + line.abs() + abs(slope * raw_low))).all()


def test_constant_data_can_be_scaled(tmp_path):
    write(tmp_path / "made", np.ones((2, 2)), np.arange(2))
    write(tmp_path / "made.t", np.ones((1, 2)), np.zeros(1))
    for scaling in SCALINGS:
        assert load("made", tmp_path, scaling=scaling).X_train.isfinite().all()


def test_the_digits_are_all_there_split_class_by_class_and_the_same_every_time():
    from sklearn.datasets import load_digits

    first, second = load("digits", scaling="none"), load("digits", scaling="none")
    X, y = load_digits(return_X_y=True)
    joined = torch.cat([first.X_train, first.X_test]).double().numpy()
    labels = torch.cat([first.y_train, first.y_test]).numpy()
    assert sorted(map(tuple, np.column_stack([joined, labels]))) == sorted(map(tuple, np.column_stack([X, y])))
    per_class = torch.stack([torch.bincount(part) for part in (first.y_train, first.y_test)]).double()
    assert ((per_class[1] - per_class.sum(0) / 5).abs() <= 1).all()
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != load("digits", scaling="unit").fingerprint()


@given(n=st.integers(2, 200), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**40))
def test_holding_out_splits_the_instances_into_two_parts_of_the_asked_sizes(n, fraction, seed):
    if round(n * fraction) in (0, n):
        with pytest.raises(DataError, match="validation"):
            hold_out(n, fraction, seed=seed)
        return
    kept, held = hold_out(n, fraction, seed=seed)
    assert len(held) == round(n * fraction)
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(n))
    again = hold_out(n, fraction, seed=seed)
    assert all(a.equal(b) for a, b in zip((kept, held), again, strict=True))


GOOD = "1 1:0.5 2:0.25\n2 1:1 2:0.75\n"
BROKEN = {
    "garbage": b"\x00\xff\x13 not a data file \x80\n",
    "a cut line": b"1 1:0.5 2:0.25\n2 1:",
    "a word for a label": b"one 1:0.5\n",
    "a fractional label": b"1.5 1:0.5\n",
    "an infinite label": b"inf 1:0.5\n",
    "features that are no numbers": b"1 1:nan\n",
    "infinite features": b"1 1:inf\n",
    "features out of order": b"1 2:1 1:1\n",
    "an index beyond all memory": b"1 2000000000:1\n",
    "an index beyond all integers": b"1 99999999999999999999:1\n",
    "nothing": b"",
    "labels alone": b"1\n2\n",
}


@pytest.mark.parametrize("where", ["made", "made.t"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_makes_no_sense_is_named(tmp_path, where, what):
    for name in ("made", "made.t"):
        (tmp_path / name).write_bytes(BROKEN[what] if name == where else GOOD.encode())
    with pytest.raises(DataError, match=rf"{where}: "):
        load("made", tmp_path)


@pytest.mark.parametrize("long", ["made", "made.t"])
def test_a_file_that_the_other_one_s_width_makes_too_large_is_named(tmp_path, monkeypatch, long):
    monkeypatch.setattr(libsvm, "MAX_ENTRIES", 1000)
    for name in ("made", "made.t"):
        (tmp_path / name).write_text("1 1:1\n" * 20 if name == long else "1 100:1\n")
    with pytest.raises(DataError, match=rf"{long}: 20 × 101 features are too many"):
        load("made", tmp_path)


@pytest.mark.parametrize(
    ("where", "values", "scaling"),
    [
        ("made", "1e39", "none"),
        ("made.t", "-1e39", "unit"),
        ("made", "-1.5e308 2:1.5e308", "unit"),
        ("made", "1e200", "standard"),
    ],
)
def test_features_beyond_float32_after_scaling_are_refused(tmp_path, where, values, scaling):
    for name in ("made", "made.t"):
        (tmp_path / name).write_text(f"1 1:{values}\n2 1:1\n" if name == where else GOOD)
    with pytest.raises(DataError, match=rf"^{where}: .*float32"):
        load("made", tmp_path, scaling=scaling)


@pytest.mark.parametrize("ending", [".bz2", ".gz"])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_packed_file_that_was_cut_short_is_named(tmp_path_factory, ending, cut):
    folder = tmp_path_factory.mktemp("data")
    write(folder / f"made{ending}", np.random.default_rng(0).random((40, 8)), np.arange(40) % 3)
    (folder / "made.t").write_text(GOOD)
    packed = (folder / f"made{ending}").read_bytes()
    (folder / f"made{ending}").write_bytes(packed[: int(cut * len(packed))])
    with pytest.raises(DataError, match=rf"made\{ending}: "):
        load("made", folder)


def test_missing_files_folders_and_labels_are_named(tmp_path):
    with pytest.raises(DataError, match=r"'made'.*--data-dir"):
        load("made")
    with pytest.raises(DataError, match=r"nowhere.*no folder"):
        load("made", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"made: no such file.*libsvmtools"):
        load("made", tmp_path)
    (tmp_path / "made").write_text(GOOD)
    with pytest.raises(DataError, match=r"made\.t: no such file"):
        load("made", tmp_path)
    (tmp_path / "made.t").mkdir()
    with pytest.raises(DataError, match=r"made\.t: "):
        load("made", tmp_path)
    (tmp_path / "made.t").rmdir()
    (tmp_path / "made.t").write_text("3 1:1\n")
    with pytest.raises(DataError, match=r"made\.t: label 3 .* \[1\. 2\.\]"):
        load("made", tmp_path)
    with pytest.raises(DataError, match=r"scaling.*'log'"):
        load("digits", scaling="log")
