"""One command a table or figure: the study it needs, and what it shows of it.

The same command again goes on with what is there, and shows it once it is all there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from gpu.experiments import figure1, figure2, figure3, figure4, kernels, layers, table1, table2
from gpu.experiments.grid import Outcome, Source, workers
from gpu.experiments.page import Page
from gpu.experiments.protocol import Arm, Finding, Protocol, number_of_runs, study
from gpu.train.data import kind
from gpu.train.errors import UsageError
from gpu.train.loop import Result
from gpu.train.models import described
from gpu.train.settings import Settings


@dataclass(frozen=True)
class Target:
    """What a target trains, in whose folder, and what it shows of that."""

    study: str
    arms: Callable[[Settings], tuple[Arm, ...]]
    page: Callable[[str, Sequence[Finding], Path], Page]


WITHOUT_A_STUDY = ("table1", "figure1")
TARGETS = {
    "table2": Target("optimizers", table2.arms, table2.page),
    "figure2": Target("optimizers", figure2.arms, figure2.page),
    "figure3": Target("optimizers", figure3.arms, figure3.page),
    "figure4": Target("batch-size", figure4.arms, figure4.page),
    "kernels": Target("kernels", kernels.arms, kernels.page),
    "layers": Target("layers", layers.arms, layers.page),
}


def reproduce(
    target: str,
    source: Source,
    settings: Settings,
    protocol: Protocol,
    folder: Path,
    console: Console,
    *,
    optimizers: Sequence[str] | None = None,
    processes: int | None = None,
    tensorboard: bool = False,
) -> Page:
    """Train what is not there yet and show all of it; of Table 2's study only `optimizers`, if any are named. Raises as
    `grid.workers` does, and UsageError for optimizers that the target does not compare; KeyboardInterrupt leaves what
    has finished."""
    if optimizers and (target not in TARGETS or TARGETS[target].study != "optimizers"):
        raise UsageError(f"--optimizer: chooses among those of table2, figure2 and figure3, got it with {target}")
    if target in WITHOUT_A_STUDY:
        folder.mkdir(parents=True, exist_ok=True)
        data = source.load()
        if target == "table1":
            return table1.page(data)
        epochs = min(protocol.epochs, figure1.EPOCHS)
        watched = partial(track, description="slices", console=console, transient=True, disable=not console.is_terminal)
        return figure1.page(data, replace(settings, epochs=epochs, weight_decay=0.0), figure1.OPTIMIZERS, watched)
    needed, network = TARGETS[target], described(kind(source.data), settings)
    arms = needed.arms(settings)
    if unknown := set(optimizers or ()) - {arm.label for arm in arms}:
        names = ", ".join(arm.label for arm in arms)
        raise UsageError(f"optimizer: expected some of {names}, got {', '.join(sorted(unknown))}")
    arms = tuple(arm for arm in arms if not optimizers or arm.label in optimizers)
    config = {"protocol": asdict(protocol), "arms": {arm.label: asdict(arm.settings) for arm in arms}}
    with (
        _progress(number_of_runs(arms, protocol), console) as on_outcome,
        workers(source, folder, config, processes=processes, on_outcome=on_outcome, tensorboard=tensorboard) as run,
    ):
        findings = study(arms, protocol, run)
    page = needed.page(source.data, findings, folder)
    return replace(page, notes=(f"network: {network}", *page.notes))


def folder_of(target: str, data: str, *, quick: bool) -> Path:
    """Where a study goes by default: targets of one study share it."""
    study = TARGETS[target].study if target in TARGETS else target
    return Path("runs") / "reproduce" / "-".join((study, Path(data).name, *(["quick"] if quick else [])))


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[str, Outcome], None]]:
    """A bar with the time left on a terminal, a line a run elsewhere. Repeats that were runs of the grid count once."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    seen: set[str] = set()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("runs", total=total)

        def on_outcome(name: str, outcome: Outcome) -> None:
            if name in seen:
                return
            seen.add(name)
            bar.update(task, completed=len(seen))
            said = (
                f"test {outcome.test_accuracy:.2%}, {outcome.epochs} epochs, {outcome.seconds:.1f} s"
                if isinstance(outcome, Result)
                else f"failed: {outcome.message}"
            )
            console.print(f"{len(seen)} of {total}  {name}: {said}", highlight=False, markup=False, soft_wrap=True)

        yield on_outcome
