"""Numbers that lie in a file, mapped into memory: for more inverses than memory holds."""

import mmap
import os
import tempfile
from math import prod
from pathlib import Path

import torch
from torch import Tensor


class MappedFile:
    """`tensor`, whose numbers (0 at first) lie in a file without a name in `folder`, which is gone with it.

    The room on the disk is reserved at once: a full disk is an OSError here, not a crash on writing.
    """

    def __init__(self, folder: Path | str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        size = prod(shape) * dtype.itemsize
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self.tensor: Tensor = torch.frombuffer(self._map, dtype=dtype).view(shape)

    def release(self, start: int, stop: int) -> None:
        """Rows from `start` to `stop` have been written, and need no memory of this process until they are read."""
        row = self.tensor.stride(0) * self.tensor.itemsize
        first, last = (n * row // mmap.PAGESIZE * mmap.PAGESIZE for n in (start, stop))
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
