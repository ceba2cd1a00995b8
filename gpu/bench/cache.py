"""Building the kernel cache, against its own parts timed alone and against a loop in scikit-learn and SciPy."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.linalg import lapack
from sklearn.metrics.pairwise import rbf_kernel  # type: ignore[import-untyped]
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor

from gpu.bench.timing import Seconds, clock, interleaved, paired_ratios
from gpu.optim import KernelCache, mini_batches
from gpu.optim.digests import content_digest
from gpu.optim.inverses import Plan, limit_this_thread
from gpu.train.errors import UsageError
from gpu.train.provenance import provenance

PARTS = ("matrix product", "exponential", "cholesky", "inverse")
INPUTS = ("gathering", "digests")
BUDGET = 2**30


@dataclass(frozen=True)
class Routine:
    """One way to do a part: `call` for every one of `items`."""

    part: str
    name: str
    call: Callable[[Any], object]
    items: Sequence[Any]


def cache(*, n: int, d: int, m: int, gamma: float, repeats: int, threads: Sequence[int]) -> dict[str, Any]:
    """Seconds for the float64 inverses of n uniform instances of d features in mini-batches of m, see `compared`, on
    every number of threads. Raises UsageError where there are no such inverses."""
    m = min(m, n)
    X = torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batches = mini_batches(n, m, seed=0)
    try:
        singular = KernelCache(X, batches, gamma=gamma, memory_budget=BUDGET).singular
    except ValueError as error:
        raise UsageError(str(error)) from error
    if singular:
        raise UsageError(
            f"gamma: {gamma:g} makes {singular} of the kernel matrices of {d} features singular, and the slow path is "
            "not what is measured here; raise gamma or d"
        )
    return {
        "threads": {number: compared(X, batches, gamma, repeats, number) for number in dict.fromkeys(threads)},
        "n": n,
        "d": d,
        "m": m,
        "gamma": gamma,
        "repeats": repeats,
        **provenance(),
    }


def compared(X: Tensor, batches: Sequence[Tensor], gamma: float, repeats: int, threads: int) -> dict[str, Any]:
    """The build on so many threads over its parts, each timed alone in every way there is, medians over rounds.

    The parts are the matrix products, exponentials, Cholesky factors and inverses of all mini-batches, by torch and by
    NumPy where both have them, in calls of the build's own size that write where the last one has; with more than one
    thread either in every call or in as many calls at once. `best` says which way took least; `ratio_to_parts` is the
    build over the sum of these, and `ratio_with_inputs` over that and the gathering of instances and their digests.
    `speedup_over_loop`, on one thread: a loop of scikit-learn's `rbf_kernel` with LAPACK's potrf and potri, over the
    build.
    """
    before, pools = torch.get_num_threads(), ThreadpoolController()
    torch.set_num_threads(threads)
    try:
        plan = Plan.within(BUDGET, len(X) * len(batches[0]) * 8, X, len(batches[0]), len(batches))
        with ThreadPoolExecutor(threads, initializer=limit_this_thread, initargs=(1,)) as pool:
            build = partial(KernelCache, X, batches, gamma=gamma, memory_budget=BUDGET)
            ways = {"build": _on(threads, pools, build)}
            if threads == 1:
                ways["loop"] = _on(1, pools, partial(_loop, X.numpy(), [batch.numpy() for batch in batches], gamma))
            for r in _routines(X, batches, plan, gamma):
                ways[f"{r.part}, {r.name}"] = _on(threads, pools, partial(_each, map, r.call, r.items))
                if threads > 1:
                    at_once = partial(_each, pool.map, r.call, r.items)
                    ways[f"{r.part}, {r.name}, {threads} calls at once"] = _on(1, pools, at_once)
            seconds = interleaved(ways, repeats, clock=clock(threads))
    finally:
        torch.set_num_threads(before)
    return _figures(seconds) | {"gathered_at_once": plan.gathered, "factored_at_once": plan.factored}


def _figures(seconds: Seconds) -> dict[str, Any]:
    medians = {way: median(times) for way, times in seconds.items()}
    best = {
        part: min((way for way in medians if way.startswith(part)), key=medians.__getitem__)
        for part in (*PARTS, *INPUTS)
    }
    ratios = {
        "ratio_to_parts": paired_ratios(seconds["build"], _sums(seconds, [best[part] for part in PARTS])),
        "ratio_with_inputs": paired_ratios(seconds["build"], _sums(seconds, best.values())),
    }
    if "loop" in seconds:
        ratios["speedup_over_loop"] = paired_ratios(seconds["loop"], seconds["build"])
    return {
        **{name: ratio for name, (ratio, _) in ratios.items()},
        "spread": {name: spread for name, (_, spread) in ratios.items()},
        "seconds": medians,
        "best": best,
    }


def _sums(seconds: Mapping[str, list[float]], ways: Iterable[str]) -> list[float]:
    """What they take together, round by round."""
    return [sum(times) for times in zip(*(seconds[way] for way in ways), strict=True)]


def _routines(X: Tensor, batches: Sequence[Tensor], plan: Plan, gamma: float) -> list[Routine]:
    """The build's parts: what works on instances goes over all of them, the rest over one call's matrices."""
    m = len(batches[0])
    whole = X[: len(X) // m * m].view(-1, m, X.shape[1])
    groups = torch.split(whole, plan.gathered)
    H = torch.exp(-gamma * torch.cdist(whole[: plan.factored], whole[: plan.factored]).square())
    exponent, factor = H.log(), torch.linalg.cholesky(H)
    products = (plan.gathered, m, m)
    calls = [min(plan.factored, len(whole) - start) for start in range(0, len(whole), plan.factored)]

    def of(matrices: Tensor) -> list[Tensor]:
        return [matrices[:c] for c in calls]

    return [
        Routine("matrix product", "torch", _reusing(lambda x, out: torch.bmm(x, x.mT, out=out), products), groups),
        Routine(
            "matrix product",
            "numpy",
            _reusing(lambda x, out: np.matmul(x.numpy(), x.numpy().swapaxes(-1, -2), out=out.numpy()), products),
            groups,
        ),
        Routine("exponential", "torch", torch.exp, of(exponent)),
        Routine("exponential", "numpy", np.exp, [x.numpy() for x in of(exponent)]),
        Routine("cholesky", "torch", torch.linalg.cholesky_ex, of(H)),
        Routine("cholesky", "numpy", np.linalg.cholesky, [x.numpy() for x in of(H)]),
        Routine("inverse", "torch", torch.cholesky_inverse, of(factor)),
        Routine(
            "gathering",
            "torch",
            _reusing(lambda index, out: torch.index_select(X, 0, index, out=out), (plan.gathered * m, X.shape[1])),
            torch.split(torch.cat(tuple(batches)), plan.gathered * m),
        ),
        Routine("digests", "xxhash", content_digest, list(whole)),
    ]


def _reusing(call: Callable[[Any, Tensor], object], shape: tuple[int, ...]) -> Callable[[Any], object]:
    """The call with the first rows of one buffer a thread for its result: fresh memory is slow."""
    kept = threading.local()

    def run(item: Any) -> object:
        if not hasattr(kept, "out"):
            kept.out = torch.empty(shape, dtype=torch.float64)
        return call(item, kept.out[: len(item)])

    return run


def _each(run: Callable[..., Iterable[object]], call: Callable[[Any], object], items: Sequence[Any]) -> None:
    for _ in run(call, items):
        pass


def _on(threads: int, pools: ThreadpoolController, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        torch.set_num_threads(threads)
        with pools.limit(limits=threads):
            work()

    return run


def _loop(X: np.ndarray[Any, np.dtype[np.float64]], batches: list[Any], gamma: float) -> list[Any]:
    inverses = []
    for batch in batches:
        x = X[batch]
        factor, _ = lapack.dpotrf(rbf_kernel(x, gamma=gamma), lower=1)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverses.append(inverse)
    return inverses
