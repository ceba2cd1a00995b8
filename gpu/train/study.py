"""A study: runs of several optimizers and seeds on one data set, in one folder that can be resumed at any moment.

    FOLDER/config.json                      everything that determines the runs
    FOLDER/kernel-sgd-seed0/…               metrics.csv and checkpoint.safetensors of `fit`, result.json once finished,
                                            failure.json where the loss, or an inverse, was not finite
    FOLDER/summary.json, plot.png           at the end

The folder appears with its config.json in it, in one step: there is no moment at which it could not be resumed.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import torch
from scipy.special import stdtrit

from gpu.train.checkpoint import write_text
from gpu.train.data import Dataset, load, stand_in
from gpu.train.errors import CheckpointError, UsageError
from gpu.train.loop import Result, Row, fit
from gpu.train.provenance import provenance
from gpu.train.settings import Settings
from gpu.train.tensorboard import logged

CONFIG, RESULT, FAILURE, SUMMARY = "config.json", "result.json", "failure.json", "summary.json"


@dataclass(frozen=True)
class Failure:
    """A run that a number which is not finite has ended: as good as finished, since it would end there again."""

    optimizer: str
    seed: int
    message: str


Record = TypeVar("Record", Result, Failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Data, optimizers and seeds; `settings` holds for all runs but for its optimizer and seed."""

    data: str
    data_dir: str | None
    scaling: str
    optimizers: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Settings

    def __post_init__(self) -> None:
        if not self.runs:  # builds them all: an unknown optimizer is an error before the first run, not before its own
            raise UsageError("optimizers and seeds: expected at least one of each")

    @property
    def runs(self) -> list[Settings]:
        """Seed by seed, so that an unfinished study has whole pairs."""
        return [
            replace(self.settings, optimizer=optimizer, seed=seed)
            for seed in self.seeds
            for optimizer in self.optimizers
        ]

    def load_data(self) -> Dataset:
        return load(self.data, None if self.data_dir is None else Path(self.data_dir), scaling=self.scaling)


def create(study: Study, data: Dataset, folder: Path, *, ranks: int | None = None) -> None:
    """Make the study's folder, of a run on so many ranks where it is one of `gpu.train.parallel`.

    Raises UsageError where there is something of that name that is no empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder}: exists and is not empty; continue it with --resume {folder}, or name another --out"
        )
    require_device(study.settings.device)
    parallel = {} if ranks is None else {"ranks": ranks}
    config = json.dumps({**asdict(study), **parallel, "fingerprint": data.fingerprint(), **provenance()}, indent=1)
    if folder.exists():
        write_text(folder / CONFIG, config)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as place:
        made = Path(place) / "study"
        made.mkdir()
        write_text(made / CONFIG, config)
        os.replace(made, folder)


def reopen(folder: Path, *, data_dir: Path | None = None, ranks: bool = False) -> tuple[Study, Dataset]:
    """The study of a folder, and its data, read again (from `data_dir` where the data has moved since).

    `ranks`: whether it must be one of `gpu.train.parallel`, or none. Raises UsageError (no study, or not such a one)
    and CheckpointError (its config is damaged, or the data is not what it was).
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UsageError(f"{folder}: no {CONFIG} there, so nothing to resume; expected the folder of an earlier run")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {"network": "mlp", **config["settings"]}  # the only network where none is named
        settings = Settings(**{**kept, "hidden": tuple(kept["hidden"])})
        study = Study(
            data=config["data"],
            data_dir=config["data_dir"] if data_dir is None else str(data_dir.absolute()),
            scaling=config["scaling"],
            optimizers=tuple(config["optimizers"]),
            seeds=tuple(config["seeds"]),
            settings=settings,
        )
        fingerprint = config["fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: not the configuration of a study ({error!r})") from error
    if ("ranks" in config) != ranks:
        command = "torchrun -m gpu.train.parallel" if "ranks" in config else "python -m gpu train"
        raise UsageError(f"{folder}: continue it as it was begun, with {command} --resume {folder}")
    require_device(settings.device)
    data = study.load_data()
    if data.fingerprint() != fingerprint:
        raise CheckpointError(f"{path}: its runs began with other data than {study.data} holds now; start anew")
    return study, data


def run(
    study: Study,
    data: Dataset,
    folder: Path,
    *,
    on_epoch: Callable[[Settings, Row], None] = lambda *_: None,
    on_result: Callable[[Result | Failure], None] = lambda _: None,
    tensorboard: bool = False,
) -> list[Result | Failure]:
    """Do the study's runs; those finished or failed before are read, not repeated."""
    torch.set_num_threads(study.settings.threads)
    results: list[Result | Failure] = []
    for settings in study.runs:
        place = folder / settings.run_name
        result = run_one(settings, data, place, on_epoch=partial(on_epoch, settings), tensorboard=tensorboard)
        on_result(result)
        results.append(result)
    return results


