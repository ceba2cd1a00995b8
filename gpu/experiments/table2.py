"""Table 2: all optimizers on one data set. Its study serves Figures 2 and 3 as well."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpu.experiments.findings import comparison
from gpu.experiments.page import Page
from gpu.experiments.paper import every_optimizer
from gpu.experiments.protocol import Arm, Finding
from gpu.train.data import stand_in
from gpu.train.report import titled
from gpu.train.settings import Settings

OPTIMIZERS = ("kernel-sgd", "sgd", "sgd-momentum", "l-bfgs", "esgd", "esgd-li", "adahessian", "adamw", "soap")


def arms(settings: Settings) -> tuple[Arm, ...]:
    return tuple(Arm(name, replace(settings, optimizer=name)) for name in OPTIMIZERS)


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    return comparison(f"Table 2: {titled(data, stand_in(data))}", findings, every_optimizer(data), "sgd")
