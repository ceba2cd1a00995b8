"""What commands have in common: options, errors that are one line, tables on standard output. Imports nothing slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Option

INTERRUPTED = 130
# gpu.train.settings knows them, too, but needs torch.
OPTIMIZERS = (
    "kernel-sgd",
    "sgd",
    "sgd-momentum",
    "l-bfgs",
    "esgd",
    "esgd-li",
    "adahessian",
    "adamw",
    "muon",
    "soap",
)

Data = Annotated[
    str,
    Option(
        help="digits, digits-32, words (bundled); cifar10, s-cov, cov-tw, imdb; "
        "or the name of LIBSVM files NAME and NAME.t, also .bz2 or .gz: mnist, usps, …"
    ),
]
DataDir = Annotated[Path | None, Option(help="The folder of their files; the README says what to put there.")]
Scaling = Annotated[str, Option(help="none, unit [0, 1], symmetric [-1, 1] or standard, by the training data.")]
Optimizers = Annotated[list[str], Option(help=f"{', '.join(OPTIMIZERS)}; may be given several times.")]
Network = Annotated[str, Option(help="mlp, resnet18, lstm; auto: the paper's for features, images (32 × 32), texts.")]
Hidden = Annotated[str, Option(help="Widths of the perceptron's hidden layers; an empty string for none.")]
Units = Annotated[int, Option(help="Of the LSTM.")]
BatchSize = Annotated[int, Option(help="Instances a mini-batch.")]
Gamma = Annotated[float, Option(help="Kernel parameter; the paper's grid is 0.1, 0.01, 0.001, 0.0001.")]
Threads = Annotated[int, Option(help="Processor threads for torch.")]
TensorBoard = Annotated[bool, Option("--tensorboard", help="Log every run for TensorBoard too, in its folder.")]
Json = Annotated[bool, Option("--json", help="Print JSON, nothing else, on standard output.")]


@contextmanager
def reported_errors() -> Iterator[None]:
    """What the user can put right as one line; anything else as a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        from gpu.train.errors import UsageError

        if not isinstance(error, (UsageError, OSError, OverflowError)) and not _is_out_of_memory(error):
            raise
        Console(stderr=True).print(
            f"error: {str(error) or type(error).__name__}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(2) from None


def _is_out_of_memory(error: Exception) -> bool:
    """torch's allocators raise a RuntimeError, which only its words tell from others."""
    words = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def widths(hidden: str) -> tuple[int, ...]:
    from gpu.train import UsageError

    try:
        return tuple(int(width) for width in hidden.split(",") if hidden)
    except ValueError:
        raise UsageError(f"--hidden: expected widths such as 100,100, got {hidden!r}") from None


def output() -> Console:
    """Standard output; a file or a pipe has no width of its own, and tables need some."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
