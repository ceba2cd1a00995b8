"""The bench of times to a given accuracy, on constructed studies whose answers are known."""

import csv
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from gpu.bench.to_accuracy import median_interval, middle, ratio, to_accuracy
from gpu.experiments.protocol import Arm, Protocol
from gpu.train import Result, Settings, fit, load
from gpu.train.report import read_columns
from gpu.train.study import Failure
from tests.gpu.test_cli import command

Run = list[tuple[float, float]] | None  # seconds so far and validation accuracy, epoch by epoch; None: a failure

SGD: Run = [(1.0, 0.5), (2.0, 1.0)]  # which gives the accuracy 0.99
FAST: Run = [(0.5, 0.99)]
SLOW: Run = [(1.0, 0.98), (4.0, 0.99), (9.0, 1.0), (10.0, 0.2)]
NEVER: Run = [(1.0, 0.5), (50.0, 0.98)]


def made(folder: Path, runs: dict[str, list[Run]], data: str = "digits") -> Path:
    """A finished study whose grid has one setting, with these runs of every optimizer, a repeat each."""
    protocol = Protocol(rates=(0.1,), gammas=(0.01,), repeats=len(next(iter(runs.values()))))
    arms = {name: Arm(name, Settings(optimizer=name)) for name in runs}
    for name, curves in runs.items():
        for place, settings in arms[name].repeated(Settings(optimizer=name, lr=0.1, gamma=0.01), protocol).items():
            (folder / place).mkdir(parents=True)
            write_run(folder / place, name, settings.seed, curves[settings.seed])
    config = {"protocol": asdict(protocol), "arms": {name: asdict(arm.settings) for name, arm in arms.items()}}
    (folder / "config.json").write_text(json.dumps({**config, "data": data, "commit": "abc", "machine": "an abacus"}))
    return folder


