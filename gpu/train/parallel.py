"""One training run on several ranks: torchrun --nproc-per-node 4 -m gpu.train.parallel --out FOLDER

The data is divided among the ranks, each of which builds the inverse kernel matrices of its own mini-batches and trains
on them; `gpu.optim.parallel` makes one step of theirs. All ranks hold the same weights and stop alike; the statistics
of batch normalisation are each rank's own. Rank 0 writes the folder, that of a study of one run, after every epoch,
with its own accuracies.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from typer import Option

from gpu.optim import KernelCache
from gpu.optim.parallel import LostRankError, average, distribute, rank_batches, require_equal, state_tensors
from gpu.train import loop, report
from gpu.train import study as studies
from gpu.train.checkpoint import write_text
from gpu.train.data import Dataset
from gpu.train.errors import UsageError, refuse_all_but
from gpu.train.settings import Settings
from gpu.train.study import RESULT, Study


def fit(
    settings: Settings, data: Dataset, folder: Path, *, on_epoch: Callable[[loop.Row], None] = lambda _: None
) -> loop.Result:
    """As `gpu.train.fit`, on all ranks of the default process group together, each with the same arguments.

    `settings.batch_size` is the mini-batch of one rank, the size of a kernel matrix. `folder` must be the same, for all
    ranks to see; only rank 0 writes there. A run goes on from its checkpoint, bit for bit on as many ranks as before.
    On another number of ranks weights, history and validation split are the same, but the mini-batches are divided
    anew, and with them their inverses and the number of steps an epoch. `inverse_bytes` is the share of one rank.

    Raises UsageError for settings that need more than that, and as `gpu.train.fit`; LostRankError where a rank has
    ended, RuntimeError where one has drifted apart.
    """
    _require_supported(settings)
    torch.manual_seed(settings.seed)
    run = loop.Run(settings, data.to(settings.device), folder)
    if run.restore() and dist.get_rank() == 0:
        run.write_metrics()
    for group in run.optimizer.param_groups:
        group["source"] = None  # each rank's cache is its own, and another one on another number of ranks
    require_equal([torch.tensor(len(run.history))], f"{folder}: the checkpoint")
    distribute(run.optimizer)  # type: ignore[arg-type]  # _require_supported has seen to it
    started = perf_counter()
    batches, cache = _share(run)
    instances, cache_seconds = sum(len(y) for _, y, _ in batches), perf_counter() - started
    while not run.finished:
        loss = loop.train_epoch(run.model, run.optimizer, batches)
        average([loss], instances)
        epoch = len(run.history) + 1
        if not math.isfinite(loss):
            raise FloatingPointError(loop.not_finite(settings, epoch, loss.item(), cache))
        require_equal(state_tensors(run.optimizer), f"the weights after epoch {epoch}")
        run.record(loss.item(), perf_counter() - started, cache_seconds, cache)
        if dist.get_rank() == 0:
            run.save()
        on_epoch(run.history[-1])
        started, cache_seconds = perf_counter(), 0.0
    return run.result()


def _require_supported(settings: Settings) -> None:
    for name, expected in (
        ("optimizer", "kernel-sgd"),
        ("step_rule", "constant"),
        ("resample", False),
        ("record_claims", False),
    ):
        if (value := getattr(settings, name)) != expected:
            raise UsageError(f"{name}: expected {expected} on several ranks, got {value}")
    if settings.kernel == "random-psd":
        raise UsageError("kernel: expected one of the data on several ranks, got random-psd")


def _share(run: loop.Run) -> tuple[list[loop.Batch], KernelCache]:
    """This rank's mini-batches with their inverses."""
    settings, rank, ranks = run.settings, dist.get_rank(), dist.get_world_size()
    K = run.X if run.kernel_input is None else run.kernel_input
    try:
        own = rank_batches(len(K), settings.batch_size, seed=settings.seed, rank=rank, ranks=ranks)
        cache = KernelCache(K, own, **{name: getattr(settings, name) for name in loop.CACHE_OPTIONS})
        return loop.with_inverses(cache, run.X, run.y, run.kernel_input), cache
    except ValueError as error:
        raise UsageError(str(error)) from error


