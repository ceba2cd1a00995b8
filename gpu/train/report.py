"""How a study looks: a progress bar while it runs, one table at the end, and a plot."""

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gpu.train.data import stand_in
from gpu.train.errors import CheckpointError
from gpu.train.loop import METRICS, Result, Row
from gpu.train.settings import Settings
from gpu.train.study import RESULT, Failure, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "plot.png"


@contextmanager
def progress(
    study: Study, console: Console
) -> Iterator[tuple[Callable[[Settings, Row], None], Callable[[Result | Failure], None]]]:
    """Callbacks for `study.run`: a bar with epoch, loss and validation accuracy on a terminal; a line a finished or
    failed run everywhere."""

    def finished(result: Result | Failure) -> None:
        outcome = (
            f"failed: {result.message}"
            if isinstance(result, Failure)
            else f"test {result.test_accuracy:.2%} (validation best in epoch {result.best_epoch}), "
            f"{result.epochs} epochs, {result.seconds:.1f} s"
        )
        line = f"{result.optimizer}, seed {result.seed}: {outcome}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=study.settings.epochs, state="loading")

        def epoch_done(settings: Settings, row: Row) -> None:
            state = f"epoch {row['epoch']:.0f}  loss {row['loss']:.4f}  validation {row['validation_accuracy']:.2%}"
            bar.update(task, description=settings.run_name, completed=row["epoch"], state=state)

        yield epoch_done, finished


def table(summary: dict[str, Any]) -> Table:
    """The summary as a table; the paper's figures, where the data is one of its own, and the numbers of failed runs,
    where there are any, in columns of their own."""
    seeds, paper = summary["seeds"], summary["paper"]
    failed = Counter(failure["optimizer"] for failure in summary["failed"])
    title = titled(summary["data"], summary["stand_in"])
    made = Table(title=f"{title}: mean ± standard deviation over {len(seeds)} seed{'s'[: len(seeds) > 1]}")
    made.add_column("optimizer", no_wrap=True)
    for heading in (
        "test %",
        *(["paper's test %"] if paper else []),
        "train %",
        "epochs",
        "seconds",
        "cache s",
        "Hessian",
        *(["failed"] if failed else []),
    ):
        made.add_column(heading, justify="right", no_wrap=True)
    for name, figures in summary["optimizers"].items():
        preconditioned = figures["cache_seconds"] > 0
        made.add_row(
            name,
            _plus_minus(figures["test_accuracy"], 100),
            *([f"{paper[name]['test_acc']:.2f} ± {paper[name]['test_acc_std']:.2f}"] if paper else []),
            _plus_minus(figures["train_accuracy"], 100),
            _plus_minus(figures["epochs"], digits=0),
            _plus_minus(figures["seconds"], digits=1),
            f"{figures['cache_seconds']:.2f}" if preconditioned else "",
            f"{figures['inverse_bytes'] / 2**20:.2f} MiB" if figures["inverse_bytes"] else "",
            *([f"{failed[name]} of {len(seeds)}"] if failed else []),
        )
    for name in (name for name in failed if name not in summary["optimizers"]):
        made.add_row(name, *[""] * (len(made.columns) - 2), f"{failed[name]} of {len(seeds)}")
    return made


def notes(summary: dict[str, Any]) -> list[str]:
    """What the table leaves unsaid: paired differences of test accuracy, in percentage points; singular matrices."""
    lines = []
    for name, difference in summary["paired_differences"].items():
        lines.append(f"{name}: {points(difference)}")
    for name, figures in summary["optimizers"].items():
        if count := figures["pseudoinverses"]:
            lines.append(f"{name}: {count} mini-batches with singular kernel matrices, pseudoinverses were used")
        if count := figures["stalled"]:
            lines.append(f"{name}: the monotone rule took no step on {count} mini-batches")
    return lines


def points(difference: Mapping[str, Any]) -> str:
    """A `paired_difference` of fractions, in percentage points."""
    pairs, span = difference["n"], "no interval"
    if interval := difference["interval"]:
        span = f"95 % interval [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
    return f"{100 * difference['mean']:+.2f} points, {span} ({pairs} pair{'s'[: pairs > 1]})"


def plot(study: Study, folder: Path) -> bool:
    """Loss and accuracies per epoch of every finished run, as FOLDER/plot.png; False where matplotlib is not installed.

    Raises CheckpointError for a metrics.csv that makes no sense.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    worst, labelled = 100.0, set()
    for settings in study.runs:
        if not (folder / settings.run_name / RESULT).exists():
            continue
        epochs, losses, validation, test = read_metrics(folder / settings.run_name / METRICS)
        colour = f"C{study.optimizers.index(settings.optimizer)}"
        label = None if settings.optimizer in labelled else settings.optimizer
        labelled.add(settings.optimizer)
        worst = min(worst, test[-1], validation[-1])
        left.plot(epochs, losses, colour, linewidth=1, label=label)
        right.plot(epochs, validation, colour, linewidth=1, linestyle=":")
        right.plot(epochs, test, colour, linewidth=1, label=label)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    # The first epochs' accuracies are not what one looks for: let the scale serve the last ones.
    right.set(xlabel="epoch", ylabel="accuracy % (test; dotted: validation)", ylim=(max(0.0, worst - 5), 100.2))
    left.legend()
    figure.suptitle(titled(study.data, stand_in(study.data)))
    save_figure(figure, folder / PLOT)
    return True


def save_figure(figure: "Figure", path: Path) -> None:
    """Replace the picture at `path`, all at once."""
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=150)
    os.replace(part, path)


def read_metrics(path: Path) -> tuple[list[float], ...]:
    """Epochs, losses, validation and test accuracies in percent, of a metrics.csv; raises as `read_columns` does."""
    return read_columns(path, {"epoch": 1, "loss": 1, "validation_accuracy": 100, "test_accuracy": 100})


def read_columns(path: Path, scales: Mapping[str, float]) -> tuple[list[float], ...]:
    """Columns of a metrics.csv, each times its scale. Raises CheckpointError where it is damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = tuple([scale * float(row[name]) for row in rows] for name, scale in scales.items())
        if not rows or not all(math.isfinite(value) for column in columns for value in column):
            raise ValueError("expected rows of finite numbers")
        return columns
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: damaged ({error!r}); remove {path.with_name(RESULT)} and resume, which writes both again"
        ) from error


def titled(data: str, stands_for: str) -> str:
    """The name of the data, and what it stands in for."""
    return f"{data} (stand-in for {stands_for})" if stands_for else data


def _plus_minus(figure: dict[str, Any], scale: float = 1, digits: int = 2) -> str:
    spread = "" if figure["sd"] is None else f" ± {scale * figure['sd']:.{digits}f}"
    return f"{scale * figure['mean']:.{digits}f}{spread}"
