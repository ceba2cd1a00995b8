"""Inverse kernel matrices of mini-batches, and the proof that each is used with its own mini-batch.

H depends on the inputs alone, so with fixed mini-batches every inverse is computed once: n × m numbers for the whole
training set (Algorithm 1, lines 4 and 5). An inverse used with another mini-batch of the same size would go unnoticed
for ever: shapes agree, training runs, numbers are wrong. Hence no inverse leaves this file without the identity of its
mini-batch: a digest of every instance's bits, in order. `KernelSGD` compares it with what the model was run on.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xxhash
from torch import Tensor

from gpu import torch_ops
from gpu.optim.digests import content_digest, is_known, remember
from gpu.optim.inverses import Kernel, Plan, build, torchs_threads
from gpu.optim.mapped import MappedFile


@dataclass(frozen=True, eq=False)
class CachedInverse:
    """One mini-batch's inverse kernel matrix and whose it is.

    `matrix` (m, m); `batch` its number in the cache, −1 where there is none; `indices` (m,) the instances; `source` the
    digest of the data, composition and kernel it comes from; `digest` that of the mini-batch, None for a matrix of
    one's own (`unchecked`).
    """

    matrix: Tensor
    batch: int
    indices: Tensor
    source: str
    digest: bytes | None

    @classmethod
    def unchecked(cls, matrix: Tensor) -> Self:
        """A preconditioner of one's own, (m, m): nothing is known of its mini-batch, so nothing is checked."""
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
            raise ValueError(f"matrix: expected shape (m, m) with m >= 1, got {tuple(matrix.shape)}")
        return cls(matrix, -1, torch.arange(len(matrix)), "unchecked", None)


