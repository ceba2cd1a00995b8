"""python -m gpu: train, compare, reproduce, bench, fetch. What is slow to import is imported where it is needed."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

if TYPE_CHECKING:
    from gpu.train import Study

app = typer.Typer(
    help="Kernel SGD: train networks with it, compare it with SGD, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure this implementation on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

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
NETWORKS = ("mlp", "resnet18", "lstm")

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


def train(
    context: typer.Context,
    data: Data = "digits",
    data_dir: DataDir = None,
    scaling: Scaling = "unit",
    network: Network = "auto",
    hidden: Hidden = "100,100",
    width: Annotated[int, Option(help="Channels of ResNet-18's first stage.")] = 64,
    units: Units = 100,
    optimizer: Optimizers = ["kernel-sgd"],  # noqa: B006
    lr: Annotated[float, Option(help="Learning rate; the paper's grid is 0.1, 0.01, 0.001, 0.0001.")] = 0.1,
    gamma: Gamma = 0.01,
    kernel: Annotated[str, Option(help="rbf, linear, polynomial; random-psd, a control.")] = "rbf",
    degree: Annotated[int, Option(help="Of the polynomial kernel.")] = 3,
    coef0: Annotated[float, Option(help="Of the polynomial kernel.")] = 1.0,
    ridge: Annotated[float, Option(help="Added to the kernel matrix's diagonal before it is inverted.")] = 0.0,
    batch_size: BatchSize = 64,
    weight_decay: Annotated[float, Option(help="Of the L2 term; decoupled in adamw, muon, soap.")] = 1e-4,
    decay: Annotated[str, Option(help="l2 (preconditioned with the gradient) or decoupled.")] = "l2",
    bias: Annotated[str, Option(help="plain, or augmented: the last column of W.")] = "plain",
    layers: Annotated[str, Option(help="Which layers kernel-sgd preconditions: last or all.")] = "last",
    step_rule: Annotated[str, Option(help="constant or monotone.")] = "constant",
    momentum: Annotated[float, Option(help="Of sgd-momentum.")] = 0.9,
    history: Annotated[int, Option(help="Of l-bfgs: pairs kept; 10 as published, 3 in the submission.")] = 10,
    epochs: Annotated[int, Option(help="At most; fewer where the loss settles (changes < 1e-4 in 3 epochs).")] = 500,
    seeds: Annotated[int, Option(min=1, help="How many seeds: initial weights, validation split, mini-batches.")] = 1,
    first_seed: Annotated[int, Option(help="The first of them.")] = 0,
    validation: Annotated[float, Option(help="Fraction of the training data held out for validation.")] = 0.2,
    resample: Annotated[bool, Option("--resample", help="Draw new mini-batches every epoch.")] = False,
    memory_budget: Annotated[int, Option(help="MiB for the inverse kernel matrices and their computation.")] = 1024,
    device: Annotated[str, Option(help="cpu, cuda, …")] = "cpu",
    threads: Threads = 1,
    record_claims: Annotated[
        bool, Option("--record-claims", help="Record what python -m proofs audit needs of kernel-sgd: claims.csv.")
    ] = False,
    out: Annotated[Path | None, Option(help="The run folder  [default: runs/DATA-TIME]")] = None,
    resume: Annotated[Path | None, Option(help="Continue the runs of this folder, with the settings they had.")] = None,
    tensorboard: TensorBoard = False,
    as_json: Json = False,
) -> None:
    """Train a network and write metrics, checkpoint and plot to a run folder."""
    with reported_errors():
        from gpu.train import Settings, Study
        from gpu.train.errors import refuse_all_but

        if resume is not None:
            refuse_all_but(context, "resume", "data_dir", "tensorboard", "as_json")
            _run(resume, None, data_dir, tensorboard, as_json)
            return
        settings = Settings(
            optimizer=optimizer[0],
            seed=first_seed,
            network=network,
            hidden=_widths(hidden),
            width=width,
            units=units,
            lr=lr,
            momentum=momentum,
            history=history,
            weight_decay=weight_decay,
            kernel=kernel,
            gamma=gamma,
            degree=degree,
            coef0=coef0,
            ridge=ridge,
            decay=decay,
            bias=bias,
            layers=layers,
            step_rule=step_rule,
            batch_size=batch_size,
            epochs=epochs,
            validation=validation,
            resample=resample,
            memory_budget=memory_budget * 2**20,
            device=device,
            threads=threads,
            record_claims=record_claims,
        )
        study = Study(
            data=data,
            data_dir=None if data_dir is None else str(data_dir.absolute()),
            scaling=scaling,
            optimizers=tuple(dict.fromkeys(optimizer)),
            seeds=tuple(range(first_seed, first_seed + seeds)),
            settings=settings,
        )
        folder = out or Path("runs") / f"{Path(data).name}-{datetime.now():%Y%m%d-%H%M%S}"
        _run(folder, study, data_dir, tensorboard, as_json)


app.command("train")(train)
app.command(
    "compare",
    help="Train with kernel-sgd, sgd and sgd-momentum, five paired seeds, and compare them. Options as for train.",
    context_settings={"default_map": {"optimizer": ["kernel-sgd", "sgd", "sgd-momentum"], "seeds": 5}},
)(train)


@app.command("reproduce")
def reproduce(
    target: Annotated[str, Argument(help="table1, table2, figure1 … figure4, kernels or layers.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    scaling: Scaling = "unit",
    network: Network = "auto",
    hidden: Hidden = "100,100",
    width: Annotated[int | None, Option(help="Channels of ResNet-18's first stage  [default: 64; quick: 4]")] = None,
    units: Units = 100,
    quick: Annotated[bool, Option("--quick", help="A small grid, few epochs, two repeats.")] = False,
    epochs: Annotated[int | None, Option(min=1, help="At most, a run  [default: 500; quick: 10, 2 or 4]")] = None,
    repeats: Annotated[int | None, Option(min=1, help="Of the chosen setting  [default: 5; quick: 2]")] = None,
    processes: Annotated[int | None, Option(min=1, help="Runs at once  [default: as many as cores]")] = None,
    out: Annotated[Path | None, Option(help="The study's folder  [default: runs/reproduce/STUDY-DATA]")] = None,
    tensorboard: TensorBoard = False,
) -> None:
    """A table or figure of the paper: its runs, ours beside the paper's numbers, as a table, a CSV and a picture.

    Every setting of the paper's grid is run once, the best on validation data five times. The same command again goes
    on after Ctrl-C, a crash or kill -9.
    """
    with reported_errors():
        from dataclasses import replace

        from gpu.experiments import reproduce as experiments
        from gpu.experiments.grid import Source
        from gpu.experiments.page import terminal_table, write
        from gpu.experiments.protocol import QUICK, QUICK_EPOCHS, Protocol
        from gpu.train import Settings, UsageError
        from gpu.train.data import kind
        from gpu.train.tensorboard import require_tensorboard

        if tensorboard:
            require_tensorboard()
        if target not in (names := (*experiments.WITHOUT_A_STUDY, *experiments.TARGETS)):
            raise UsageError(f"target: expected one of {', '.join(names)}, got {target!r}")
        protocol = replace(QUICK, epochs=QUICK_EPOCHS[kind(data)]) if quick else Protocol()
        protocol = replace(protocol, epochs=epochs or protocol.epochs, repeats=repeats or protocol.repeats)
        source = Source(data, None if data_dir is None else str(data_dir.absolute()), scaling)
        width = width if width is not None else 4 if quick else 64
        settings = Settings(network=network, hidden=_widths(hidden), width=width, units=units)
        folder = out or experiments.folder_of(target, data, quick=quick)
        progress = Console(stderr=True)
        try:
            page = experiments.reproduce(
                target, source, settings, protocol, folder, progress, processes=processes, tensorboard=tensorboard
            )
        except KeyboardInterrupt:
            progress.print("stopped; the same command goes on from here", markup=False)
            raise
        console = _console()
        console.print(terminal_table(page))
        for line in (*page.notes, *(f"written: {path}" for path in write(page, folder, target))):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="usps, cifar10, imdb, or glove: the word vectors that text needs.")],
    data_dir: Annotated[Path, Option(help="The folder to put the files in.")],
) -> None:
    """Download data where that is allowed, with checksums; otherwise say where to get them."""
    with reported_errors():
        from gpu.train.data.fetch import fetch

        for path in fetch(name, data_dir):
            print(path)


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

        settings = Settings(hidden=_widths(hidden), batch_size=batch_size, gamma=gamma, threads=threads)
        _print_bench(step(load(data, data_dir, scaling=scaling), settings, repeats=repeats), as_json)


@bench.command("optimizers")
def bench_optimizers(
    network: Annotated[list[str], Option(help=f"{', '.join(NETWORKS)}; may be given several times.")] = list(NETWORKS),  # noqa: B006
    optimizer: Optimizers = list(OPTIMIZERS),  # noqa: B006
    repeats: Annotated[int, Option(min=1, help="Rounds, each with some steps of each.")] = 15,
    steps: Annotated[int | None, Option(min=1, help="A round  [default: mlp 20, resnet18 1, lstm 5]")] = None,
    width: Annotated[int, Option(min=1, help="Channels of ResNet-18's first stage; at 64, a step takes seconds.")] = 64,
    batch_size: BatchSize = 64,
    threads: Threads = 1,
    to_loss: Annotated[
        float | None, Option(help="Measure instead the time to this training loss of an epoch on digits.")
    ] = None,
    check: Annotated[bool, Option("--check", help="Exit code 1 where a limit on the mlp's ratios is missed.")] = False,
    out: Annotated[Path | None, Option(help="A file for the figures as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """A training step of every optimizer over one of SGD's, interleaved, and bytes of state, on three networks."""
    with reported_errors():
        from gpu.bench import optimizers, tables
        from gpu.bench.to_loss import to_loss as measure_to_loss
        from gpu.train import UsageError
        from gpu.train.checkpoint import write_text

        if check and to_loss is not None:
            raise UsageError("--check: looks at the ratios of steps, which --to-loss does not measure")
        if to_loss is not None:
            figures = measure_to_loss(to_loss, optimizer, repeats=repeats, batch_size=batch_size, threads=threads)
        else:
            figures = optimizers.optimizers(
                network, optimizer, repeats=repeats, steps=steps, width=width, batch_size=batch_size, threads=threads
            )
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, json.dumps(figures, indent=1) + "\n")
        if as_json:
            print(json.dumps(figures, indent=1))
        else:
            for table in tables.tables(figures):
                _console().print(table)
        missed = optimizers.missed(figures.get("networks", {})) if check else []
        for line in missed:
            Console(stderr=True).print(f"missed: {line}", style="red", highlight=False, markup=False, soft_wrap=True)
        if missed:
            raise typer.Exit(1)


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
        _print_bench(figures, as_json)


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
        _print_bench(figures, as_json)


