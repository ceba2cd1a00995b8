"""python -m gpu bench: measure this implementation on this machine. What is slow to import is imported where needed."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from gpu.command_line import (
    OPTIMIZERS,
    BatchSize,
    Data,
    DataDir,
    Gamma,
    Hidden,
    Json,
    Scaling,
    Threads,
    output,
    reported_errors,
    widths,
)

bench = typer.Typer(help="Measure this implementation on this machine.", no_args_is_help=True)

NETWORKS = ("mlp", "resnet18", "lstm")
MEASURED = (*OPTIMIZERS, "shampoo", "ikfac")

Out = Annotated[Path | None, Option(help="A file for the figures as JSON.")]


@bench.command("step")
def bench_step(
    data: Data = "digits",
    data_dir: DataDir = None,
    scaling: Scaling = "unit",
    hidden: Hidden = "100,100",
    batch_size: BatchSize = 64,
    gamma: Gamma = 0.01,
    repeats: Annotated[int, Option(min=1, help="Rounds, each with one epoch of each.")] = 15,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """One epoch of KernelSGD and of SGD with momentum, interleaved, over one of torch.optim.SGD."""
    with reported_errors():
        from gpu.bench.step import step
        from gpu.train import Settings, load

        settings = Settings(hidden=widths(hidden), batch_size=batch_size, gamma=gamma, threads=threads)
        figures = step(load(data, data_dir, scaling=scaling), settings, repeats=repeats)
        _show(figures, _rows(figures), None, as_json)


@bench.command("optimizers")
def bench_optimizers(
    network: Annotated[list[str], Option(help=f"{', '.join(NETWORKS)}; may be given several times.")] = list(NETWORKS),  # noqa: B006
    optimizer: Annotated[
        list[str], Option(help=f"{', '.join(MEASURED)}; may be given several times. The last two need the extra bench.")
    ] = list(MEASURED),  # noqa: B006
    repeats: Annotated[int, Option(min=1, help="Rounds, each with some steps of each.")] = 15,
    steps: Annotated[int | None, Option(min=1, help="A round  [default: mlp 20, resnet18 1, lstm 5]")] = None,
    width: Annotated[int, Option(min=1, help="Channels of ResNet-18's first stage; at 64, a step takes seconds.")] = 64,
    batch_size: BatchSize = 64,
    threads: Threads = 1,
    to_loss: Annotated[
        float | None, Option(help="Measure instead the time to this training loss of an epoch on digits.")
    ] = None,
    check: Annotated[bool, Option("--check", help="Exit code 1 where a limit on the mlp's ratios is missed.")] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """A training step of every optimizer over one of SGD's, interleaved, and bytes of state, on three networks."""
    with reported_errors():
        from gpu.bench import optimizers, tables
        from gpu.bench.to_loss import to_loss as measure_to_loss
        from gpu.train import UsageError

        if check and to_loss is not None:
            raise UsageError("--check: looks at the ratios of steps, which --to-loss does not measure")
        if to_loss is not None:
            figures = measure_to_loss(to_loss, optimizer, repeats=repeats, batch_size=batch_size, threads=threads)
        else:
            figures = optimizers.optimizers(
                network, optimizer, repeats=repeats, steps=steps, width=width, batch_size=batch_size, threads=threads
            )
        _show(figures, tables.tables(figures), out, as_json)
        if not as_json:
            for line in tables.not_measured(figures):
                output().print(f"not measured: {line}", highlight=False, markup=False, soft_wrap=True)
        missed = optimizers.missed(figures.get("networks", {})) if check else []
        for line in missed:
            Console(stderr=True).print(f"missed: {line}", style="red", highlight=False, markup=False, soft_wrap=True)
        if missed:
            raise typer.Exit(1)


@bench.command("to-accuracy")
def bench_to_accuracy(
    folders: Annotated[list[Path], Argument(help="Folders of finished studies: reproduce table2, one a data set.")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Seconds until a given validation accuracy, 99 % of SGD's best, of every optimizer over Kernel SGD."""
    with reported_errors():
        from gpu.bench import tables
        from gpu.bench.to_accuracy import to_accuracy

        figures = to_accuracy(folders)
        _show(figures, tables.to_accuracy(figures), out, as_json)


@bench.command("cache")
def bench_cache(
    n: Annotated[int, Option(min=1, help="Instances.")] = 48_000,
    d: Annotated[int, Option(min=1, help="Features.")] = 780,
    m: Annotated[int, Option(min=1, help="Instances a mini-batch.")] = 64,
    gamma: Gamma = 0.01,
    repeats: Annotated[int, Option(min=1, help="Rounds.")] = 15,
    threads: Annotated[list[int], Option(min=1, help="On the processor; may be given several times.")] = [1, 2],  # noqa: B006
    device: Annotated[str, Option(help="cpu, or cuda: the fused kernel, CuPy's libraries and torch.linalg.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Building all inverses in float64, over its parts timed alone; and a loop in SciPy over it."""
    with reported_errors():
        from gpu.train import UsageError

        if device not in ("cpu", "cuda"):
            raise UsageError(f"device: expected cpu or cuda, got {device!r}")
        if device == "cuda":
            from gpu.bench.gpu_cache import gpu_cache

            figures = gpu_cache(n=n, d=d, m=m, gamma=gamma, repeats=repeats)
        else:
            from gpu.bench.cache import cache

            figures = cache(n=n, d=d, m=m, gamma=gamma, repeats=repeats, threads=threads)
        _show(figures, _rows(figures), None, as_json)


@bench.command("scale")
def bench_scale(
    n: Annotated[list[int], Option(min=1, help="Instances; several times.")] = [  # noqa: B006
        10_000,
        30_000,
        100_000,
        300_000,
        1_000_000,
    ],
    d: Annotated[int, Option(min=1, help="Features.")] = 100,
    m: Annotated[int, Option(min=1, help="Instances a mini-batch.")] = 64,
    gamma: Gamma = 0.1,
    memory_budget: Annotated[int, Option(min=1, help="MiB for the computation.")] = 64,
    repeats: Annotated[int, Option(min=1, help="Builds of every size.")] = 5,
    picture: Annotated[Path | None, Option(help="A PNG of time and memory.")] = None,
    as_json: Json = False,
) -> None:
    """Building all inverses from a file into a file: how time and memory grow with n."""
    with reported_errors():
        from gpu.bench.scale import plot, scale

        figures = scale(sizes=n, d=d, m=m, gamma=gamma, budget=memory_budget * 2**20, repeats=repeats)
        if picture is not None:
            plot(figures, picture)
        _show(figures, _rows(figures), None, as_json)


def _show(figures: dict[str, Any], tables: Iterable[Table], out: Path | None, as_json: bool) -> None:
    """The figures as JSON, also in the file `out`, or as tables."""
    from gpu.train.checkpoint import write_text

    text = json.dumps(figures, indent=1, allow_nan=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    for table in tables:
        output().print(table)


def _rows(figures: dict[str, Any]) -> Iterator[Table]:
    """One table, a row a figure."""
    table = Table("figure", "value", show_header=False)
    for name, value in _flat(figures):
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    yield table


def _flat(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures, each with the way to it."""
    for key, value in figures.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value