def write_run(place: Path, name: str, seed: int, curve: Run) -> None:
    if curve is None:
        (place / "failure.json").write_text(json.dumps(asdict(Failure(name, seed, "not finite"))))
        return
    seconds, best = curve[-1][0], max(accuracy for _, accuracy in curve)
    result = Result(name, seed, best, best, best, best, 1, len(curve), True, 0.1, seconds, 0.0, 0, 0, 0)
    (place / "result.json").write_text(json.dumps(asdict(result)))
    with (place / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", "validation_accuracy"), *curve])


def test_the_ratio_is_that_of_the_first_epochs_with_99_percent_of_the_best_of_sgd(tmp_path: Path) -> None:
    found = to_accuracy([made(tmp_path / "a", {"kernel-sgd": [FAST, SLOW], "sgd": [SGD, SGD], "l-bfgs": [SLOW, FAST]})])
    assert [block["accuracy"] for block in found["blocks"]] == [0.99, 0.99]
    assert [block["seconds"] for block in found["blocks"]] == [
        {"kernel-sgd": 0.5, "sgd": 2.0, "l-bfgs": 4.0},
        {"kernel-sgd": 4.0, "sgd": 2.0, "l-bfgs": 0.5},
    ]
    assert [b["ratios"] for b in found["blocks"]] == [{"sgd": 4.0, "l-bfgs": 8.0}, {"sgd": 0.5, "l-bfgs": 0.125}]
    assert found["rivals"]["l-bfgs"] == {
        "data": ["digits"], "n": 2, "median": 1.0, "interval": None, "coverage": None,
        "smallest": 0.125, "largest": 8.0, "never": {"rival": 0, "kernel-sgd": 0, "both": 0},
    }  # fmt: skip


def test_who_never_reaches_it_or_fails_counts_as_infinitely_slow(tmp_path: Path) -> None:
    runs = {
        "kernel-sgd": [FAST, FAST, FAST, NEVER, None, NEVER, FAST],
        "sgd": [SGD] * 7,
        "esgd": [SLOW, NEVER, None, SLOW, SLOW, None, FAST],
    }
    found = to_accuracy([made(tmp_path / "a", runs)])
    assert [b["ratios"]["esgd"] for b in found["blocks"]] == [8.0, "Infinity", "Infinity", 0.0, 0.0, 1.0, 1.0]
    assert found["blocks"][1]["seconds"]["esgd"] == "Infinity"
    esgd = found["rivals"]["esgd"]
    assert esgd["never"] == {"rival": 2, "kernel-sgd": 2, "both": 1}
    assert (esgd["n"], esgd["median"], esgd["interval"]) == (7, 1.0, [0.0, "Infinity"])
    json.dumps(found, allow_nan=False)


def test_where_every_setting_of_a_rival_has_failed_it_never_reaches_it(tmp_path: Path) -> None:
    runs = {"kernel-sgd": [FAST, FAST], "sgd": [SGD, SGD], "esgd": [None, None]}
    found = to_accuracy([made(tmp_path / "a", runs)])
    assert found["rivals"]["esgd"]["never"]["rival"] == 2


def test_exchanged_names_give_the_inverse(tmp_path: Path) -> None:
    one, other = [FAST, FAST, SLOW, NEVER, FAST], [SLOW, SLOW, FAST, FAST, NEVER]
    ours, theirs = (
        to_accuracy([made(tmp_path / name, {"kernel-sgd": a, "sgd": [SGD] * 5, "soap": b})])["rivals"]["soap"]
        for name, a, b in (("a", one, other), ("b", other, one))
    )
    assert (ours["median"], theirs["median"]) == (8.0, 0.125)
    assert (ours["smallest"], ours["largest"]) == (theirs["smallest"], theirs["largest"]) == (0.0, "Infinity")
    assert ours["never"] == theirs["never"] == {"rival": 1, "kernel-sgd": 1, "both": 0}


def test_the_seconds_of_kernel_sgd_have_the_building_of_its_inverses_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks when looked at: before and after the mini-batches are fetched, and after the epoch."""
    ticks = itertools.count()
    monkeypatch.setattr("gpu.train.loop.perf_counter", lambda: float(next(ticks)))
    result = fit(Settings(hidden=(), epochs=2), load("digits"), tmp_path)
    assert (result.seconds, result.cache_seconds) == (4.0, 2.0)
    assert read_columns(tmp_path / "metrics.csv", {"seconds": 1}) == ([2.0, 4.0],)


def test_no_seconds_at_all_are_no_division_by_zero() -> None:
    assert [ratio(0.0, 0.0), ratio(2.0, 0.0), ratio(0.0, 2.0), ratio(math.inf, math.inf)] == [1.0, math.inf, 0.0, 1.0]


def test_studies_count_for_the_rivals_they_have_and_the_paper_s_once_a_block_with_the_middle(tmp_path: Path) -> None:
    middling: Run = [(1.0, 1.0)]
    three = {"kernel-sgd": [FAST], "sgd": [SGD], "l-bfgs": [NEVER], "esgd": [FAST], "esgd-li": [middling]}
    two = {"kernel-sgd": [FAST], "sgd": [SGD], "esgd": [SLOW], "l-bfgs": [NEVER], "soap": [FAST]}
    found = to_accuracy([made(tmp_path / "a", three), made(tmp_path / "b", two, "words")])
    rivals = found["rivals"]
    assert {name: (s["n"], s["data"]) for name, s in rivals.items()} == {
        **dict.fromkeys(("sgd", "l-bfgs", "esgd"), (2, ["digits", "words"])),
        "esgd-li": (1, ["digits"]),
        "soap": (1, ["words"]),
        "l-bfgs, esgd, esgd-li": (2, ["digits", "words"]),
    }
    assert (rivals["l-bfgs, esgd, esgd-li"]["smallest"], rivals["l-bfgs, esgd, esgd-li"]["largest"]) == (2.0, 8.0)
    assert [(s["data"], s["commit"], s["machine"]) for s in found["studies"]] == [
        ("digits", "abc", "an abacus"),
        ("words", "abc", "an abacus"),
    ]
    assert {"versions", "machine", "commit", "dirty"} <= set(found)


@pytest.mark.parametrize("n", range(13))
def test_the_interval_covers_the_median_in_its_share_of_all_ways_to_lie_below_or_above_it(n: int) -> None:
    """Each of n values lies below the median as often as above it: 2ⁿ equally likely ways, the median at 0."""
    interval, coverage = median_interval(list(range(n)))
    if n < 6:
        assert (interval, coverage) == (None, None)
        return
    assert interval is not None
    low, high = interval
    below = [sum(ways) for ways in itertools.product((0, 1), repeat=n)]
    assert sum(low < b <= high for b in below) / 2**n == coverage >= 0.95
    assert sum(low + 1 < b <= high - 1 for b in below) / 2**n < 0.95


def test_an_interval_of_20_is_from_the_6th_to_the_15th_and_ties_are_kept() -> None:
    interval, coverage = median_interval(list(range(1, 21)))
    assert interval == [6, 15]
    assert coverage == pytest.approx(0.9586, abs=1e-4)
    assert median_interval([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, math.inf])[0] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([2.0], 2.0),
        ([2.0, 8.0], 4.0),
        ([0.0, 8.0], 0.0),
        ([8.0, math.inf], math.inf),
        ([0.0, math.inf], 1.0),
        ([0.0, 0.0], 0.0),
        ([math.inf, math.inf], math.inf),
        ([1.0, 3.0, math.inf], 3.0),
    ],
)
def test_the_median_of_inverse_ratios_is_the_inverse(values: list[float], median: float) -> None:
    assert middle(values) == median
    inverse = sorted(ratio(1.0, value) if value else math.inf for value in values)
    assert middle(inverse) == pytest.approx(1 / median if median else math.inf)


def refused(*folders: Path) -> str:
    code, output = command("bench", "to-accuracy", *folders)
    assert code == 2
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    return output


def test_folders_of_no_finished_study_are_one_line(tmp_path: Path) -> None:
    runs = {"kernel-sgd": [FAST], "sgd": [SGD]}
    assert "no config.json there; expected the folder of a finished study" in refused(tmp_path / "nowhere")
    good = made(tmp_path / "good", runs)
    assert "expected one study a data set, got more of digits" in refused(good, good)
    assert "expected a study of Table 2 with kernel-sgd and sgd, got none of sgd" in refused(
        made(tmp_path / "a", {"kernel-sgd": [FAST]})
    )
    assert "got none of kernel-sgd" in refused(made(tmp_path / "b", {"sgd": [SGD], "soap": [FAST]}))
    assert "digits, repeat 1: sgd has failed" in refused(
        made(tmp_path / "c", {"kernel-sgd": [FAST, FAST], "sgd": [SGD, None]})
    )
    (good / "sgd/lr0.1-seed0/metrics.csv").write_text("seconds\n1\n")
    assert "metrics.csv: damaged" in refused(good)
    (good / "sgd/lr0.1-seed0/metrics.csv").unlink()
    assert "metrics.csv: not there" in refused(good)
    (good / "sgd/lr0.1-seed0/result.json").unlink()
    assert "sgd/lr0.1-seed0 has not ended" in refused(good)
    nameless = (good / "config.json").read_text().replace('"data": "digits"', '"data": ["digits"]')
    for text in ("[", "[]", "{}", '{"arms": {}, "protocol": 3, "data": "digits"}', nameless):
        (good / "config.json").write_text(text)
        assert "config.json: not of a study of Table 2" in refused(good)


@pytest.mark.slow
def test_the_command_reads_what_reproduce_has_written_of_the_optimizers_that_were_asked_for(tmp_path: Path) -> None:
    asked = [word for name in ("sgd", "l-bfgs", "kernel-sgd") for word in ("--optimizer", name)]
    small = ["--quick", "--epochs", "3", "--hidden", "10", "--processes", "1"]
    code, output = command("reproduce", "table2", *small, *asked, "--out", tmp_path / "study")
    assert code == 0, output
    with (tmp_path / "study" / "table2.csv").open(newline="", encoding="utf-8") as file:
        assert [row[""] for row in csv.DictReader(file)] == ["kernel-sgd", "sgd", "l-bfgs"]
    written = tmp_path / "new" / "figures.json"
    code, output = command("bench", "to-accuracy", tmp_path / "study", "--out", written)
    assert code == 0, output
    assert "seconds until 99% of the best of sgd on validation data" in " ".join(output.split())
    code, output = command("bench", "to-accuracy", tmp_path / "study", "--json")
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert json.loads(output) == figures
    assert list(figures["rivals"]) == ["sgd", "l-bfgs"]
    assert figures["rivals"]["sgd"]["never"]["rival"] == 0
    assert figures["studies"][0]["stand_in"] == "mnist and usps"
    assert all(block["seconds"]["kernel-sgd"] != 0 for block in figures["blocks"])


def test_optimizers_are_chosen_among_those_of_table2_alone(tmp_path: Path) -> None:
    for target, name, said in (
        ("table2", "muon", "optimizer: expected some of kernel-sgd, sgd, "),
        ("layers", "sgd", "--optimizer: chooses among those of table2, figure2 and figure3, got it with layers"),
        ("table1", "sgd", "got it with table1"),
    ):
        code, output = command("reproduce", target, "--optimizer", name, "--out", tmp_path / "out")
        assert code == 2
        assert said in output
    assert not (tmp_path / "out").exists()