def _run(folder: Path, study: "Study | None", data_dir: Path | None, tensorboard: bool, as_json: bool) -> None:
    """Run a new study in `folder`, or continue the one that is there, then show what it says; exit code 1 where a run
    has failed."""
    from gpu.experiments.paper import first_order
    from gpu.train import report
    from gpu.train import study as studies
    from gpu.train.models import network_of
    from gpu.train.tensorboard import require_tensorboard

    if tensorboard:
        require_tensorboard()
    progress = Console(stderr=True)
    if study is None:
        study, data = studies.reopen(folder, data_dir=data_dir)
    else:
        data = study.load_data()
        network_of(data.kind, study.settings)
        studies.create(study, data, folder)
    try:
        with report.progress(study, progress) as (on_epoch, on_result):
            results = studies.run(study, data, folder, on_epoch=on_epoch, on_result=on_result, tensorboard=tensorboard)
    except KeyboardInterrupt:
        progress.print(f"stopped; continue with: python -m gpu train --resume {folder}", markup=False, soft_wrap=True)
        raise
    summary = studies.summarise(study, results, first_order(study.data))
    studies.write_summary(folder, summary)
    if summary["optimizers"] and not report.plot(study, folder):
        progress.print("plot.png left out: matplotlib is not installed (pip install 'kernel-sgd[plots]')", markup=False)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        console = _console()
        console.print(report.table(summary))
        for line in (*report.notes(summary), f"everything in {folder}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if summary["failed"]:
        raise typer.Exit(1)


def _widths(hidden: str) -> tuple[int, ...]:
    from gpu.train import UsageError

    try:
        return tuple(int(width) for width in hidden.split(",") if hidden)
    except ValueError:
        raise UsageError(f"--hidden: expected widths such as 100,100, got {hidden!r}") from None


def _print_bench(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table("figure", "value", show_header=False)
    for name, value in _rows(figures):
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    _console().print(table)


def _rows(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures, a row each, named by the way to them."""
    for key, value in figures.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            yield from _rows(value, name)
        else:
            yield name, value


def _console() -> Console:
    """Standard output; a file or a pipe has no width of its own, and tables need some."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # ± where only ASCII can be written
    app(prog_name="python -m gpu")
