"""Building the kernel cache, against its own parts timed alone and against a loop in scikit-learn and SciPy."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.linalg import lapack
from sklearn.metrics.pairwise import rbf_kernel  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from gpu import torch_ops
from gpu.bench.timing import Seconds, interleaved, paired_ratios
from gpu.optim import KernelCache, mini_batches
from gpu.train.errors import UsageError
from gpu.train.provenance import provenance

PARTS = ("matrix product", "exponential", "cholesky", "inverse")
BEST_PARTS = ("half product", *PARTS[1:])


def cache(*, n: int, d: int, m: int, gamma: float, repeats: int) -> dict[str, Any]:
    """Seconds for the float64 inverses of n uniform instances of d features in mini-batches of m, on one thread.

    `ratio_to_parts`: the build over the sum of torch's matrix products, exponentials, Cholesky factors and inverses,
    each timed alone in batched calls of the build's own size; `ratio_to_best_parts`: the same with the product that the
    build uses, which computes one triangle. `speedup_over_loop`: a loop of scikit-learn's `rbf_kernel` with LAPACK's
    potrf and potri, over the build. Medians over interleaved rounds. Raises UsageError where there are no
    such inverses.
    """
    torch.set_num_threads(1)
    m = min(m, n)
    X = torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batches = mini_batches(n, m, seed=0)
    done: list[int] = []
    try:
        singular = KernelCache(X, batches, gamma=gamma, progress=done.append).singular
    except ValueError as error:
        raise UsageError(str(error)) from error
    if singular:
        raise UsageError(
            f"gamma: {gamma:g} makes {singular} of the kernel matrices of {d} features singular, and the slow path is "
            "not what is measured here; raise gamma or d"
        )
    with threadpool_limits(1):
        seconds = interleaved(
            {
                "build": lambda: KernelCache(X, batches, gamma=gamma),
                "loop": partial(_loop, X.numpy(), [batch.numpy() for batch in batches], gamma),
                **_parts(X, m, done[0], gamma),
            },
            repeats,
        )
    ratios = {
        "ratio_to_parts": paired_ratios(seconds["build"], _sums(seconds, PARTS)),
        "ratio_to_best_parts": paired_ratios(seconds["build"], _sums(seconds, BEST_PARTS)),
        "speedup_over_loop": paired_ratios(seconds["loop"], seconds["build"]),
    }
    return {
        **{name: ratio for name, (ratio, _) in ratios.items()},
        "spread": {name: spread for name, (_, spread) in ratios.items()},
        "seconds": {name: median(times) for name, times in seconds.items()},
        "n": n,
        "d": d,
        "m": m,
        "gamma": gamma,
        "mini_batches_per_call": done[0],
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        **provenance(),
    }


def _sums(seconds: Seconds, parts: Sequence[str]) -> list[float]:
    """What the parts take together, round by round."""
    return [sum(times) for times in zip(*(seconds[name] for name in parts), strict=True)]


def _parts(X: Tensor, m: int, chunk: int, gamma: float) -> dict[str, Any]:
    """The build's parts, in calls of the build's size: the products over all of X, the rest on one chunk."""
    chunks = torch.split(X[: len(X) // m * m].view(-1, m, X.shape[1]), chunk)
    H = torch.exp(-gamma * torch.cdist(chunks[0], chunks[0]).square())
    exponent, factor = H.log(), torch.linalg.cholesky(H)
    work: dict[str, Callable[[Tensor], Tensor]] = {
        "matrix product": lambda x: x @ x.mT,
        "half product": torch_ops.half_products,
        "exponential": lambda x: exponent[: len(x)].exp(),
        "cholesky": lambda x: torch.linalg.cholesky(H[: len(x)]),
        "inverse": lambda x: torch.cholesky_inverse(factor[: len(x)]),
    }
    return {name: partial(_each, operation, chunks) for name, operation in work.items()}


def _each(operation: Callable[[Tensor], Tensor], chunks: Sequence[Tensor]) -> None:
    for x in chunks:
        operation(x)


def _loop(X: np.ndarray[Any, np.dtype[np.float64]], batches: list[Any], gamma: float) -> list[Any]:
    inverses = []
    for batch in batches:
        x = X[batch]
        factor, _ = lapack.dpotrf(rbf_kernel(x, gamma=gamma), lower=1)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverses.append(inverse)
    return inverses
