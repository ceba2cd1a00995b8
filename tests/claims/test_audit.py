"""python -m proofs audit: what it says of a run's plain files, and of folders and files that make no sense."""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpu.__main__ import app as training
from gpu.train import claims as recording
from proofs import audit
from proofs.__main__ import app
from proofs.claims import load

ROOT = Path(__file__).parents[2]
RUN = "kernel-sgd-seed0"
SETTINGS = {
    "weight_decay": 0.0,
    "decay": "l2",
    "bias": "plain",
    "step_rule": "constant",
    "ridge": 0.0,
    "record_claims": True,
}
# Nothing out of the ordinary: every claim holds on it.
QUIET = {
    "lr": 0.1,
    "batches": 10,
    "mean_bound_min": 0.5,
    "mean_bound_median": 1.0,
    "mean_bound_exceeded": 0,
    "l2_bound_min": 0.25,
    "l2_bound_median": 0.75,
    "l2_bound_exceeded": 0,
    "data_bound_min": 1.0,
    "data_bound_median": math.inf,
    "data_bound_exceeded": 0,
    "indefinite": 0,
    "layer_rises": 0,
    "layer_largest_rise": 0.0,
    "layer_unexplained": 0,
    "step_rises": 0,
    "step_largest_rise": 0.0,
    "weights_unmoved": 0.0,
    "biases_unmoved": 0.0,
    "condition_min": 10.0,
    "condition_median": 20.0,
    "condition_max": 30.0,
    "pseudoinverses": 0,
    "stalled": 0,
}

Change = dict[str, Any]


def table(rows: list[Change]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def study(folder: Path, *changes: Change, losses: tuple[float, ...] = (), **settings: Any) -> Path:
    """A study with one run, one epoch a change of QUIET; the loss falls unless `losses` are given."""
    epochs = range(1, max(1, len(changes)) + 1)
    rows = [{"epoch": k, **QUIET, **change} for k, change in zip(epochs, changes or ({},), strict=True)]
    metrics = [{"epoch": k, "loss": loss} for k, loss in zip(epochs, losses or [1 / k for k in epochs], strict=True)]
    config = {"optimizers": ["sgd", "kernel-sgd"], "seeds": [0], "settings": {**SETTINGS, **settings}}
    (folder / RUN).mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / RUN / "claims.csv").write_text(table(rows))
    (folder / RUN / "metrics.csv").write_text(table(metrics))
    return folder


