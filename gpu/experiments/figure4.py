"""Figure 4 of the submission (5 as published): Kernel SGD with mini-batches of 32 to 512 instances."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.experiments.findings import notes, row, tests_and_times
from gpu.experiments.page import Page
from gpu.experiments.paper import table
from gpu.experiments.protocol import Arm, Finding
from gpu.train.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (32, 64, 128, 256, 512)


def arms(settings: Settings) -> tuple[Arm, ...]:
    return tuple(Arm(f"m={size}", replace(settings, batch_size=size)) for size in SIZES)


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    paper = {
        f"m={r['batch_size']}": {name: float(r[name]) for name in ("test_acc", "time_s")}
        for r in table("batch_size", data)
    }

    def draw(figure: "Figure") -> None:
        tests_and_times(figure.subplots(1, 2), findings)

    rows = [row(finding, paper.get(finding.arm.label, {})) for finding in findings]
    return Page(f"Figure 4: {data}, batch size", rows, notes(findings, "m=64"), draw)
