"""Interleaved timing: what is compared takes turns in one process, so that a slow moment of the machine meets all."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time
from typing import Any

from rich.console import Console
from rich.progress import Progress

Seconds = dict[str, list[float]]
Clock = Callable[[], float]


def clock(threads: int) -> Clock:
    """The clock for work on the processor: of one thread its own time, which other processes cannot lengthen."""
    return process_time if threads == 1 else perf_counter


def interleaved(
    tasks: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: int = 1, clock: Clock = perf_counter
) -> Seconds:
    """Seconds of every task in every round, after `warm_up` rounds that do not count. Each round begins with another
    task, so that none always follows the same one."""
    names = list(tasks)
    seconds: Seconds = {name: [] for name in names}
    console = Console(stderr=True)
    # Drawn between the rounds alone: a thread that draws would be timed too.
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        rounds = progress.add_task("rounds", total=warm_up + repeats)
        for turn in range(-warm_up, repeats):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                started = clock()
                tasks[name]()
                if turn >= 0:
                    seconds[name].append(clock() - started)
            progress.advance(rounds)
            progress.refresh()
    return seconds


def paired_ratios(numerator: list[float], denominator: list[float]) -> tuple[float, list[float]]:
    """Median of the rounds' ratios, and their smallest and largest."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return median(ratios), [min(ratios), max(ratios)]


def against(baseline: str, seconds: Seconds) -> dict[str, Any]:
    """`ratio_to_…` of all others to the baseline, the median over rounds, and their `spread`, least and most."""
    ratios = {name: paired_ratios(seconds[name], seconds[baseline]) for name in seconds if name != baseline}
    return {
        f"ratio_to_{baseline}": {name: ratio for name, (ratio, _) in ratios.items()},
        "spread": {name: spread for name, (_, spread) in ratios.items()},
    }
