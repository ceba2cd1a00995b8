"""python -m gpu: train, compare, reproduce, bench, fetch. What is slow to import is imported where it is needed."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from gpu.bench.commands import bench
from gpu.command_line import (
    BatchSize,
    Data,
    DataDir,
    Gamma,
    Hidden,
    Json,
    Network,
    Optimizers,
    Scaling,
    TensorBoard,
    Threads,
    Units,
    output,
    reported_errors,
    widths,
)

if TYPE_CHECKING:
    from gpu.train import Study

app = typer.Typer(
    help="Kernel SGD: train networks with it, compare it with SGD, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")


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
            hidden=widths(hidden),
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
    optimizer: Annotated[
        list[str] | None, Option(help="Of table2, figure2 and figure3, several times: these alone  [default: all nine]")
    ] = None,
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
        settings = Settings(network=network, hidden=widths(hidden), width=width, units=units)
        folder = out or experiments.folder_of(target, data, quick=quick)
        progress = Console(stderr=True)
        try:
            page = experiments.reproduce(
                target,
                source,
                settings,
                protocol,
                folder,
                progress,
                optimizers=optimizer,
                processes=processes,
                tensorboard=tensorboard,
            )
        except KeyboardInterrupt:
            progress.print("stopped; the same command goes on from here", markup=False)
            raise
        console = output()
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
        console = output()
        console.print(report.table(summary))
        for line in (*report.notes(summary), f"everything in {folder}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if summary["failed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # ± where only ASCII can be written
    app(prog_name="python -m gpu")