def main(
    context: typer.Context,
    data: Annotated[str, Option(help="As for python -m gpu train.")] = "digits",
    data_dir: Annotated[Path | None, Option(help="The folder of its files, for every rank to see.")] = None,
    epochs: Annotated[int, Option(help="At most; fewer where the loss settles.")] = 500,
    lr: Annotated[float, Option(help="Learning rate.")] = 0.1,
    gamma: Annotated[float, Option(help="Kernel parameter.")] = 0.01,
    batch_size: Annotated[int, Option(help="Instances a mini-batch of one rank.")] = 64,
    seed: Annotated[int, Option(help="Of initial weights, validation split and mini-batches.")] = 0,
    device: Annotated[str, Option(help="cpu (gloo), or cuda (nccl): one GPU a rank.")] = "cpu",
    timeout: Annotated[float, Option(help="Seconds after which a rank that does not answer ends the run.")] = 600.0,
    out: Annotated[Path | None, Option(help="The folder of a new run, for every rank to see.")] = None,
    resume: Annotated[Path | None, Option(help="The folder of a run to go on with, in place of all the above.")] = None,
) -> None:
    """Train with Kernel SGD on all ranks that torchrun has started."""
    rank = os.environ.get("RANK", "0")
    try:
        if resume is not None:
            refuse_all_but(context, "resume", "data_dir", "timeout")
        folder = out or resume
        if folder is None:
            raise UsageError("--out, --resume: expected one of the two")
        if resume is None:
            settings = Settings(epochs=epochs, lr=lr, gamma=gamma, batch_size=batch_size, seed=seed, device=device)
            place = None if data_dir is None else str(data_dir.absolute())
            study = Study(
                data=data,
                data_dir=place,
                scaling="unit",
                optimizers=(settings.optimizer,),
                seeds=(seed,),
                settings=settings,
            )
            read = study.load_data()
        else:
            study, read = studies.reopen(resume, data_dir=data_dir, ranks=True)
        _start(study.settings.device, timeout)
        if resume is None and rank == "0":
            studies.create(study, read, folder, ranks=dist.get_world_size())
        _run(study, read, folder)
    except (UsageError, OSError) as error:
        _report(rank, str(error))
        raise typer.Exit(2) from None
    except FloatingPointError as error:
        _report(rank, str(error))
        raise typer.Exit(1) from None
    except LostRankError as error:
        _report(rank, f"{error}. Go on from the last finished epoch, on any number of ranks: --resume {folder}")
        raise typer.Exit(1) from None
    dist.destroy_process_group()


def _start(device: str, timeout: float) -> None:
    """Join the process group whose place torchrun has put into the environment."""
    if "RANK" not in os.environ:
        raise UsageError("expected to be started by torchrun: torchrun --nproc-per-node 4 -m gpu.train.parallel …")
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    studies.require_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout))


def _run(study: Study, data: Dataset, folder: Path) -> None:
    """The study's one run, in the folder that `gpu.train.study` would give it."""
    settings, *others = study.runs
    if others:
        raise UsageError(f"{folder}: expected the folder of one run, got a study of {len(study.runs)}")
    torch.set_num_threads(settings.threads)
    place = folder / settings.run_name
    if dist.get_rank() != 0:
        fit(settings, data, place)
        return
    place.mkdir(exist_ok=True)
    with report.progress(study, Console(stderr=True)) as (on_epoch, on_result):
        result = fit(settings, data, place, on_epoch=partial(on_epoch, settings))
        write_text(place / RESULT, json.dumps(asdict(result), indent=1))
        on_result(result)


def _report(rank: str, message: str) -> None:
    Console(stderr=True).print(
        f"error on rank {rank}: {message}", style="red", highlight=False, markup=False, soft_wrap=True
    )


if __name__ == "__main__":
    typer.run(main)
