"""Inverse kernel matrices of many mini-batches in float64, within a memory budget: what takes a cache's time.

Gathering, digests and products go through so few mini-batches at a time that they stay in a core's own cache, the
factorisations through more of them, so that there are few calls. Several threads have mini-batches of their own each:
with more than one in a call, torch's batched factorisations of small matrices are slower than with one.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from queue import SimpleQueue
from threading import Barrier, Lock
from typing import Any, Literal, Self

import numpy as np
import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor

from gpu import torch_ops
from gpu.optim.digests import content_digest

# For inputs gathered at once, and for the matrices of one call, copies included: larger or smaller ones were slower.
# Other devices have no such cache, and a call costs them more (their factor is a guess).
INPUT_BYTES = 4 * 2**20
MATRIX_BYTES = 8 * 2**20
DEVICE_FACTOR = 64

# Mini-batches of one size: the number of the first, their indices (c, m). Their digests, and how many are singular.
Run = tuple[int, Tensor]
Result = tuple[list[bytes], int]

_building, _starting = Lock(), Lock()


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
        torch_ops.gram(torch.zeros(1, 1).double(), self.kernel, **self._parameters)  # for its checks
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge: expected a finite number >= 0, got {self.ridge!r}")
        if self.singular not in torch_ops.SINGULAR:
            raise ValueError(f"singular: expected one of {torch_ops.SINGULAR}, got {self.singular!r}")

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}

    def prepare(self, x: Tensor, out: Tensor) -> None:
        """What `gram` needs of mini-batches x (k, m, d) in float64, which may be overwritten, into `out` (k, m, m)."""
        if self.kernel == "rbf":
            torch_ops.centred_products_(x, self.gamma, out)
            return
        try:
            out.copy_(torch_ops.gram_core(x, self.kernel, **self._parameters))
        except FloatingPointError:
            out.fill_(math.nan)

    def gram(self, prepared: Tensor, again: Callable[[int], Tensor], first: int) -> Tensor:
        """Gram matrices (c, m, m) of what was prepared. `again(i)` are the instances of mini-batch first + i: that is
        computed with all checks where what was prepared is not finite or has overflowed. Raises as `torch_ops.gram`
        does, with the mini-batch's number."""
        H, suspicious = prepared, prepared.new_zeros(len(prepared), dtype=torch.bool)
        if self.kernel == "rbf":
            H, suspicious = torch_ops.rbf_of_products(prepared, self.gamma)
        # What is not finite in x is not finite in H, which is far smaller to look at.
        if suspicious.any() or not math.isfinite(H.sum()):
            for member in (suspicious | ~H.isfinite().all(-1).all(-1)).nonzero().flatten().tolist():
                try:
                    H[member] = torch_ops.gram(again(member), self.kernel, **self._parameters)
                except (ValueError, FloatingPointError) as error:
                    raise type(error)(f"mini-batch {first + member}: {error}") from error
        return H

    def inverse(self, x: Tensor) -> Tensor:
        """(H + ridge·I)⁻¹ of one mini-batch, (m, ...) → (m, m), in float64.

        Raises as `torch_ops.gram` and `torch_ops.inverse_gram` do."""
        H = torch_ops.gram(_flat(x[None]), self.kernel, **self._parameters)
        return torch_ops.invert_members(H, self.ridge, self.singular)[0][0]


