"""Ranks as processes of this machine: what each has computed, or why not; none is left behind.

They are forked from a server that has imported torch once, which is what takes longest.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpu.experiments.grid import PRELOADED

SECONDS = 300  # within which everything here must have ended: a machine may be busy
Found = dict[str, Tensor]

context = multiprocessing.get_context("forkserver")
# A process has one server, for the experiments' processes too.
TESTS = ["tests.gpu.test_experiments", "tests.gpu.test_parallel", "tests.gpu.test_parallel_run", "tests.gpu.test_train"]
context.set_forkserver_preload([*PRELOADED, "gpu.train.parallel", *TESTS])


def on_ranks(ranks: int, target: Callable[..., Found], *arguments: Any) -> list[Found]:
    """What target(*arguments) returned on each of so many ranks; AssertionError where one has raised."""
    with tempfile.TemporaryDirectory() as folder:
        with started(ranks, target, *arguments, folder=Path(folder)) as processes:
            for process in processes:
                process.join(SECONDS)
        errors = [path.read_text(encoding="utf-8") for path in Path(folder).glob("*.error")]
        assert not errors, "\n".join(errors)
        assert [process.exitcode for process in processes] == [0] * ranks
        return [load_file(Path(folder) / f"{rank}.safetensors") for rank in range(ranks)]


@contextmanager
def started(ranks: int, target: Callable[..., Found], *arguments: Any, folder: Path) -> Iterator[list[BaseProcess]]:
    """The processes; RANK.safetensors and RANK.error appear in `folder`. What still runs in the end is killed."""
    processes = [context.Process(target=_run, args=(r, ranks, folder, target, arguments)) for r in range(ranks)]
    try:
        for process in processes:
            process.start()
        yield list(processes)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


@contextmanager
def group(folder: Path, rank: int = 0, ranks: int = 1) -> Iterator[None]:
    """The default process group, which finds together through a file in `folder`."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=SECONDS),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _run(rank: int, ranks: int, folder: Path, target: Callable[..., Found], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        with group(folder, rank, ranks):
            found = target(*arguments)
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in found.items()}, folder / f"{rank}.safetensors"
        )
    except Exception as error:
        (folder / f"{rank}.error").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise SystemExit(1) from None
