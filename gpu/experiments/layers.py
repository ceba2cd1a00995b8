"""The published version's ablation: Kernel SGD in the last layer against all layers."""

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

LAYERS = ("last", "all")


def arms(settings: Settings) -> tuple[Arm, ...]:
    return tuple(Arm(layers, replace(settings, layers=layers)) for layers in LAYERS)


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    paper: dict[str, dict[str, float]] = {}
    for stated in table("layers_published", data):
        for layers in LAYERS:
            paper[layers] = {
                name.removeprefix(f"{layers}_"): float(value)
                for name, value in stated.items()
                if name.startswith(f"{layers}_")
            }

    def draw(figure: "Figure") -> None:
        tests_and_times(figure.subplots(1, 2), findings)

    rows = [row(finding, paper.get(finding.arm.label, {})) for finding in findings]
    return Page(f"Layers: {data}", rows, notes(findings, "last"), draw)
