"""Table 2: all optimizers on one data set. Its study serves Figures 2 and 3 as well."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.experiments.findings import notes, row, tests_and_times
from gpu.experiments.page import Page
from gpu.experiments.paper import every_optimizer
from gpu.experiments.protocol import Arm, Finding
from gpu.train.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIMIZERS = ("kernel-sgd", "sgd", "sgd-momentum", "l-bfgs", "esgd", "esgd-li", "adahessian", "adamw", "soap")


def arms(settings: Settings) -> tuple[Arm, ...]:
    return tuple(Arm(name, replace(settings, optimizer=name)) for name in OPTIMIZERS)


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    paper = every_optimizer(data)

    def draw(figure: "Figure") -> None:
        tests_and_times(figure.subplots(1, 2), findings)

    rows = [row(finding, paper.get(finding.arm.label, {})) for finding in findings]
    return Page(f"Table 2: {data}", rows, notes(findings, "sgd"), draw)
