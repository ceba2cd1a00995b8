"""A run's metrics.csv as a TensorBoard log, while it is written."""

import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpu.train.errors import UsageError
from gpu.train.loop import METRICS, Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raises UsageError where the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "tensorboard: is not installed; pip install 'kernel-sgd[tensorboard]', or leave out --tensorboard"
        ) from None


@contextmanager
def logged(place: Path) -> Iterator[Callable[[Row], None]]:
    """An `on_epoch` for the run in the folder `place`, which writes every row of metrics.csv to PLACE/tensorboard.

    The log is begun anew with all rows there are: a resumed run, whose log may lack its last epochs or have one that
    was lost, has each once, also where it resumes after its last epoch.
    """
    writer: SummaryWriter | None = None

    def log(row: Row) -> None:
        nonlocal writer
        if writer is None:
            writer = _begun(place)
        else:
            _add(writer, row)
        writer.flush()

    try:
        yield log
    finally:
        if writer is None and (place / METRICS).exists():
            writer = _begun(place)
        if writer is not None:
            writer.close()


def _begun(place: Path) -> "SummaryWriter":
    """A new log of all that metrics.csv has."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(place / FOLDER, ignore_errors=True)
    writer = SummaryWriter(str(place / FOLDER))
    with (place / METRICS).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            _add(writer, {name: float(value) for name, value in row.items()})
    return writer


def _add(writer: "SummaryWriter", row: Row) -> None:
    for name, value in row.items():
        if name != "epoch":
            writer.add_scalar(name, value, int(row["epoch"]))
