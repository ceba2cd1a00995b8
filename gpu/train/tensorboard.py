"""A run's metrics.csv as a TensorBoard log, while it is written."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

from gpu.train.errors import UsageError
from gpu.train.loop import METRICS, Row

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raises UsageError where the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "tensorboard: is not installed; pip install 'kernel-sgd[tensorboard]', or leave out --tensorboard"
        ) from None


def log_to(place: Path) -> Callable[[Row], None]:
    """An `on_epoch` for the run in the folder `place`, which writes every row of metrics.csv to PLACE/tensorboard.

    The log is begun anew with all rows there are: a resumed run, whose log may lack its last epoch or have one that was
    lost, has each once.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer: SummaryWriter | None = None

    def log(row: Row) -> None:
        nonlocal writer
        rows = [row]
        if writer is None:
            shutil.rmtree(place / FOLDER, ignore_errors=True)
            writer = SummaryWriter(str(place / FOLDER))
            with (place / METRICS).open(newline="", encoding="utf-8") as file:
                rows = [{name: float(value) for name, value in kept.items()} for kept in csv.DictReader(file)]
        for each in rows:
            for name, value in each.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(each["epoch"]))
        writer.flush()

    return log
