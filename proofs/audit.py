"""Which claims of the ledger held on a training run, read off the plain files that the trainer left in its folder.

    STUDY/config.json                       the settings
    STUDY/kernel-sgd-seed0/metrics.csv      the loss of every epoch
    STUDY/kernel-sgd-seed0/claims.csv       what `--record-claims` records

It knows these files, not the trainer: what they say is checked here, and whatever does not make sense is an error.
Nothing is proved by a run; the ledger's verdicts stand beside what happened.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

CONFIG, METRICS, CLAIMS, FAILURE, RESULT = "config.json", "metrics.csv", "claims.csv", "failure.json", "result.json"
OPTIMIZER = "kernel-sgd"
RECORD = "run again with --record-claims"

BOUNDS = ("mean_bound", "l2_bound", "data_bound")
COUNTS = (
    *(f"{bound}_exceeded" for bound in BOUNDS),
    "indefinite",
    "layer_rises",
    "layer_unexplained",
    "step_rises",
    "pseudoinverses",
)
SHARES = ("weights_unmoved", "biases_unmoved")
SPREADS = (
    *((f"{bound}_min", f"{bound}_median") for bound in BOUNDS),
    *pairwise(("condition_min", "condition_median", "condition_max")),
)
RISES = (("layer_rises", "layer_largest_rise"), ("step_rises", "step_largest_rise"))
COLUMNS = {
    "epoch",
    "lr",
    "batches",
    "stalled",
    *COUNTS,
    *SHARES,
    *(name for spread in SPREADS for name in spread),
    *(name for rise in RISES for name in rise),
}
SETTINGS: dict[str, type] = {
    "weight_decay": float,
    "decay": str,
    "bias": str,
    "step_rule": str,
    "ridge": float,
    "record_claims": bool,
}

HELD, FAILED, UNCOVERED = "held", "did not hold", "condition not met"

Row = dict[str, float]


class AuditError(ValueError):
    """A folder or file that cannot be audited; the message names it and says what to do."""


@dataclass(frozen=True)
class Run:
    """One recorded run of Kernel SGD: its settings, its loss and its record, epoch by epoch."""

    name: str
    settings: dict[str, Any]
    losses: list[float]
    rows: list[Row]

    def total(self, column: str) -> int:
        """Summed over the epochs."""
        return int(sum(row[column] for row in self.rows))

    def least(self, column: str) -> float:
        return min(row[column] for row in self.rows)

    def most(self, column: str) -> float:
        return max(row[column] for row in self.rows)


@dataclass(frozen=True)
class Finding:
    """What a run says of a claim of the ledger, by its name: the outcome there, in words, and the numbers."""

    claim: str
    outcome: str
    says: str
    numbers: dict[str, float]


def read(folder: Path) -> list[Run]:
    """The recorded runs of a study's folder (`left_out` names the others), or the one of a run's folder.

    Raises AuditError for a folder that is neither, a run without the record, and files that make no sense.
    """
    if (folder / CONFIG).is_file():
        settings, places = _places(folder)
        if not places:
            raise AuditError(f"{folder}: no run of {OPTIMIZER} there; train with --optimizer {OPTIMIZER}")
        recorded = [place for place in places if (place / CLAIMS).is_file()]
        return [_run(place, settings) for place in recorded or places[:1]]
    if (folder / METRICS).is_file() or (folder / CLAIMS).is_file():
        config = folder.absolute().parent / CONFIG
        if not config.is_file():
            raise AuditError(f"{config}: no such file; expected the settings of the run beside its folder")
        return [_run(folder, _config(config)[0])]
    raise AuditError(
        f"{folder}: expected the folder of a run or of a study, with {CLAIMS} or {CONFIG} in it; "
        "python -m gpu train --record-claims makes one"
    )


def left_out(folder: Path) -> list[str]:
    """Why runs of a study have no record, where others have one: `read` goes without them."""
    if not (folder / CONFIG).is_file():
        return []
    settings, places = _places(folder)
    return [_no_record(place, settings) for place in places if not (place / CLAIMS).is_file()]


def findings(run: Run) -> list[Finding]:
    """A row a claim that a run can say something of."""
    steps, epochs = run.total("batches"), len(run.rows)
    lr = f"η = {run.rows[-1]['lr']:g}"
    decay, l2 = run.settings["weight_decay"], run.settings["decay"] == "l2"
    monotone = run.settings["step_rule"] == "monotone"
    if monotone:
        lr += " as set, capped on each mini-batch by the monotone rule"

    def bound(claim: str, name: str, formula: str) -> Finding:
        exceeded, least = run.total(f"{name}_exceeded"), run.least(f"{name}_min")
        typical = sorted(row[f"{name}_median"] for row in run.rows)[epochs // 2]
        says = (
            f"{lr}; {formula}: smallest {least:.4g}, median {typical:.4g}; exceeded on {_of(exceeded, steps, 'steps')}"
        )
        outcome = HELD if exceeded == 0 or (monotone and name == "data_bound") else UNCOVERED
        return Finding(claim, outcome, says, {"exceeded": exceeded, "smallest": least, "median": typical})

    def rises(claim: str, name: str, what: str) -> Finding:
        count, largest = run.total(f"{name}_rises"), run.most(f"{name}_largest_rise")
        says = f"{what} raised the mini-batch's loss on {_of(count, steps, 'steps')}"
        says += f", by up to {largest:.4g}" * (count > 0)
        return Finding(claim, _held(count == 0), says, {"rises": count, "largest": largest})

    # With an L2 term, J alone may rise in a step within 4/λ_max(K): the claim that covers it has a bound of its own.
    covering = "mini-batch-mean" if decay == 0 else "weight-decay-preconditioned"
    unexplained = run.total("layer_unexplained")
    found = [
        rises("convergence-theorem", "layer", "the last layer's own step"),
        bound("mini-batch-mean", "mean_bound", "4/λ_max(K)"),
        bound("mini-batch-data-dependent", "data_bound", "8⟨R, KR⟩/Σ range²"),
    ]
    if decay > 0 and l2:
        found.append(bound("weight-decay-preconditioned", "l2_bound", "4/λ_max with the L2 term"))
    if decay > 0 and not l2:
        found.append(rises("weight-decay-decoupled", "layer", "the last layer's own step, W shrunk first,"))
    if unexplained:
        index = next(k for k, finding in enumerate(found) if finding.claim == covering)
        says = f"CONTRADICTED: the loss rose on {unexplained} steps with η within it; {found[index].says}"
        found[index] = Finding(covering, FAILED, says, {**found[index].numbers, "contradicted": unexplained})
    found.append(rises("earlier-layers-moving", "step", "the whole step"))

    indefinite = run.total("indefinite")
    says = f"K was indefinite on {_of(indefinite, steps, 'steps')}"
    found.append(Finding("rounded-or-indefinite-kernel", _held(indefinite == 0), says, {"indefinite": indefinite}))
    unmoved = run.rows[-1]["weights_unmoved"]
    says = f"{unmoved:.2%} of the last layer's weights have never moved"
    found.append(Finding("padding-trains-the-layer", _held(unmoved == 0), says, {"unmoved": unmoved}))
    if run.settings["bias"] == "augmented":
        unmoved = run.rows[-1]["biases_unmoved"]
        says = f"{unmoved:.2%} of the last layer's biases have never moved"
        found.append(Finding("bias-as-an-element-of-w", _held(unmoved == 0), says, {"unmoved": unmoved}))

    pseudoinverses = int(run.most("pseudoinverses"))
    low, high = run.least("condition_min"), run.most("condition_max")
    typical = sorted(row["condition_median"] for row in run.rows)[epochs // 2]
    matrices = "H" if run.settings["ridge"] == 0 else "H + ridge·I"
    says = f"κ₂({matrices}): {low:.3g} to {high:.3g}, median {typical:.3g}; {pseudoinverses} took the pseudoinverse"
    numbers = {"smallest": low, "median": typical, "largest": high, "pseudoinverses": pseudoinverses}
    found.append(Finding("kernel-matrix-is-invertible", _held(pseudoinverses == 0), says, numbers))

    changes = [after - before for before, after in pairwise(run.losses)]
    rose, largest = sum(change > 0 for change in changes), max(changes, default=0.0)
    says = f"the mean loss rose in {_of(rose, len(changes), 'epochs after the first')}"
    says += f", by up to {largest:.4g}" * (rose > 0)
    found.append(
        Finding("guaranteed-to-converge", _held(rose == 0), says, {"rises": rose, "largest": max(0.0, largest)})
    )
    return found


def as_json(runs: Sequence[Run]) -> dict[str, Any]:
    """{"runs": [{"run", "epochs", "steps", "claims": [{"claim", "outcome", "says", "numbers"}]}]}; ∞ is null."""
    return {
        "runs": [
            {
                "run": run.name,
                "epochs": len(run.rows),
                "steps": run.total("batches"),
                "claims": [
                    {
                        "claim": found.claim,
                        "outcome": found.outcome,
                        "says": found.says,
                        "numbers": {k: v if math.isfinite(v) else None for k, v in found.numbers.items()},
                    }
                    for found in findings(run)
                ],
            }
            for run in runs
        ]
    }


def plot(runs: Sequence[Run], path: Path) -> bool:
    """η and its bounds, mini-batches whose loss rose, weights that never moved and condition numbers, epoch by epoch.

    False where matplotlib is not installed. Raises AuditError for an ending that is neither .svg nor .png.
    """
    if path.suffix not in (".svg", ".png"):
        raise AuditError(f"{path}: expected a file ending in .svg or .png")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 7), layout="constrained")
    (steps, rises), (moved, condition) = figure.subplots(2, 2)
    for number, run in enumerate(runs):
        first = number == 0
        _lines(steps, run, {"lr": ("k", "η"), "mean_bound_min": ("C0", "smallest 4/λ_max(K)")}, first)
        _lines(steps, run, {"data_bound_min": ("C1", "smallest 8⟨R, KR⟩/Σ range²")}, first)
        _lines(steps, run, {"mean_bound_median": ("C0:", "their medians"), "data_bound_median": ("C1:", None)}, first)
        _lines(rises, run, {"step_rises": ("C2", "whole step"), "layer_rises": ("C3--", "last layer's own")}, first)
        _lines(moved, run, {"weights_unmoved": ("C4", "weights"), "biases_unmoved": ("C5:", "biases")}, first)
        _lines(condition, run, {"condition_min": ("C0:", "smallest"), "condition_max": ("C0--", "largest")}, first)
        _lines(condition, run, {"condition_median": ("C0", "median")}, first)
    steps.set(title="η and what the claims allow it to be", yscale="log")
    rises.set(title="mini-batches whose loss rose", ylabel="mini-batches of an epoch", ylim=(0, None))
    moved.set(title="share of the last layer that has never moved", ylim=(-0.02, 1.02))
    condition.set(title="κ₂ of the kernel matrices", yscale="log")
    for axes in (steps, rises, moved, condition):
        axes.set_xlabel("epoch")
        axes.legend(fontsize="small", ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format=path.suffix[1:], dpi=150)
    os.replace(part, path)
    return True


def _lines(axes: Any, run: Run, columns: dict[str, tuple[str, str | None]], labelled: bool) -> None:
    epochs = [row["epoch"] for row in run.rows]
    for column, (style, label) in columns.items():
        # Bounds that are 0 or ∞ have no place on a logarithmic axis.
        shares = column.endswith(("_rises", "_unmoved"))
        values = [row[column] if shares or 0 < row[column] < math.inf else math.nan for row in run.rows]
        # A single epoch is a point, not a line.
        marker = "." if len(epochs) == 1 else ""
        axes.plot(epochs, values, style, marker=marker, linewidth=1.2, label=label if labelled else None)


def _held(held: bool) -> str:
    return HELD if held else FAILED


def _of(count: int, total: int, what: str) -> str:
    return f"none of {total} {what}" if count == 0 else f"{count} of {total} {what}"


def _config(path: Path) -> tuple[dict[str, Any], list[int]]:
    """The settings of a study, and its seeds where Kernel SGD takes part."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = {"record_claims": False, **config["settings"]}
        for name, kind in SETTINGS.items():
            if not isinstance(settings[name], (int, float) if kind is float else kind):
                raise ValueError(f"{name} is {settings[name]!r}")
        seeds = [int(seed) for seed in config["seeds"]] if OPTIMIZER in config["optimizers"] else []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AuditError(f"{path}: not the configuration of a study ({error!r}); {RECORD}") from error
    return settings, seeds


