"""How a study looks: a progress bar while it runs, one table at the end, and a plot."""

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gpu.train.loop import METRICS, Result, Row
from gpu.train.settings import Settings
from gpu.train.study import Study

PLOT = "plot.png"


@contextmanager
def progress(
    study: Study, console: Console
) -> Iterator[tuple[Callable[[Settings, Row], None], Callable[[Result], None]]]:
    """Callbacks for `study.run`: a bar with epoch, loss and validation accuracy on a terminal; a line a finished run
    everywhere."""

    def finished(result: Result) -> None:
        console.print(
            f"{result.optimizer}, seed {result.seed}: test {result.test_accuracy:.2%} (validation best in epoch "
            f"{result.best_epoch}), {result.epochs} epochs, {result.seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=study.settings.epochs, state="loading")

        def epoch_done(settings: Settings, row: Row) -> None:
            state = f"epoch {row['epoch']:.0f}  loss {row['loss']:.4f}  validation {row['validation_accuracy']:.2%}"
            bar.update(task, description=settings.run_name, completed=row["epoch"], state=state)

        yield epoch_done, finished


def table(summary: dict[str, Any]) -> Table:
    """The summary as a table; where the data is one of the paper's, with its figures in a column of their own."""
    seeds, paper = summary["seeds"], summary["paper"]
    made = Table(title=f"{summary['data']}: mean ± standard deviation over {len(seeds)} seed{'s'[: len(seeds) > 1]}")
    made.add_column("optimizer", no_wrap=True)
    for heading in (
        "test %",
        *(["paper's test %"] if paper else []),
        "train %",
        "epochs",
        "seconds",
        "cache s",
        "inverses",
    ):
        made.add_column(heading, justify="right", no_wrap=True)
    for name, figures in summary["optimizers"].items():
        preconditioned = figures["inverse_bytes"] > 0
        made.add_row(
            name,
            _plus_minus(figures["test_accuracy"], 100),
            *([f"{paper[name]['test_acc']:.2f} ± {paper[name]['test_acc_std']:.2f}"] if paper else []),
            _plus_minus(figures["train_accuracy"], 100),
            _plus_minus(figures["epochs"], digits=0),
            _plus_minus(figures["seconds"], digits=1),
            f"{figures['cache_seconds']:.2f}" if preconditioned else "",
            f"{figures['inverse_bytes'] / 2**20:.2f} MiB" if preconditioned else "",
        )
    return made


def notes(summary: dict[str, Any]) -> list[str]:
    """What the table leaves unsaid: paired differences of test accuracy, in percentage points; singular matrices."""
    lines = []
    for name, difference in summary["paired_differences"].items():
        pairs, span = difference["n"], "no interval"
        if interval := difference["interval"]:
            span = f"95 % interval [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
        lines.append(f"{name}: {100 * difference['mean']:+.2f} points, {span} ({pairs} pair{'s'[: pairs > 1]})")
    for name, figures in summary["optimizers"].items():
        if count := figures["pseudoinverses"]:
            lines.append(f"{name}: {count} mini-batches with singular kernel matrices, pseudoinverses were used")
        if count := figures["stalled"]:
            lines.append(f"{name}: the monotone rule took no step on {count} mini-batches")
    return lines


def plot(study: Study, folder: Path) -> bool:
    """Loss and accuracies per epoch of every run, as FOLDER/plot.png; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    worst = 100.0
    for number, settings in enumerate(study.runs):
        with (folder / settings.run_name / METRICS).open(newline="", encoding="utf-8") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        colour = f"C{study.optimizers.index(settings.optimizer)}"
        label = settings.optimizer if number < len(study.optimizers) else None
        epochs = [row["epoch"] for row in rows]
        worst = min(worst, 100 * rows[-1]["test_accuracy"], 100 * rows[-1]["validation_accuracy"])
        left.plot(epochs, [row["loss"] for row in rows], colour, linewidth=1, label=label)
        right.plot(epochs, [100 * row["validation_accuracy"] for row in rows], colour, linewidth=1, linestyle=":")
        right.plot(epochs, [100 * row["test_accuracy"] for row in rows], colour, linewidth=1, label=label)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    # The first epochs' accuracies are not what one looks for: let the scale serve the last ones.
    right.set(xlabel="epoch", ylabel="accuracy % (test; dotted: validation)", ylim=(max(0.0, worst - 5), 100.2))
    left.legend()
    part = folder / f".{PLOT}.part"
    figure.savefig(part, format="png", dpi=150)
    os.replace(part, folder / PLOT)
    return True


def _plus_minus(figure: dict[str, Any], scale: float = 1, digits: int = 2) -> str:
    spread = "" if figure["sd"] is None else f" ± {scale * figure['sd']:.{digits}f}"
    return f"{scale * figure['mean']:.{digits}f}{spread}"