def mini_batches(n: int, batch_size: int, *, seed: int | Sequence[int]) -> tuple[Tensor, ...]:
    """A random permutation of n instances cut in order into mini-batches of `batch_size`; the last may be ragged.

    Returns int64 index tensors. Raises ValueError for n or batch_size below 1.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size: expected integers >= 1, got {n} and {batch_size}")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return tuple(torch.split(order, batch_size))


def kernel_inverse(x: Tensor, *, dtype: torch.dtype | None = None, **kernel: Any) -> CachedInverse:
    """One mini-batch's inverse kernel matrix, computed on the spot: for loaders that shuffle or augment.

    x is (m, ...); `kernel` are the fields of `Kernel`; `dtype` that of the weights (None: of x). O(m²d + m³) a step.
    Raises as `KernelCache` does.
    """
    dtype = _stored_dtype(x, dtype)
    with torch.no_grad():
        matrix = Kernel(**kernel).inverse(x).to(dtype)
        _require_finite(matrix)
    return CachedInverse(matrix, -1, torch.arange(len(x)), f"on the spot: {kernel}", content_digest(x))


class KernelCache:
    """All mini-batches' inverses, computed in float64 in batched calls, stored n × m in the training dtype.

    Args:
        X: inputs (n, ...) of any real dtype; the kernel sees each instance flattened.
        batches: index tensors, the mini-batches in the order of training; the last may be ragged.
        kernel, gamma, degree, coef0, ridge, singular: as in `torch_ops.gram` and `torch_ops.inverse_gram`.
        dtype, device: of the stored inverses (None: those of X).
        memory_budget: bytes for the stored inverses and the workspace together.
        folder: where the inverses lie in a file, without a name and gone with the cache, instead of in memory; the
            budget is then the workspace's alone. With X = torch.from_numpy(numpy.memmap(...)) memory does not grow with
            n but for some 64 bytes an instance.
        fixed: whether the composition of the mini-batches is part of `source`; `resampled` says no.
        progress: called, in this thread, with the number of mini-batches done after each run of them; it may not build
            a cache itself.

    As many threads as torch has (torch.set_num_threads) build it, each with its share of the workspace.

    Raises TypeError (complex X, indices that are no integers), ValueError (empty, not one-dimensional, indices of no
    instance, budget too small; before anything of that size is allocated), OSError (a folder that is not there, or has
    no room), FloatingPointError (an inverse overflows the training dtype), numpy.linalg.LinAlgError (an indefinite
    kernel matrix; a singular one with singular="raise").
    """

    def __init__(
        self,
        X: Tensor,
        batches: Sequence[Tensor],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        memory_budget: int = 2**30,
        folder: Path | str | None = None,
        fixed: bool = True,
        progress: Callable[[int], None] | None = None,
        **kernel: Any,
    ) -> None:
        torchs_threads()  # this thread's first look, before any calculation takes it
        dtype = _stored_dtype(X, dtype)
        order, sizes = _composition(batches, X)
        self.kernel, self._indices = Kernel(**kernel), torch.split(order, sizes)
        shape, device = (sum(sizes), max(sizes)), torch.device(device or X.device)
        if folder is not None and device.type != "cpu":
            raise ValueError(f"folder: expected inverses on the CPU, got device {str(device)!r}")
        stored = math.prod(shape) * dtype.itemsize if folder is None else 0
        plan = Plan.within(memory_budget, stored, X, max(sizes), len(sizes))
        self._starts = (0, *accumulate(sizes))
        with torch.inference_mode(False):  # a mode of one thread: what is made in it, no other may write to
            mapped = None if folder is None else MappedFile(folder, shape, dtype)
            self._store = torch.empty(shape, dtype=dtype, device=device) if mapped is None else mapped.tensor
            self._mapped = mapped
            digests, self.singular = build(X, order, sizes, self.kernel, plan, self._keep, progress)
        self._finish(digests, order, None if fixed else content_digest(X))

    @classmethod
    def from_loader(
        cls, loader: Iterable[Any], *, inputs: Callable[[Any], Tensor] | None = None, **options: Any
    ) -> Self:
        """The cache of the mini-batches that `loader` yields, which it must yield again, unchanged, in every epoch.

        `inputs` picks the model's input from what the loader yields (None: that itself, or its first part). Shuffling
        and augmentation are errors from `lookup` in the first epoch of training: use `kernel_inverse` there.
        """
        xs = [inputs(b) if inputs else b if isinstance(b, Tensor) else b[0] for b in loader]
        if not xs:
            raise ValueError("loader: expected at least one mini-batch, got none")
        return cls(torch.cat(xs), torch.split(torch.arange(sum(map(len, xs))), [len(x) for x in xs]), **options)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored inverses: n · m · itemsize."""
        return self._store.numel() * self._store.element_size()

    @property
    def largest(self) -> float:
        """The largest entry of any inverse, in size too: a semi-definite matrix has that on its diagonal."""
        return float(self._store.max())

    def batches(self, X: Tensor, *others: Tensor) -> Iterator[tuple[Any, ...]]:
        """Every mini-batch in its fixed order: (X[idx], *others[idx], its `CachedInverse`).

        Raises ValueError where one of `others` has another length, and at the first mini-batch that is not, bit for
        bit, what the cache was built from. A write that torch does not count (through NumPy, DLPack or `.data`) into a
        tensor handed out here goes unseen.
        """
        if len(X) <= self._last:
            raise ValueError(f"X: expected at least {self._last + 1} instances, got shape {tuple(X.shape)}")
        for number, other in enumerate(others):
            if len(other) != len(X):
                raise ValueError(f"others[{number}]: expected {len(X)} instances like X, got {len(other)}")
        for entry in map(self._entry, range(len(self))):
            picked = entry.indices.to(X.device)
            x = X.index_select(0, picked)
            if content_digest(x) != entry.digest:
                raise ValueError(
                    f"X: its mini-batch {entry.batch} of shape {tuple(x.shape)} and dtype {x.dtype} is not, bit for "
                    "bit and in this order, what the cache was built from; build a cache from it"
                )
            remember(x, entry.digest)
            yield x, *(other.index_select(0, picked) for other in others), entry

    def lookup(self, x: Tensor) -> CachedInverse:
        """The inverse of exactly the mini-batch x: the same instances, bit for bit, in the same order.

        Raises ValueError where the cache holds none such: another composition or order, augmented or other data.
        """
        digest = content_digest(x)
        if x.device.type != "cpu" or is_known(x):
            remember(x, digest)
        batch = self._numbers.get(digest)
        if batch is None:
            raise ValueError(
                f"x: this mini-batch of shape {tuple(x.shape)} is none of the {len(self)} in the cache. The "
                "loader must yield the same instances, unchanged (their shape counts: flatten before both or neither), "
                "in the same mini-batches and order as when the cache was built (shuffle=False, no augmentation); "
                "otherwise use kernel_inverse(x)"
            )
        return self._entry(batch)

    def _keep(self, first: int, inverse: Tensor) -> None:
        """Store the inverses (c, m, m) of the mini-batches from `first` on."""
        c, m = inverse.shape[:2]
        start, stop = self._starts[first], self._starts[first + c]
        self._store[start:stop, :m] = inverse.reshape(c * m, m)
        self._store[start:stop, m:] = 0
        _require_finite(self._store[start:stop])
        if self._mapped is not None:
            self._mapped.release(start, stop)

    def _finish(self, digests: list[bytes], order: Tensor, whole: bytes | None) -> None:
        """Give every mini-batch its entry. `whole` is the digest of all data where the composition may change."""
        kernel = {key: value if isinstance(value, str) else float(value) for key, value in asdict(self.kernel).items()}
        identity = xxhash.xxh3_128(json.dumps(kernel, sort_keys=True).encode())
        for part in (*digests, order.numpy().tobytes()) if whole is None else (whole,):
            identity.update(part)
        self.source = identity.hexdigest()
        self._digests = digests
        self._numbers = {digest: batch for batch, digest in enumerate(digests)}
        self._entries: list[CachedInverse | None] = [None] * len(self)
        self._last = int(order.max())

    def _entry(self, batch: int) -> CachedInverse:
        """Made when it is first asked for: making all of them would be a tenth of the build."""
        entry = self._entries[batch]
        if entry is None:
            picked, start = self._indices[batch], self._starts[batch]
            matrix = self._store[start : start + len(picked), : len(picked)]
            entry = CachedInverse(matrix, batch, picked, self.source, self._digests[batch])
            self._entries[batch] = entry
        return entry


