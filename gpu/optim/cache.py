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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate, count, groupby, islice, pairwise
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self
from weakref import ref

import numpy as np
import torch
import xxhash
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor

from gpu import torch_ops
from gpu.optim.mapped import MappedFile

# A chunk is gathered, centred and factored while still in the processor's cache: larger ones were slower.
CHUNK_BYTES = 16 * 2**20

_building = Lock()

# By id, tensors whose digest is known as long as torch counts no write: where and in which version their numbers lay,
# and it. (WeakTensorKeyDictionary takes four times as long, once every forward pass.)
_known: dict[int, tuple[ref[Tensor], int, int, bytes]] = {}


@dataclass(frozen=True)
class Kernel:
    """What turns a mini-batch into its inverse: the kernel's parameters, the ridge, the rule for singular matrices."""

    kernel: str = "rbf"
    gamma: float = 0.01
    degree: int = 3
    coef0: float = 1.0
    ridge: float = 0.0
    singular: Literal["raise", "pinv"] = "pinv"

    def __post_init__(self) -> None:
        torch_ops.gram(
            torch.zeros(1, 1).double(), self.kernel, gamma=self.gamma, degree=self.degree, coef0=self.coef0
        )  # for its checks
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge: expected a finite number >= 0, got {self.ridge!r}")
        if self.singular not in torch_ops.SINGULAR:
            raise ValueError(f"singular: expected one of {torch_ops.SINGULAR}, got {self.singular!r}")

    def inverses(self, x: Tensor, workspace: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(H + ridge·I)⁻¹ in float64 of every mini-batch of x, (c, m, d) → (c, m, m), and which took the pseudoinverse.

        `workspace` as in `torch_ops.gram_core`. Raises as `torch_ops.gram` and `torch_ops.inverse_gram` do.
        """
        flat = x.reshape(*x.shape[:2], -1).double()
        parameters: dict[str, Any] = {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}
        # What is not finite in x is not finite in H, which is far smaller to look at; `gram` then says what is wrong.
        try:
            H = torch_ops.gram_core(flat, self.kernel, **parameters, workspace=workspace)
            suspicious = not math.isfinite(H.sum())
        except FloatingPointError:
            suspicious = True
        if suspicious:
            H = torch_ops.gram(flat, self.kernel, **parameters)
        return torch_ops.invert_members(H, self.ridge, self.singular)


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


def content_digest(x: Tensor) -> bytes:
    """128 bits (XXH3) that tell x from any other tensor: every instance's bits, in order, shape and dtype."""
    identity = xxhash.xxh3_128(f"{tuple(x.shape)} {x.dtype}".encode())
    identity.update(x.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return identity.digest()


def identify(x: Tensor) -> bytes:
    """`content_digest(x)`; remembered, as long as torch counts no write to x, where the cache has gathered x, or has
    looked it up on a device from which another look would be a transfer."""
    known = _known.get(id(x))
    if known is not None and known[1] == x.data_ptr() and known[2] == x._version:
        return known[3]
    return content_digest(x)


def _remember(x: Tensor, digest: bytes) -> None:
    if not x.is_inference():  # has no version
        key = id(x)
        _known[key] = ref(x, lambda _: _known.pop(key, None)), x.data_ptr(), x._version, digest


def kernel_inverse(x: Tensor, *, dtype: torch.dtype | None = None, **kernel: Any) -> CachedInverse:
    """One mini-batch's inverse kernel matrix, computed on the spot: for loaders that shuffle or augment.

    x is (m, ...); `kernel` are the fields of `Kernel`; `dtype` that of the weights (None: of x). O(m²d + m³) a step.
    Raises as `KernelCache` does.
    """
    dtype = _stored_dtype(x, dtype)
    with torch.no_grad():
        matrix = Kernel(**kernel).inverses(x[None])[0][0].to(dtype)
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
        progress: called with the number of mini-batches done after each chunk.

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
        dtype = _stored_dtype(X, dtype)
        indices = tuple(_own_indices(torch.as_tensor(batch), len(X)) for batch in batches)
        sizes = [len(batch) for batch in indices]
        if not sizes or 0 in sizes or not X.numel():
            raise ValueError(
                f"batches: expected non-empty mini-batches of non-empty X, got sizes {sizes[:8]} of {tuple(X.shape)}"
            )
        self.kernel, self._indices = Kernel(**kernel), indices
        shape, device = (sum(sizes), max(sizes)), torch.device(device or X.device)
        if folder is not None and device.type != "cpu":
            raise ValueError(f"folder: expected inverses on the CPU, got device {str(device)!r}")
        stored = math.prod(shape) * dtype.itemsize if folder is None else 0
        chunk = _batches_per_chunk(X, max(sizes), stored, memory_budget)
        mapped = None if folder is None else MappedFile(folder, shape, dtype)
        self._store = torch.empty(shape, dtype=dtype, device=device) if mapped is None else mapped.tensor
        self._starts = (0, *accumulate(sizes))
        self.singular = 0
        with torch.no_grad(), _numpy_threads(torch.get_num_threads()):
            digests = self._build(X, chunk, mapped, progress)
        self._finish(digests, None if fixed else content_digest(X))

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
        for entry in self._entries:
            picked = entry.indices.to(X.device)
            x = X.index_select(0, picked)
            if content_digest(x) != entry.digest:
                raise ValueError(
                    f"X: its mini-batch {entry.batch} of shape {tuple(x.shape)} and dtype {x.dtype} is not, bit for "
                    "bit and in this order, what the cache was built from; build a cache from it"
                )
            _remember(x, entry.digest)
            yield x, *(other.index_select(0, picked) for other in others), entry

    def lookup(self, x: Tensor) -> CachedInverse:
        """The inverse of exactly the mini-batch x: the same instances, bit for bit, in the same order.

        Raises ValueError where the cache holds none such: another composition or order, augmented or other data.
        """
        digest = content_digest(x)
        if x.device.type != "cpu" or id(x) in _known:
            _remember(x, digest)
        batch = self._numbers.get(digest)
        if batch is None:
            raise ValueError(
                f"x: this mini-batch of shape {tuple(x.shape)} is none of the {len(self)} in the cache. The "
                "loader must yield the same instances, unchanged (their shape counts: flatten before both or neither), "
                "in the same mini-batches and order as when the cache was built (shuffle=False, no augmentation); "
                "otherwise use kernel_inverse(x)"
            )
        return self._entries[batch]

    def _build(
        self, X: Tensor, chunk: int, mapped: MappedFile | None, progress: Callable[[int], None] | None
    ) -> list[bytes]:
        """Compute and store all inverses; the mini-batches' digests."""
        digests: list[bytes] = []
        # Fresh memory is slow: one buffer for what is gathered, one for what is centred.
        gathered = X.new_empty(min(chunk, len(self)) * self._store.shape[1], *X.shape[1:])
        workspace = torch.empty(gathered.numel(), dtype=torch.float64, device=X.device)
        for first, group in _equal_sized(self._indices, chunk):
            c, m = len(group), len(group[0])
            x = torch.index_select(X, 0, torch.cat(group).to(X.device), out=gathered[: c * m]).view(c, m, *X.shape[1:])
            self._invert(x, first, workspace)
            if mapped is not None:
                mapped.release(self._starts[first], self._starts[first + c])
            digests += map(content_digest, x)
            if progress is not None:
                progress(len(digests))
        return digests

    def _invert(self, x: Tensor, first: int, workspace: Tensor) -> None:
        c, m = x.shape[:2]
        start = self._starts[first]
        try:
            inverse, singular = self.kernel.inverses(x, workspace)
        except np.linalg.LinAlgError as error:
            raise np.linalg.LinAlgError(f"mini-batches {first} to {first + c - 1}: {error}") from error
        self.singular += int(singular.sum())
        self._store[start : start + c * m, :m] = inverse.reshape(c * m, m)
        self._store[start : start + c * m, m:] = 0
        _require_finite(self._store[start : start + c * m])

    def _finish(self, digests: list[bytes], whole: bytes | None) -> None:
        """Give every mini-batch its entry. `whole` is the digest of all data where the composition may change."""
        kernel = {key: value if isinstance(value, str) else float(value) for key, value in asdict(self.kernel).items()}
        composition = [batch.numpy().tobytes() for batch in self._indices]
        identity = xxhash.xxh3_128(json.dumps(kernel, sort_keys=True).encode())
        for part in (*digests, *composition) if whole is None else (whole,):
            identity.update(part)
        self.source = identity.hexdigest()
        parts = zip(digests, self._indices, pairwise(self._starts), strict=True)
        self._entries = [
            CachedInverse(self._store[start:stop, : stop - start], batch, picked, self.source, digest)
            for batch, (digest, picked, (start, stop)) in enumerate(parts)
        ]
        self._numbers = {digest: batch for batch, digest in enumerate(digests)}
        self._last = max(int(batch.max()) for batch in self._indices)


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


@contextmanager
def _numpy_threads(most: int) -> Iterator[None]:
    """NumPy's BLAS with at most so many threads. That is a setting of the process: one builds at a time."""
    with _building:
        pools = _thread_pools()
        limit = min([most, *(pool.num_threads for pool in pools.lib_controllers)])  # none where it is Accelerate
        with pools.limit(limits=limit):
            yield


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")  # looks through all libraries of the process: milliseconds


def _own_indices(batch: Tensor, n: int) -> Tensor:
    """A copy, on the CPU: what is shuffled in place afterwards is another composition."""
    if batch.numel() and batch.dtype not in torch_ops.INTEGERS:  # an empty list has torch's default dtype
        raise TypeError(f"batches: expected integer indices of instances, got dtype {batch.dtype}")
    if batch.ndim != 1:
        raise ValueError(f"batches: expected mini-batches of shape (m,), got {tuple(batch.shape)}")
    own = batch.to("cpu", torch.int64, copy=True)
    outside = own[(own < 0) | (own >= n)]
    if len(outside):
        raise ValueError(f"batches: expected indices from 0 to {n - 1}, got {outside[:8].tolist()}")
    return own


def _stored_dtype(X: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if X.is_complex():
        raise TypeError(f"X: expected real instances, got dtype {X.dtype}")
    dtype = dtype or X.dtype
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point dtype for the inverses (that of the weights), got {dtype}")
    return dtype


def _require_finite(matrix: Tensor) -> None:
    low, high = matrix.aminmax()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise FloatingPointError(f"an inverse overflows {matrix.dtype}: add a ridge or raise gamma")


def _batches_per_chunk(X: Tensor, m: int, stored: int, budget: int) -> int:
    d = X[0].numel()
    workspace = m * d * (X.element_size() + 3 * 8) + 8 * m * m * 8
    if stored + workspace > budget:
        raise ValueError(
            f"memory_budget: expected at least {stored + workspace} bytes ({stored} for the inverses, {workspace} "
            f"to compute one of {m} × {m} from {d} features), got {budget}"
        )
    return max(1, min(budget - stored, CHUNK_BYTES) // workspace)


def _equal_sized(indices: Sequence[Tensor], chunk: int) -> Iterator[tuple[int, list[Tensor]]]:
    """Runs of at most `chunk` consecutive mini-batches of one size, with the number of the first."""
    start = 0
    for _, run in groupby(indices, key=len):
        while group := list(islice(run, chunk)):
            yield start, group
            start += len(group)