@dataclass(frozen=True)
class Plan:
    """How many mini-batches are gathered at once, and factored at once, by each of how many workers."""

    gathered: int
    factored: int
    workers: int

    @classmethod
    def within(cls, budget: int, stored: int, X: Tensor, m: int, batches: int) -> Self:
        """For so many mini-batches of at most m instances of X, with at most as many workers as torch has threads.
        Raises ValueError where the budget is too small for one mini-batch beside the `stored` bytes."""
        d, padded = X[0].numel(), m + -m % 4  # as `invert_members` pads
        # Inputs as given and three copies in float64; eight matrices at once.
        inputs, matrices = m * d * (X.element_size() + 3 * 8), 8 * padded * padded * 8
        if stored + inputs + matrices > budget:
            raise ValueError(
                f"memory_budget: expected at least {stored + inputs + matrices} bytes ({stored} for the inverses, "
                f"{inputs + matrices} to compute one of {m} × {m} from {d} features), got {budget}"
            )
        room, workers, factor = budget - stored, 1, DEVICE_FACTOR
        if X.device.type == "cpu":
            workers, factor = min(torchs_threads(), room // (inputs + matrices)), 1
        room //= workers
        gathered = max(1, min(room // 2, room - matrices, factor * INPUT_BYTES) // inputs)
        factored = max(1, min(room - gathered * inputs, factor * MATRIX_BYTES) // matrices)
        factored = min(factored, math.ceil(batches / workers))
        return cls(min(gathered, factored), factored, min(workers, math.ceil(batches / factored)))


def build(
    X: Tensor,
    order: Tensor,
    sizes: Sequence[int],
    kernel: Kernel,
    plan: Plan,
    store: Callable[[int, Tensor], None],
    progress: Callable[[int], None] | None,
) -> tuple[list[bytes], int]:
    """Cut the indices `order` into mini-batches of these sizes; hand every one's inverse to `store(number of the first,
    inverses (c, m, m))`, which may be called from several threads; their digests and how many took the pseudoinverse.

    `progress` is called in this thread. Raises as `torch_ops.gram` and `torch_ops.inverse_gram` do, and what `store`
    and `progress` do, when the calculations that have begun have ended.
    """
    digests: list[bytes] = []
    singular, runs = 0, list(_runs(order, sizes, plan.factored))
    with (
        _numpy_threads(max(1, torch.get_num_threads() // plan.workers)),
        closing(_in_order(_Worker(X, max(sizes), kernel, plan, store).invert, runs, plan.workers)) as done,
    ):
        for found, count in done:
            digests += found
            singular += count
            if progress is not None:
                progress(len(digests))
    return digests, singular


class _Worker:
    """Inverts runs of mini-batches of one size. Fresh memory is slow: what is gathered and prepared has its buffers."""

    def __init__(self, X: Tensor, m: int, kernel: Kernel, plan: Plan, store: Callable[[int, Tensor], None]) -> None:
        self.X, self.kernel, self.gathered, self.store = X, kernel, plan.gathered, store
        self.free: SimpleQueue[tuple[Tensor, Tensor]] = SimpleQueue()
        for _ in range(plan.workers):
            rows = X.new_empty(plan.gathered * m, *X.shape[1:])
            self.free.put((rows, torch.empty(plan.factored * m * m, dtype=torch.float64, device=X.device)))

    @torch.no_grad()
    def invert(self, run: Run) -> Result:
        buffers = self.free.get()
        try:
            return self._invert(*run, *buffers)
        finally:
            self.free.put(buffers)

    def _invert(self, first: int, indices: Tensor, rows: Tensor, matrices: Tensor) -> Result:
        c, m = indices.shape
        digests: list[bytes] = []
        prepared = matrices[: c * m * m].view(c, m, m)
        for start in range(0, c, self.gathered):
            part = indices[start : start + self.gathered].flatten().to(self.X.device)
            x = torch.index_select(self.X, 0, part, out=rows[: len(part)]).view(-1, m, *self.X.shape[1:])
            digests += map(content_digest, x)
            self.kernel.prepare(_flat(x), prepared[start : start + len(x)])
        H = self.kernel.gram(prepared, lambda member: _flat(self.X[indices[member].to(self.X.device)][None])[0], first)
        try:
            inverse, singular = torch_ops.invert_members(H, self.kernel.ridge, self.kernel.singular)
            self.store(first, inverse)
        except (np.linalg.LinAlgError, FloatingPointError) as error:
            raise type(error)(f"mini-batches {first} to {first + c - 1}: {error}") from error
        return digests, int(singular.sum())


def _flat(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1).double()


def _runs(order: Tensor, sizes: Sequence[int], most: int) -> Iterator[Run]:
    """Runs of at most so many consecutive mini-batches of one size."""
    first = start = 0
    for m, run in groupby(sizes):
        same = order[start : (start := start + m * len(list(run)))].view(-1, m)
        for indices in torch.split(same, most):
            yield first, indices
            first += len(indices)


def _in_order(work: Callable[[Run], Result], on: Sequence[Run], workers: int) -> Generator[Result]:
    """The results in the order of `on`; what has not begun when the caller stops asking is left."""
    if workers == 1:
        yield from map(work, on)
        return
    threads, started = torch.get_num_threads(), Barrier(workers + 1)

    def start() -> None:
        limit_this_thread(threads // workers)
        started.wait()

    with ThreadPoolExecutor(workers, thread_name_prefix="kernel-cache-worker", initializer=start) as pool:
        try:
            with _starting:
                try:
                    results = pool.map(work, on)
                    started.wait()
                except BaseException:
                    started.abort()  # lest those that have started wait for ever
                    raise
                finally:
                    torch.set_num_threads(threads)  # for threads that others start, too
            yield from results
        finally:
            pool.shutdown(cancel_futures=True)


def limit_this_thread(most: int) -> None:
    """torch's calls from here, and from threads that first use it later, with so many threads."""
    torch.get_num_threads()  # or this thread's first parallel call would take the number of all others instead
    torch.set_num_threads(most)


def torchs_threads() -> int:
    """torch.get_num_threads(), but not while a build's workers start: a thread's first look would find their number,
    and keep it."""
    with _starting:
        return torch.get_num_threads()


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
