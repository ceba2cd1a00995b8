"""Figure 3 of the submission: robustness, training − test accuracy, and stability, the share of epochs in which the
loss falls, beside speed. It has no numbers in print; the paper's robustness is computed from its Table 2."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.experiments.findings import bars
from gpu.experiments.page import Page, quantity
from gpu.experiments.paper import every_optimizer
from gpu.experiments.protocol import Finding
from gpu.experiments.table2 import arms
from gpu.train.data import stand_in
from gpu.train.loop import METRICS
from gpu.train.report import read_metrics, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["arms", "page"]


def page(data: str, findings: Sequence[Finding], folder: Path) -> Page:
    paper = every_optimizer(data)
    gaps = {f.arm.label: [100 * (r.train_accuracy - r.test_accuracy) for r in f.results] for f in findings}
    stability = {f.arm.label: [_falling(folder / run) for run in f.folders] for f in findings}
    rows = [
        {
            "": name,
            **quantity("training - test %", gaps[name], _gap(paper.get(name, {}))),
            **quantity("epochs with falling loss %", stability[name]),
            **quantity("seconds", [r.seconds for r in finding.results], paper.get(name, {}).get("time_s")),
        }
        for finding in findings
        for name in [finding.arm.label]
    ]

    def draw(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        bars(left, findings, gaps, "training − test accuracy, points")
        bars(right, findings, stability, "epochs in which the loss falls, %")

    return Page(f"Figure 3: {titled(data, stand_in(data))}", rows, (), draw)


def _falling(place: Path) -> float:
    losses = read_metrics(place / METRICS)[1]
    return 100 * sum(b < a for a, b in pairwise(losses)) / max(1, len(losses) - 1)


def _gap(paper: dict[str, float]) -> float | None:
    return paper["train_acc"] - paper["test_acc"] if "train_acc" in paper else None