def run_one(
    settings: Settings,
    data: Dataset,
    place: Path,
    *,
    on_epoch: Callable[[Row], None] = lambda _: None,
    tensorboard: bool = False,
) -> Result | Failure:
    """The run in the folder `place`: read if it has finished or failed before, gone on with if it was interrupted; with
    `tensorboard`, logged there as well."""
    place.mkdir(parents=True, exist_ok=True)
    finished = read_result(place)
    if finished is not None:
        return finished
    result: Result | Failure
    with logged(place) if tensorboard else nullcontext() as log:

        def epoch_done(row: Row) -> None:
            on_epoch(row)
            if log is not None:
                log(row)

        try:
            result, file = fit(settings, data, place, on_epoch=epoch_done), RESULT
        except FloatingPointError as error:
            result, file = Failure(settings.optimizer, settings.seed, str(error)), FAILURE
    write_text(place / file, json.dumps(asdict(result), indent=1))
    return result


def read_result(place: Path) -> Result | Failure | None:
    """What a run in this folder came to; None where it has not ended."""
    if (place / RESULT).exists():
        return _read(Result, place / RESULT)
    if (place / FAILURE).exists():
        return _read(Failure, place / FAILURE)
    return None


def require_device(device: str) -> None:
    """Raises UsageError for a device that this machine, or this build of torch, does not have."""
    try:
        torch.zeros(1, device=device).item()  # "meta" makes tensors, but has no numbers
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device: cannot use {device!r} here ({str(error).splitlines()[0]})") from error


def summarise(
    study: Study, results: Sequence[Result | Failure], paper: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """What the runs say: per optimizer mean and standard deviation over seeds; the paired differences of test accuracy
    of the first optimizer, kernel-sgd where it takes part, and every other, with their 95 % t-intervals. Accuracies are
    fractions. Runs that failed are listed, and count in nothing else: an optimizer without a finished run has no
    figures. `paper`: its own figures, by optimizer, to stand beside ours."""
    finished = [r for r in results if isinstance(r, Result)]
    by_optimizer = {name: [r for r in finished if r.optimizer == name] for name in study.optimizers}
    by_optimizer = {name: runs for name, runs in by_optimizer.items() if runs}
    first = "kernel-sgd" if "kernel-sgd" in study.optimizers else study.optimizers[0]
    accuracies = {name: {r.seed: r.test_accuracy for r in runs} for name, runs in by_optimizer.items()}
    pairs = {
        name: [(accuracies[first][seed], a) for seed, a in accuracies[name].items() if seed in accuracies[first]]
        for name in by_optimizer
        if name != first and first in by_optimizer
    }
    return {
        "data": study.data,
        "stand_in": stand_in(study.data),
        "scaling": study.scaling,
        "seeds": list(study.seeds),
        "settings": asdict(study.settings),
        "optimizers": {name: _figures(runs) for name, runs in by_optimizer.items()},
        "failed": [asdict(r) for r in results if isinstance(r, Failure)],
        "paired_differences": {
            f"{first} - {name}": paired_difference(*zip(*both, strict=True)) for name, both in pairs.items() if both
        },
        "paper": {name: dict(figures) for name, figures in (paper or {}).items() if name in by_optimizer},
        **provenance(),
    }


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    write_text(folder / SUMMARY, json.dumps(summary, indent=1))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Mean of aᵢ − bᵢ and its 95 % interval by Student's t; the interval is None for a single pair."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, n = fmean(differences), len(differences)
    if n == 1:
        return {"mean": mean, "interval": None, "n": n}
    half = float(stdtrit(n - 1, 0.975)) * stdev(differences) / n**0.5
    return {"mean": mean, "interval": [mean - half, mean + half], "n": n}


def _figures(runs: Sequence[Result]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return fmean(getattr(r, name) for r in runs)

    def spread(name: str) -> float | None:
        return stdev(getattr(r, name) for r in runs) if len(runs) > 1 else None

    accuracies = ("test_accuracy", "last_test_accuracy", "validation_accuracy", "train_accuracy")
    return {
        **{name: {"mean": mean(name), "sd": spread(name)} for name in (*accuracies, "epochs", "seconds")},
        "cache_seconds": mean("cache_seconds"),
        "inverse_bytes": runs[0].inverse_bytes,
        "pseudoinverses": max(r.pseudoinverses for r in runs),
        "stalled": sum(r.stalled for r in runs),
        "settled": sum(r.settled for r in runs),
    }


def _read(kind: type[Record], path: Path) -> Record:
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); remove it and resume again") from error
