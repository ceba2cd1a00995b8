"""Section 4.5: other kernels, and a random positive semi-definite matrix in place of the kernel matrix.

The paper does not say how that matrix is drawn; `gpu.train.loop.random_inverses` says how it is here. Its expectation
is I, its smallest eigenvalue about 1/m², and so its inverse has entries of the order of m².
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.experiments import paper
from gpu.experiments.findings import notes, row, tests_and_times
from gpu.experiments.page import Page
from gpu.experiments.protocol import Arm, Finding
from gpu.train.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {"rbf": "rbf", "linear": "linear", "polynomial-3": "polynomial", "random-psd": "random PSD"}


def arms(settings: Settings) -> tuple[Arm, ...]:
    return (
        Arm("rbf", settings),
        Arm("linear", replace(settings, kernel="linear")),
        *(Arm(f"polynomial-{p}", replace(settings, kernel="polynomial", degree=p)) for p in (1, 2, 3)),
        Arm("random-psd", replace(settings, kernel="random-psd")),
    )


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    figures = paper.kernels(data)

    def draw(figure: "Figure") -> None:
        tests_and_times(figure.subplots(1, 2), findings)

    rows = [row(finding, figures.get(PAPER.get(finding.arm.label, ""), {})) for finding in findings]
    return Page(f"Kernels: {data}", rows, notes(findings, "rbf"), draw)