def command(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output, both streams, of python -m proofs."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="python -m proofs")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def audited(folder: Path) -> dict[str, dict[str, Any]]:
    (run,) = audit.as_json(audit.read(folder))["runs"]
    return {found["claim"]: found for found in run["claims"]}


def test_a_run_on_which_nothing_happens_breaks_no_claim_and_every_claim_is_in_the_ledger(tmp_path: Path) -> None:
    ledger = {claim.name for claim in load()}
    for number, settings in enumerate(
        ({}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decay": "decoupled"}, {"bias": "augmented"})
    ):
        found = audited(study(tmp_path / str(number), {}, {}, **settings))
        assert {each["outcome"] for each in found.values()} == {"held"}
        assert set(found) <= ledger


@pytest.mark.parametrize(
    ("claim", "change", "settings", "outcome", "numbers"),
    [
        (
            "mini-batch-mean",
            {"mean_bound_exceeded": 3, "mean_bound_min": 0.01},
            {},
            "condition not met",
            {"exceeded": 3, "smallest": 0.01, "median": 1.0},
        ),
        (
            "mini-batch-data-dependent",
            {"data_bound_exceeded": 3, "data_bound_min": 0.01},
            {},
            "condition not met",
            {"exceeded": 3, "smallest": 0.01, "median": None},
        ),
        ("mini-batch-data-dependent", {"data_bound_exceeded": 3}, {"step_rule": "monotone"}, "held", {"exceeded": 3}),
        (
            "weight-decay-preconditioned",
            {"l2_bound_exceeded": 4},
            {"weight_decay": 0.1},
            "condition not met",
            {"exceeded": 4, "smallest": 0.25, "median": 0.75},
        ),
        (
            "weight-decay-decoupled",
            {"layer_rises": 1, "layer_largest_rise": 2.0},
            {"weight_decay": 0.1, "decay": "decoupled"},
            "did not hold",
            {"rises": 1, "largest": 2.0},
        ),
        (
            "convergence-theorem",
            {"layer_rises": 2, "layer_largest_rise": 0.5},
            {},
            "did not hold",
            {"rises": 2, "largest": 0.5},
        ),
        (
            "earlier-layers-moving",
            {"step_rises": 1, "step_largest_rise": 3.0},
            {},
            "did not hold",
            {"rises": 1, "largest": 3.0},
        ),
        ("rounded-or-indefinite-kernel", {"indefinite": 5}, {}, "did not hold", {"indefinite": 5}),
        ("padding-trains-the-layer", {"weights_unmoved": 0.36}, {}, "did not hold", {"unmoved": 0.36}),
        (
            "bias-as-an-element-of-w",
            {"biases_unmoved": 1.0},
            {"bias": "augmented"},
            "did not hold",
            {"unmoved": 1.0},
        ),
        (
            "kernel-matrix-is-invertible",
            {"pseudoinverses": 2, "condition_max": math.inf},
            {},
            "did not hold",
            {"smallest": 10.0, "median": 20.0, "largest": None, "pseudoinverses": 2},
        ),
    ],
)
def test_a_claim_is_told_by_what_the_last_epoch_or_all_epochs_have_recorded(
    tmp_path: Path, claim: str, change: Change, settings: Change, outcome: str, numbers: Change
) -> None:
    found = audited(study(tmp_path, {}, change, **settings))
    assert found[claim]["outcome"] == outcome
    assert numbers.items() <= found[claim]["numbers"].items()
    others = {name for name, each in found.items() if each["outcome"] != "held"} - {claim, "convergence-theorem"}
    assert not others


def test_a_mean_loss_that_rose_is_counted_from_epoch_to_epoch(tmp_path: Path) -> None:
    found = audited(study(tmp_path, {}, {}, {}, {}, losses=(1.0, 1.5, 1.25, 1.375)))["guaranteed-to-converge"]
    assert (found["outcome"], found["numbers"]) == ("did not hold", {"rises": 2, "largest": 0.5})
    assert "2 of 3 epochs after the first" in found["says"]


@pytest.mark.parametrize(("weight_decay", "claim"), [(0.0, "mini-batch-mean"), (0.1, "weight-decay-preconditioned")])
def test_a_loss_that_rose_within_the_bound_contradicts_the_claim_that_covers_the_step(
    tmp_path: Path, weight_decay: float, claim: str
) -> None:
    change = {"layer_rises": 2, "layer_largest_rise": 0.5, "layer_unexplained": 1}
    found = audited(study(tmp_path, change, weight_decay=weight_decay))[claim]
    assert found["outcome"] == "did not hold"
    assert "CONTRADICTED" in found["says"]
    assert found["numbers"]["contradicted"] == 1


@pytest.mark.slow
def test_the_table_or_json_stands_on_standard_output_and_a_plot_in_the_folder_or_where_it_is_wanted(
    tmp_path: Path,
) -> None:
    folder = study(tmp_path / "study", {}, {"mean_bound_min": 0.0, "data_bound_median": math.inf})
    code, output = command("audit", folder)
    assert code == 0
    assert json.loads(command("audit", folder, "--json")[1]) == audit.as_json(audit.read(folder))
    assert "padding-trains-the-layer" in output
    assert "kernel-sgd-seed0, 2 epochs" in output
    assert (folder / "audit.svg").read_text().startswith("<?xml")
    assert command("audit", folder / RUN, "--plot", tmp_path / "here.png")[0] == 0
    assert (tmp_path / "here.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / RUN / "audit.svg").exists()


def test_without_matplotlib_the_plot_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folder = study(tmp_path / "study")
    code, output = command("audit", folder)
    assert code == 0
    assert "audit.svg left out" in output
    assert not (folder / "audit.svg").exists()


def cut(path: Path, characters: int) -> None:
    path.write_text(path.read_text()[:-characters])


def replaced(column: str, value: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / RUN / "claims.csv"
        header, first, *rest = csv.reader(path.read_text().splitlines())
        first[header.index(column)] = value
        path.write_text("".join(",".join(line) + "\n" for line in (header, first, *rest)))

    return damage


def without_record(folder: Path) -> None:
    (folder / RUN / "claims.csv").unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["settings"]["record_claims"]
    (folder / "config.json").write_text(json.dumps(config))


def before_its_first_epoch(folder: Path) -> None:
    (folder / RUN / "claims.csv").unlink()


def failed(folder: Path) -> None:
    (folder / RUN / "claims.csv").unlink()
    (folder / RUN / "failure.json").write_text("{}")


def without_kernel_sgd(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"optimizers": ["sgd"], "seeds": [0], "settings": SETTINGS}))


def an_epoch_short(folder: Path) -> None:
    path = folder / RUN / "claims.csv"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-2]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            without_record,
            "claims.csv: no such file, since this run has not recorded it; run again with --record-claims",
        ),
        (before_its_first_epoch, "claims.csv: no such file, no epoch is done; python -m gpu train --resume"),
        (failed, "failed in its first epoch"),
        (without_kernel_sgd, "no run of kernel-sgd there"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not the configuration of a study"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not the configuration of a study"),
        (lambda folder: (folder / "config.json").write_text('{"settings": {}}'), "config.json: not the configuration"),
        (lambda folder: cut(folder / RUN / "claims.csv", 1), "claims.csv: damaged (expected rows, the last one whole)"),
        (lambda folder: cut(folder / RUN / "claims.csv", 30), "claims.csv: damaged"),
        (lambda folder: (folder / RUN / "claims.csv").write_text(""), "claims.csv: damaged"),
        (lambda folder: (folder / RUN / "claims.csv").write_bytes(b"\xff\x00"), "claims.csv: damaged"),
        (lambda folder: (folder / RUN / "metrics.csv").unlink(), "metrics.csv: damaged"),
        (lambda folder: (folder / RUN / "metrics.csv").write_text("epoch,loss\n1,nan\n"), "loss is nan"),
        (an_epoch_short, "claims.csv: damaged (it has 1 epochs, metrics.csv has 3)"),
        (replaced("epoch", "7"), "expected epoch 1, got 7"),
        (replaced("lr", "fast"), "could not convert string to float: 'fast'"),
        (replaced("mean_bound_min", "nan"), "epoch 1: mean_bound_min is nan"),
        (replaced("layer_rises", "0.5"), "layer_rises is 0.5"),
        (replaced("layer_rises", "11"), "layer_rises is 11"),
        (replaced("batches", "0"), "batches is 0"),
        (replaced("lr", "inf"), "lr is inf"),
        (replaced("weights_unmoved", "1.5"), "weights_unmoved is 1.5"),
        (replaced("condition_min", "25"), "condition_median is 20"),
        (replaced("step_rises", "3"), "step_largest_rise is 0"),
        (replaced("layer_unexplained", "3"), "layer_unexplained is 3"),
    ],
)
def test_what_makes_no_sense_is_named_in_one_line_with_exit_code_2(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    folder = study(tmp_path / "study", {}, {}, {})
    damage(folder)
    code, output = command("audit", folder)
    assert code == 2
    assert named in output
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert not (folder / "audit.svg").exists()


def test_folders_that_are_no_run_and_names_that_are_no_plot_are_named_in_one_line(tmp_path: Path) -> None:
    folder = study(tmp_path / "study")
    (folder / "sgd-seed0").mkdir()
    (folder / "sgd-seed0" / "metrics.csv").write_text("epoch,loss\n1,1.0\n")
    alone = tmp_path / "alone"
    (folder / RUN).rename(alone)
    for arguments, named in (
        ([tmp_path], "expected the folder of a run or of a study"),
        ([tmp_path / "nowhere"], "expected the folder of a run or of a study"),
        ([folder / "sgd-seed0"], "only runs of kernel-sgd have a record"),
        ([alone], "expected the settings of the run beside its folder"),
        ([study(tmp_path / "good"), "--plot", tmp_path / "plot.pdf"], "plot.pdf: expected a file ending in .svg or"),
        ([tmp_path / "good", "--plot", tmp_path / "no" / "plot.svg"], "No such file or directory"),
    ):
        code, output = command("audit", *arguments)
        assert (code, output.count("\n")) == (2, 1)
        assert named in output


def test_the_ledger_s_options_do_not_go_with_an_audit(tmp_path: Path) -> None:
    code, output = command("--json", "audit", study(tmp_path / "study"))
    assert code == 2
    assert "audit: expected its options after it" in output


@pytest.mark.slow
def test_an_audit_needs_neither_torch_nor_the_evidence_of_the_ledger(tmp_path: Path) -> None:
    code = "import runpy, sys\ntry: runpy.run_module('proofs', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'gpu', 'sympy', 'flint'} & set(sys.modules)))"
    arguments = ["audit", str(study(tmp_path / "study"))]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_columns_that_are_read_are_those_that_the_trainer_writes() -> None:
    assert set(recording.COLUMNS) == audit.COLUMNS
    assert recording.CLAIMS == audit.CLAIMS


def trained(folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    quick = ("--hidden", "80", "--epochs", "2", "--batch-size", "40", "--out", str(folder), "--record-claims")
    assert CliRunner().invoke(training, ["train", *quick, *options]).exit_code == 0
    return audited(folder)


@pytest.mark.slow
def test_a_run_of_steps_too_long_breaks_what_one_by_the_monotone_rule_keeps(tmp_path: Path) -> None:
    constant = trained(tmp_path / "constant", "--lr", "3")
    monotone = trained(tmp_path / "monotone", "--lr", "3", "--step-rule", "monotone")
    assert json.loads((tmp_path / "constant" / "config.json").read_text())["settings"]["record_claims"] is True
    assert constant["convergence-theorem"]["outcome"] == "did not hold"
    assert constant["convergence-theorem"]["numbers"]["rises"] > 0
    assert monotone["convergence-theorem"]["numbers"] == {"rises": 0, "largest": 0.0}
    for found in (constant, monotone):
        assert found["padding-trains-the-layer"]["numbers"]["unmoved"] == 0.5
        assert "contradicted" not in found["mini-batch-mean"]["numbers"]


def test_run_of_a_study_without_a_record_is_named_and_the_others_are_audited(tmp_path: Path) -> None:
    folder = study(tmp_path / "study")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"seeds": [0, 1]}))
    assert audit.left_out(folder) == audit.left_out(folder / RUN) == []
    (folder / "kernel-sgd-seed1").mkdir()
    (folder / "kernel-sgd-seed1" / "failure.json").write_text("{}")
    code, output = command("audit", folder)
    assert code == 0
    assert "not audited" in output
    assert "seed1/claims.csv: no such file, since this run failed in its first epoch" in output
    assert "kernel-sgd-seed0" in output
