"""Building the kernel cache for more and more instances, which lie in a file, into a file: time and memory."""

import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from gpu.optim import KernelCache, mini_batches
from gpu.train.errors import UsageError
from gpu.train.provenance import provenance
from gpu.train.report import save_figure

STATUS = Path("/proc/self/status")
PART = 10_000  # instances drawn at once


def scale(*, sizes: Sequence[int], d: int, m: int, gamma: float, budget: int, repeats: int) -> dict[str, Any]:
    """Seconds and memory for the inverses of n uniform instances of d features in float32, in mini-batches of m, for
    every n of `sizes`; one thread.

    `exponent`: that of the power law through the median seconds. `peak_bytes`: by how much the memory of the process
    that no file backs grew while it built, at most; `budget_bytes` are for the workspace. Every build is a process of
    its own; the sizes take turns. Raises UsageError for fewer than two sizes, one below m, and where the system does
    not say how much memory a process takes.
    """
    if len(set(sizes)) < 2 or min(sizes) < m:
        raise UsageError(f"n: expected at least two different numbers of instances, each at least m = {m}, got {sizes}")
    if not STATUS.exists():
        raise UsageError(f"bench scale: reads a process's memory from {STATUS}, which is not there")
    found: dict[int, list[tuple[float, int]]] = {n: [] for n in sizes}
    turns = [n for _ in range(repeats) for n in sizes]
    console = Console(stderr=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for n in track(turns, description="builds", console=console, transient=True, disable=not console.is_terminal):
            found[n].append(pool.submit(_build, n, d, m, gamma, budget).result())
    seconds = {n: float(np.median([taken for taken, _ in builds])) for n, builds in found.items()}
    return {
        "exponent": exponent(seconds),
        "seconds": seconds,
        "seconds_of_all": {n: [taken for taken, _ in builds] for n, builds in found.items()},
        "peak_bytes": {n: max(peak for _, peak in builds) for n, builds in found.items()},
        "stored_bytes": {n: n * m * 4 for n in found},
        "input_bytes": {n: n * d * 4 for n in found},
        "budget_bytes": budget,
        "d": d,
        "m": m,
        "gamma": gamma,
        "repeats": repeats,
        "threads": 1,
        **provenance(),
    }


def exponent(seconds: Mapping[int, float]) -> float:
    """e of the power law c·nᵉ through seconds by n, by least squares over logarithms."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def _build(n: int, d: int, m: int, gamma: float, budget: int) -> tuple[float, int]:
    """Seconds of a build, and how much memory without a file behind it that took."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        mapped = np.memmap(Path(folder) / "X", np.float32, "w+", shape=(n, d))
        random = np.random.default_rng(0)
        for start in range(0, n, PART):
            part = mapped[start : start + PART]
            part[:] = random.random(part.shape, dtype=np.float32)
        X, batches = torch.from_numpy(mapped), mini_batches(n, m, seed=0)
        KernelCache(X[:m], mini_batches(m, m, seed=0), gamma=gamma, folder=folder)  # loads the libraries
        before, peak = _anonymous(), 0

        def look(_: int) -> None:
            nonlocal peak
            peak = max(peak, _anonymous() - before)

        started = perf_counter()
        KernelCache(X, batches, gamma=gamma, memory_budget=budget, folder=folder, progress=look)
        return perf_counter() - started, peak


def _anonymous() -> int:
    """Bytes of resident memory that no file backs."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def plot(figures: dict[str, Any], path: Path) -> None:
    """Seconds, with the fitted law, and memory over n."""
    from matplotlib.figure import Figure

    sizes = np.array(list(figures["seconds"]), float)
    seconds = np.array(list(figures["seconds"].values()))
    figure: Figure = Figure(figsize=(10, 4), layout="constrained")
    time, memory = figure.subplots(1, 2)
    power = sizes ** figures["exponent"]
    time.loglog(sizes, seconds, "o", label="median")
    level = np.exp(np.mean(np.log(seconds / power)))
    time.loglog(sizes, level * power, "-", linewidth=1, label=f"∝ n^{figures['exponent']:.3f}")
    time.set(xlabel="instances n", ylabel="seconds")
    time.legend()
    for name, label in (("input_bytes", "input file"), ("stored_bytes", "inverses' file"), ("peak_bytes", "memory")):
        memory.loglog(sizes, np.array(list(figures[name].values())) / 2**20, "o-", label=label)
    memory.axhline(figures["budget_bytes"] / 2**20, color="grey", linestyle=":", label="budget")
    memory.set(xlabel="instances n", ylabel="MiB")
    memory.legend()
    figure.suptitle(f"Kernel cache, {figures['d']} features, mini-batches of {figures['m']}, one thread")
    save_figure(figure, path)