def _places(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """The settings of a study, and the folders of its runs that could have a record."""
    settings, seeds = _config(folder / CONFIG)
    return settings, [place for seed in seeds if (place := folder / f"{OPTIMIZER}-seed{seed}").is_dir()]


def _run(folder: Path, settings: dict[str, Any]) -> Run:
    if not (folder / CLAIMS).is_file():
        raise AuditError(_no_record(folder, settings))
    rows = _table(folder / CLAIMS, COLUMNS, _check_row)
    losses = [row["loss"] for row in _table(folder / METRICS, {"epoch", "loss"}, _check_loss)]
    # The trainer writes one after the other: an interruption between the two leaves one epoch more in the first.
    if not len(rows) <= len(losses) <= len(rows) + 1:
        raise _damaged(folder / CLAIMS, f"it has {len(rows)} epochs, {METRICS} has {len(losses)}")
    return Run(folder.absolute().name, settings, losses[: len(rows)], rows)


def _no_record(folder: Path, settings: dict[str, Any]) -> str:
    if not folder.absolute().name.startswith(OPTIMIZER):
        return f"{folder / CLAIMS}: no such file, since only runs of {OPTIMIZER} have a record; name one of those"
    if not settings["record_claims"]:
        return f"{folder / CLAIMS}: no such file, since this run has not recorded it; {RECORD}"
    if (folder / FAILURE).is_file():
        return f"{folder / CLAIMS}: no such file, since this run failed in its first epoch ({FAILURE}); lower lr"
    return f"{folder / CLAIMS}: no such file, no epoch is done; python -m gpu train --resume {folder.parent}"


def _table(path: Path, expected: set[str], check: Callable[[Row], None]) -> list[Row]:
    """The rows of a CSV file as numbers, the epochs numbered from 1; the columns that are expected, at least."""
    try:
        text = path.read_text(encoding="utf-8")
        header, *lines = csv.reader(text.splitlines())
        if missing := expected - set(header):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        if not lines or not text.endswith("\n"):
            raise ValueError("expected rows, the last one whole")
        rows = [dict(zip(header, map(float, line), strict=True)) for line in lines]
        for number, row in enumerate(rows, 1):
            if row["epoch"] != number:
                raise ValueError(f"expected epoch {number}, got {row['epoch']:g}")
            check(row)
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, str(error)) from error


def _check_loss(row: Row) -> None:
    _require(row, "loss", math.isfinite(row["loss"]))


def _check_row(row: Row) -> None:
    for name in COLUMNS:
        _require(row, name, row[name] >= 0)  # not NaN either
    for name in ("batches", "stalled", *COUNTS):
        _require(row, name, row[name].is_integer())
    for name in COUNTS:
        _require(row, name, row[name] <= row["batches"])
    _require(row, "batches", row["batches"] >= 1)
    _require(row, "lr", math.isfinite(row["lr"]))
    for name in SHARES:
        _require(row, name, row[name] <= 1)
    for low, high in SPREADS:
        _require(row, high, row[low] <= row[high])
    for count, largest in RISES:
        _require(row, largest, (row[largest] > 0) == (row[count] > 0))
    _require(row, "layer_unexplained", row["layer_unexplained"] <= row["layer_rises"])


def _require(row: Row, name: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"epoch {row['epoch']:g}: {name} is {row[name]:g}")


def _damaged(path: Path, why: str) -> AuditError:
    return AuditError(
        f"{path}: damaged ({why}); remove {path.with_name(RESULT)}, if it is there, and resume, which writes it again"
    )
