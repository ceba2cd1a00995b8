"""Figure 2: the training loss of every optimizer, epoch by epoch; the paper prints no numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.experiments.page import Page, quantity
from gpu.experiments.protocol import Finding
from gpu.experiments.table2 import arms
from gpu.train.data import stand_in
from gpu.train.loop import METRICS
from gpu.train.report import read_metrics, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["arms", "page"]


def page(data: str, findings: Sequence[Finding], folder: Path) -> Page:
    losses = {f.arm.label: [read_metrics(folder / run / METRICS)[1] for run in f.folders] for f in findings}
    rows = [
        {
            "": label,
            **quantity("epochs", [float(len(run)) for run in runs]),
            **quantity("lowest loss", [min(run) for run in runs]),
            **quantity("last loss", [run[-1] for run in runs]),
        }
        for label, runs in losses.items()
    ]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for number, (label, runs) in enumerate(losses.items()):
            for first, run in enumerate(runs):
                axes.plot(range(1, len(run) + 1), run, f"C{number}", linewidth=1, label=None if first else label)
        axes.set(xlabel="epoch", ylabel="training loss", yscale="log", xscale="log")
        axes.legend()

    return Page(f"Figure 2: {titled(data, stand_in(data))}", rows, (), draw)