def resampled(
    X: Tensor, batch_size: int, *, seed: int, start_epoch: int = 0, epochs: int | None = None, **options: Any
) -> Iterator[KernelCache]:
    """One cache an epoch, mini-batches drawn from (seed, epoch); a thread builds the next while this one trains.

    For the epochs from `start_epoch` to `epochs` − 1 (None: without end). `options` are those of `KernelCache`. All
    have the same `source`, so that a run can be resumed at any epoch.
    """

    def build(epoch: int) -> KernelCache:
        return KernelCache(X, mini_batches(len(X), batch_size, seed=(seed, epoch)), fixed=False, **options)

    upcoming: deque[Future[KernelCache]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel-cache") as background:
        for epoch in count(start_epoch) if epochs is None else range(start_epoch, epochs):
            upcoming.append(background.submit(build, epoch))
            if len(upcoming) > 1:
                yield upcoming.popleft().result()
        for last in upcoming:
            yield last.result()


def _composition(batches: Sequence[Tensor], X: Tensor) -> tuple[Tensor, list[int]]:
    """All indices in order and the mini-batches' sizes; copied: what is shuffled in place afterwards is another one."""
    rows = [torch.as_tensor(batch) for batch in batches]
    for row in rows:
        if row.numel() and row.dtype not in torch_ops.INTEGERS:  # an empty list has torch's default dtype
            raise TypeError(f"batches: expected integer indices of instances, got dtype {row.dtype}")
        if row.ndim != 1:
            raise ValueError(f"batches: expected mini-batches of shape (m,), got {tuple(row.shape)}")
    sizes = [len(row) for row in rows]
    if not sizes or 0 in sizes or not X.numel():
        raise ValueError(
            f"batches: expected non-empty mini-batches of non-empty X, got sizes {sizes[:8]} of {tuple(X.shape)}"
        )
    order = torch.cat([row.to("cpu", torch.int64) for row in rows])
    outside = order[(order < 0) | (order >= len(X))]
    if len(outside):
        raise ValueError(f"batches: expected indices from 0 to {len(X) - 1}, got {outside[:8].tolist()}")
    return order, sizes


def _stored_dtype(X: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if X.is_complex():
        raise TypeError(f"X: expected real instances, got dtype {X.dtype}")
    dtype = dtype or X.dtype
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point dtype for the inverses (that of the weights), got {dtype}")
    return dtype


def _require_finite(matrix: Tensor) -> None:
    # A sum is cheaper, and overflows only where entries are large.
    if not math.isfinite(matrix.sum()) and not matrix.isfinite().all():
        raise FloatingPointError(f"an inverse overflows {matrix.dtype}: add a ridge or raise gamma")
