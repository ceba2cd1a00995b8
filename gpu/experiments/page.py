"""What an experiment shows: a table with the paper's figures beside ours, as CSV and on the terminal, and a picture."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gpu.train.checkpoint import write_text
from gpu.train.report import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, str | float | None]
SD, PAPER, PAPER_SD, DIFFERENCE = " sd", " paper", " paper sd", " difference"


@dataclass(frozen=True)
class Page:
    """Rows of plain columns and of quantities (see `quantity`), notes below, and what draws the picture."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str]
    draw: Callable[["Figure"], None]


def quantity(name: str, ours: Sequence[float], paper: float | None = None, paper_sd: float | None = None) -> Row:
    """Five columns: our mean and standard deviation, the paper's, and the difference of the means; None for unknown."""
    mean = ours[0] if len(ours) == 1 else fmean(ours) if ours else None  # a count stays whole
    return {
        name: mean,
        name + SD: stdev(ours) if len(ours) > 1 else None,
        name + PAPER: paper,
        name + PAPER_SD: paper_sd,
        name + DIFFERENCE: None if mean is None or paper is None else mean - paper,
    }


def write(page: Page, folder: Path, name: str) -> list[Path]:
    """FOLDER/NAME.csv, and NAME.png where matplotlib is installed; the files written."""
    columns = list(dict.fromkeys(column for row in page.rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(page.rows)
    write_text(folder / f"{name}.csv", text.getvalue())
    return [folder / f"{name}.csv", *_draw(page, folder / f"{name}.png")]


def _draw(page: Page, path: Path) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    page.draw(figure)
    figure.suptitle(page.title)
    save_figure(figure, path)
    return [path]


def terminal_table(page: Page) -> Table:
    """A column a quantity: ours, and below it the paper's and the difference where the paper has one."""
    made = Table(title=page.title, show_lines=True)
    columns = [c for c in dict.fromkeys(c for row in page.rows for c in row) if not c.endswith((SD, PAPER, DIFFERENCE))]
    for column in columns:
        made.add_column(column, justify="right" if column else "left")
    for row in page.rows:
        made.add_row(*(_cell(row, column) for column in columns))
    return made


def _cell(row: Row, column: str) -> str:
    ours = _plus_minus(row.get(column), row.get(column + SD))
    if row.get(column + PAPER) is None:
        return ours
    paper = f"paper {_plus_minus(row[column + PAPER], row.get(column + PAPER_SD))}"
    return "\n".join((ours, paper, *([f"{row[column + DIFFERENCE]:+.2f}"] if ours else [])))


def _plus_minus(mean: Any, spread: Any) -> str:
    return _plain(mean) + (f" ± {_plain(spread)}" if spread else "")


def _plain(value: Any) -> str:
    """Measured numbers with about four digits."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.{0 if abs(value) >= 1000 else 2 if abs(value) >= 10 else 3}f}"
