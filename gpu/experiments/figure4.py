"""Figure 4 of the submission (5 as published): Kernel SGD with mini-batches of 32 to 512 instances."""

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

SIZES = (32, 64, 128, 256, 512)


def arms(settings: Settings) -> tuple[Arm, ...]:
    return tuple(Arm(f"m={size}", replace(settings, batch_size=size)) for size in SIZES)


def page(data: str, findings: Sequence[Finding], _folder: Path) -> Page:
    paper = {
        f"m={r['batch_size']}": {name: float(r[name]) for name in ("test_acc", "time_s")}
        for r in table("batch_size", data)
    }
    return comparison(f"Figure 4: {titled(data, stand_in(data))}, batch size", findings, paper, "m=64")
