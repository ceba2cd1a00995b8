"""Section 4.5: other kernels, and a random positive semi-definite matrix in place of the kernel matrix.

The paper does not say how that matrix is drawn; `gpu.train.loop.random_inverses` says how it is here. Its expectation
is I, its smallest eigenvalue about 1/m², and so its inverse has entries of the order of m².
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpu.experiments import paper
from gpu.experiments.findings import comparison
from gpu.experiments.page import Page
from gpu.experiments.protocol import Arm, Finding
from gpu.train.data import stand_in
from gpu.train.report import titled
from gpu.train.settings import Settings

PAPER = {"rbf": "rbf", "linear": "linear", "polynomial": "polynomial-3", "random PSD": "random-psd"}


def arms(settings: Settings) -> tuple[Arm, ...]:
    return (
        Arm("rbf", settings),
        Arm("linear", replace(settings, kernel="linear")),
        *(Arm(f"polynomial-{p}", replace(settings, kernel="polynomial", degree=p)) for p in (1, 2, 3)),
        Arm("random-psd", replace(settings, kernel="random-psd")),
    )


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    figures = {PAPER[kernel]: stated for kernel, stated in paper.kernels(data).items()}
    return comparison(f"Kernels: {titled(data, stand_in(data))}", findings, figures, "rbf")
