"""The published version's ablation: Kernel SGD in the last layer against all layers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpu.experiments.findings import comparison
from gpu.experiments.page import Page
from gpu.experiments.paper import table
from gpu.experiments.protocol import Arm, Finding
from gpu.train.data import stand_in
from gpu.train.report import titled
from gpu.train.settings import Settings

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
    return comparison(f"Layers: {titled(data, stand_in(data))}", findings, paper, "last")
