"""Seconds until a given validation accuracy, of every optimizer over Kernel SGD, from finished studies of Table 2.

A *block* is one data set and one repeat: the same initial weights, validation split and mini-batches for all. The
accuracy is given per block by a third party, plain SGD: 99 % of the best that it has on that validation split. Neither
Kernel SGD nor its rival has a say in it, so their names could be exchanged: the ratio would be its inverse. (Where SGD
is the rival itself, that favours SGD: it always gets there.)

An optimizer's seconds are those of training until the end of the first epoch with that accuracy; Kernel SGD's have the
building of its inverses in them, and no one's have evaluation. Every optimizer runs as the protocol has chosen it, by
validation accuracy and not by speed; the search is in no one's seconds (Kernel SGD's has 16 settings, the others' 4).

Who never reaches the accuracy before the loss has settled or the epochs are over, or whose loss is not finite, takes
infinitely long: the ratio is infinite where that is the rival, 0 where it is Kernel SGD, and 1, for nobody is faster,
where it is both. All count in the median, and are counted beside it.

The interval takes blocks for independent, and speaks of these data sets alone: blocks of one share its data, and the
settings that were chosen on its first repeat. Seconds compare where nothing else was running, one process a core; a run
that was interrupted has built its inverses twice.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from gpu.experiments.grid import Outcome, Runs
from gpu.experiments.protocol import Arm, Protocol, study
from gpu.train.data import stand_in
from gpu.train.errors import CheckpointError, UsageError
from gpu.train.loop import METRICS
from gpu.train.provenance import provenance
from gpu.train.report import read_columns
from gpu.train.settings import Settings
from gpu.train.study import CONFIG, read_result

OURS, GIVEN_BY, SHARE = "kernel-sgd", "sgd", 0.99
PAPER_S = ("l-bfgs", "esgd", "esgd-li")  # the second-order rivals of its Table 2, ESGD in both readings
PROVENANCE = ("commit", "dirty", "machine", "versions")


@dataclass(frozen=True)
class Block:
    """A data set and a repeat: the accuracy, a fraction, and the seconds until it, infinite where it is not reached."""

    data: str
    repeat: int
    accuracy: float
    seconds: Mapping[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        return {name: ratio(taken, self.seconds[OURS]) for name, taken in self.seconds.items() if name != OURS}


def to_accuracy(folders: Sequence[Path]) -> dict[str, Any]:
    """Every block with its ratios; for every rival, see `summary`, over all blocks of studies that have it; and for
    PAPER_S together, where each block counts once, with the middle one of them (the faster of two).

    Infinite numbers are the string "Infinity". Raises UsageError (no finished study of Table 2, one data set twice, a
    repeat in which SGD has failed) and CheckpointError (damaged files).
    """
    studies = [read_study(folder) for folder in folders]
    names = [config["data"] for config, _ in studies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"folders: expected one study a data set, got more of {', '.join(twice)}")
    blocks = [block for _, found in studies for block in found]
    rivals = list(dict.fromkeys(name for block in blocks for name in block.ratios))
    summaries = {name: summary([b for b in blocks if name in b.ratios], [name]) for name in rivals}
    if paper_s := [name for name in PAPER_S if name in rivals]:
        summaries[", ".join(paper_s)] = summary([b for b in blocks if set(paper_s) & set(b.ratios)], paper_s)
    return {
        "accuracy_given_by": GIVEN_BY,
        "share_of_its_best": SHARE,
        "rivals": summaries,
        "blocks": [
            {
                "data": block.data,
                "repeat": block.repeat,
                "accuracy": block.accuracy,
                "seconds": {name: plain(seconds) for name, seconds in block.seconds.items()},
                "ratios": {name: plain(value) for name, value in block.ratios.items()},
            }
            for block in blocks
        ],
        "studies": [
            {
                "data": config["data"],
                "stand_in": stand_in(config["data"]),
                "protocol": config["protocol"],
                "settings": config["arms"][OURS],
                **{name: config.get(name) for name in PROVENANCE},
            }
            for config, _ in studies
        ],
        **provenance(),
    }


def summary(blocks: Sequence[Block], rivals: Sequence[str]) -> dict[str, Any]:
    """Median, `median_interval`, smallest and largest of the ratios of the blocks, which have some of the rivals each,
    and how often who never reached the accuracy. Of several rivals the one in the middle stands for all."""
    theirs = [median_low([b.seconds[name] for name in rivals if name in b.seconds]) for b in blocks]
    ours = [b.seconds[OURS] for b in blocks]
    values = sorted(map(ratio, theirs, ours))
    never = [(math.isinf(t), math.isinf(o)) for t, o in zip(theirs, ours, strict=True)]
    interval, coverage = median_interval(values)
    return {
        "data": list(dict.fromkeys(b.data for b in blocks)),
        "n": len(values),
        "median": plain(middle(values)),
        "interval": interval and [plain(bound) for bound in interval],
        "coverage": coverage,
        "smallest": plain(values[0]),
        "largest": plain(values[-1]),
        "never": {
            "rival": never.count((True, False)),
            "kernel-sgd": never.count((False, True)),
            "both": never.count((True, True)),
        },
    }


def ratio(theirs: float, ours: float) -> float:
    """theirs / ours; 1 where they are equal, be they infinite or 0."""
    if theirs == ours:
        return 1.0
    return theirs / ours if ours else math.inf


def middle(values: Sequence[float]) -> float:
    """The median of sorted ratios: of an even number the geometric mean of the middle two, so that the inverse ratios
    have the inverse median (of 0 and infinity 1)."""
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    if low == high or math.isinf(high):
        return 1.0 if low == 0 < high else high
    return math.sqrt(low * high)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[list[float] | None, float | None]:
    """[x₍ₖ₎, x₍ₙ₊₁₋ₖ₎] of n sorted values, and with which probability it covers the median, whatever the distribution:
    1 − 2·P(B ≤ k − 1), B binomial (n, ½), k the largest for which that is at least `confidence`; None for n < 6.

    Where blocks of several data sets are not drawn from one distribution, it covers the median of the mixture of theirs
    at least as often (Hoeffding 1956).
    """
    n = len(values)
    coverages = [1 - 2 * sum(math.comb(n, j) for j in range(k)) / 2**n for k in range(1, n // 2 + 1)]
    enough = [coverage for coverage in coverages if coverage >= confidence]
    if not enough:
        return None, None
    return [values[len(enough) - 1], values[-len(enough)]], enough[-1]


def plain(value: float) -> float | str:
    """A number as JSON has it: infinity is none."""
    return "Infinity" if math.isinf(value) else value


def read_study(folder: Path) -> tuple[dict[str, Any], list[Block]]:
    """The configuration and the blocks of a finished study."""
    path = folder / CONFIG
    if not path.is_file():
        raise UsageError(f"{folder}: no {CONFIG} there; expected the folder of a finished study: reproduce table2")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["data"], str):
            raise TypeError(f"data: expected a name, got {config['data']!r}")
        kept = {name: {**given, "hidden": tuple(given["hidden"])} for name, given in config["arms"].items()}
        arms = [Arm(name, Settings(**given)) for name, given in kept.items()]
        grids = {name: tuple(config["protocol"][name]) for name in ("rates", "gammas")}
        protocol, data = Protocol(**{**config["protocol"], **grids}), config["data"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path}: not of a study of Table 2 ({error!r}); expected that of reproduce table2") from error
    if lacking := [name for name in (OURS, GIVEN_BY) if name not in kept]:
        raise UsageError(f"{folder}: expected a study of Table 2 with {OURS} and {GIVEN_BY}, got none of {lacking[0]}")

    def finished(runs: Runs) -> dict[str, Outcome]:
        outcomes = {name: read_result(folder / name) for name in runs}
        if left := [name for name, outcome in outcomes.items() if outcome is None]:
            raise UsageError(f"{folder}: {left[0]} has not ended; the command that began this study goes on with it")
        return {name: outcome for name, outcome in outcomes.items() if outcome is not None}

    curves: dict[str, dict[int, Curve]] = {}
    for found in study(arms, protocol, finished):
        ended = zip(found.results, found.folders, strict=True)
        curves[found.arm.label] = {result.seed: read_curve(folder / run / METRICS) for result, run in ended}
    return config, [block(data, repeat, curves) for repeat in range(protocol.repeats)]


Curve = tuple[list[float], list[float]]  # after every epoch: seconds so far, validation accuracy


def read_curve(path: Path) -> Curve:
    if not path.is_file():
        raise CheckpointError(f"{path}: not there; expected the epochs of a finished run")
    seconds, accuracies = read_columns(path, {"seconds": 1, "validation_accuracy": 1})
    return seconds, accuracies


def block(data: str, repeat: int, curves: Mapping[str, Mapping[int, Curve]]) -> Block:
    """What a repeat came to; a run that is not among the curves has failed. Raises UsageError where that is SGD's."""
    if repeat not in curves[GIVEN_BY]:
        raise UsageError(f"{data}, repeat {repeat}: {GIVEN_BY} has failed, so that no accuracy is given")
    accuracy = SHARE * max(curves[GIVEN_BY][repeat][1])
    seconds = {name: first_reached(runs.get(repeat, ([], [])), accuracy) for name, runs in curves.items()}
    return Block(data, repeat, accuracy, seconds)


def first_reached(curve: Curve, accuracy: float) -> float:
    """The seconds until the end of the first epoch of at least that accuracy; infinite where there is none."""
    return next((seconds for seconds, reached in zip(*curve, strict=True) if reached >= accuracy), math.inf)
