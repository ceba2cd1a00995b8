"""Runs on all cores, in one folder: every finished run is kept, and a stopped grid goes on where it was.

    FOLDER/config.json     the data and the protocol that its runs are of
    FOLDER/NAME/…          each run's folder, as `gpu.train.study.run_one` writes it

A run takes one process with one thread: its numbers do not depend on how many run beside it.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gpu.train.checkpoint import write_text
from gpu.train.data import Dataset, load
from gpu.train.errors import CheckpointError, UsageError
from gpu.train.loop import Result
from gpu.train.provenance import provenance
from gpu.train.settings import Settings
from gpu.train.study import CONFIG, Failure, read_result, run_one

Outcome = Result | Failure
Runs = Mapping[str, Settings]
Runner = Callable[[Runs], dict[str, Outcome]]

# What takes seconds to import: scikit-learn comes with the data, torch._dynamo with the first optimizer.
PRELOADED = ["gpu.experiments.grid", "sklearn.datasets", "sklearn.model_selection", "torch._dynamo"]


@dataclass(frozen=True)
class Source:
    """Data by name, which every process reads for itself."""

    data: str
    data_dir: str | None
    scaling: str

    def load(self) -> Dataset:
        return load(self.data, None if self.data_dir is None else Path(self.data_dir), scaling=self.scaling)


@contextmanager
def workers(
    source: Source,
    folder: Path,
    config: Mapping[str, Any],
    *,
    processes: int | None = None,
    on_outcome: Callable[[str, Outcome], None] = lambda *_: None,
    tensorboard: bool = False,
) -> Iterator[Runner]:
    """A function that does runs, named by their folders within `folder`, and returns what they came to.

    `config` is what all runs of the folder have in common beside the data; `processes` (None) as many as there are
    cores; with `tensorboard`, every run is logged in its folder. Raises UsageError (a folder that holds something else,
    or that another process is at work in; one of our processes killed from outside) and CheckpointError (other data
    than its runs began with, a damaged result).
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            data = {"data": source.data, "scaling": source.scaling, "fingerprint": source.load().fingerprint()}
            _require_config(folder, {**config, **data})
            with _pool(processes or _cores(), source) as pool:
                yield lambda runs: _run(pool, runs, folder, on_outcome, tensorboard)
    except Timeout:
        raise UsageError(f"{folder}: another process is at work there; name another --out, or wait for it") from None


def _run(
    pool: ProcessPoolExecutor,
    runs: Runs,
    folder: Path,
    on_outcome: Callable[[str, Outcome], None],
    tensorboard: bool,
) -> dict[str, Outcome]:
    found = {name: read_result(folder / name) for name in runs}
    outcomes = {name: outcome for name, outcome in found.items() if outcome is not None}
    for name, outcome in outcomes.items():
        on_outcome(name, outcome)
    left = [name for name in runs if name not in outcomes]
    waiting = {pool.submit(_work, runs[name], folder / name, tensorboard): name for name in left}
    try:
        for done in as_completed(waiting):
            outcomes[waiting[done]] = done.result()
            on_outcome(waiting[done], done.result())
    except BrokenProcessPool as error:
        raise UsageError(
            f"{folder}: a process of this study was killed (out of memory?); the same command goes on from here"
        ) from error
    return {name: outcomes[name] for name in runs}


# torch's threads do not survive a fork. The server has none: it imports, once for all processes, and does nothing else.
_context: BaseContext = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _context.set_forkserver_preload(PRELOADED)


@contextmanager
def _pool(processes: int, source: Source) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(processes, _context, _start, (source,)) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():  # what they were at is as old as their last checkpoint
                process.terminate()
            pool.shutdown(cancel_futures=True)  # waits for the pool's thread: Python's exit must not meet it closing
            raise


def _cores() -> int:
    """Those that this process may run on, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The folder's config.json, written where there is none; UsageError where it is of something else."""
    path, expected = folder / CONFIG, json.loads(json.dumps(config))
    if not path.exists():
        if any(place.name != ".lock" for place in folder.iterdir()):
            raise UsageError(f"{folder}: is not empty, and no study of this kind; name another --out")
        write_text(path, json.dumps({**config, **provenance()}, indent=1))
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in expected if held.get(key) != expected[key]]
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not the configuration of a study ({error!r}); name another --out") from error
    if changed == ["fingerprint"]:
        raise CheckpointError(f"{path}: its runs began with other data than {config['data']} holds now; start anew")
    if changed:
        raise UsageError(
            f"{folder}: holds runs with other settings ({', '.join(changed)}); name another --out, or remove it"
        )


# In the processes


@cache
def _data(source: Source) -> Dataset:
    return source.load()


_source: list[Source] = []


def _start(source: Source) -> None:
    """Ctrl-C is the parent's to deal with; and without a parent there is nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _source.append(source)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(settings: Settings, place: Path, tensorboard: bool) -> Outcome:
    return run_one(settings, _data(_source[-1]), place, tensorboard=tensorboard)
