"""A cache whose inverses lie in a file: the same numbers, without the memory, and nothing left behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu.optim import KernelCache, mini_batches, resampled
from tests.gpu.caches import smallest_budget
from tests.gpu.networks import random

ROOT = Path(__file__).parents[2]

RESIDENT = """
import sys, torch
from gpu.optim import KernelCache, mini_batches

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024

torch.set_num_threads(1)
n, d, m, budget = 100_000, 20, 128, 4 * 2**20
X, batches = torch.rand(n, d), mini_batches(n, m, seed=0)
options = {"memory_budget": budget, "gamma": 1.0, "folder": sys.argv[1]}
KernelCache(X[:1000], mini_batches(1000, m, seed=0), **options)
before, seen = resident(), []
cache = KernelCache(X, batches, progress=lambda _: seen.append(resident()), **options)
assert cache.nbytes == n * m * 4 > 12 * budget
print((max(seen) - before - 64 * n) / budget)  # beside indices and digests
"""


def test_inverses_in_a_file_are_those_in_memory_bit_for_bit_and_the_file_has_no_name(tmp_path: Path) -> None:
    X, batches = random(211, 5, dtype=torch.float32), mini_batches(211, 8, seed=0)
    there, here = KernelCache(X, batches, folder=tmp_path), KernelCache(X, batches)
    assert list(tmp_path.iterdir()) == []
    assert there.source == here.source
    assert there.nbytes == here.nbytes
    for (x, found), (_, expected) in zip(there.batches(X), here.batches(X), strict=True):
        assert found.matrix.equal(expected.matrix)
        assert there.lookup(x).batch == found.batch


def test_a_cache_an_epoch_does_not_disturb_the_one_before(tmp_path: Path) -> None:
    X = random(60, 4, dtype=torch.float32)
    there, here = (list(resampled(X, 8, seed=0, epochs=3, **options)) for options in ({"folder": tmp_path}, {}))
    for first, second in zip(there, here, strict=True):
        for (_, found), (_, expected) in zip(first.batches(X), second.batches(X), strict=True):
            assert found.matrix.equal(expected.matrix)


def test_the_budget_is_for_the_workspace_alone(tmp_path: Path) -> None:
    X, batches = random(500, 3), mini_batches(500, 10, seed=0)
    assert smallest_budget(X, batches) - smallest_budget(X, batches, folder=tmp_path) == 500 * 10 * 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_by_the_budget_and_not_by_the_inverses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESIDENT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the room is not reserved on this system")
def test_a_full_disk_is_an_error_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, start: int, size: int) -> None:
        assert (start, size) == (0, 100 * 10 * 4)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        KernelCache(random(100, 3, dtype=torch.float32), mini_batches(100, 10, seed=0), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_and_another_device_are_refused(tmp_path: Path) -> None:
    X, batches = random(20, 3), mini_batches(20, 5, seed=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        KernelCache(X, batches, folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="folder: expected inverses on the CPU, got device 'meta'"):
        KernelCache(X, batches, folder=tmp_path, device="meta")
