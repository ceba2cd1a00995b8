"""Inverse RBF kernel matrices on a GPU: the fused kernel, CuPy's libraries and torch.linalg, on the same data."""

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.bench.timing import interleaved, paired_ratios
from gpu.train.errors import UsageError
from gpu.train.provenance import provenance
from gpu.train.study import require_device


def gpu_cache(*, n: int, d: int, m: int, gamma: float, repeats: int) -> dict[str, Any]:
    """Seconds for the float64 inverses of n uniform instances of d features in mini-batches of m, no ragged one.

    Data and results lie on the GPU: nothing is gathered or stored, unlike in the bench on the processor.
    See `compared`. Raises UsageError where there is no GPU or no CuPy.
    """
    require_device("cuda")
    try:
        from gpu import cupy_ops
    except ImportError as error:
        raise UsageError(f"device: {error}") from error
    import cupy

    m = min(m, n)
    X = np.random.default_rng(0).random((n // m, m, d))
    figures = compared(cupy_ops.from_numpy(X, "float64"), torch.from_numpy(X).cuda(), gamma, repeats)
    origin = provenance()
    origin["versions"] |= {"cupy": cupy.__version__, "cuda": torch.version.cuda}
    return figures | {"n": n, "d": d, "m": m, "gamma": gamma, "repeats": repeats, **origin} | _device()


def compared(X: Any, x: Tensor, gamma: float, repeats: int) -> dict[str, Any]:
    """The same (c, m, d) as an array of CuPy or NumPy and as a tensor: seconds of three ways, torch's over the others.

    `difference`: the largest of the fused kernel's inverses from torch's, over the largest entry. Medians over
    interleaved rounds, each to the end of its work on the device.
    """
    from gpu.cupy_ops import to_numpy
    from gpu.kernels.rbf_inverse import rbf_inverses, rbf_inverses_twin

    fused, failed = rbf_inverses(X, gamma=gamma)
    if count := int(failed.sum().item()):
        raise UsageError(
            f"gamma: {gamma:g} makes {count} of the kernel matrices nearly singular, and the slow path is not what is "
            "measured here; raise gamma or d"
        )
    expected = torch_inverses(x, gamma).numpy(force=True)
    difference = abs(to_numpy(fused) - expected).max() / abs(expected).max()
    ways: dict[str, Callable[[], object]] = {
        "fused kernel": lambda: rbf_inverses(X, gamma=gamma),
        "cupy libraries": lambda: rbf_inverses_twin(X, gamma=gamma),
        "torch.linalg": lambda: torch_inverses(x, gamma),
    }
    seconds = interleaved({name: _completed(way, x) for name, way in ways.items()}, repeats)
    ratios = {name: paired_ratios(seconds["torch.linalg"], seconds[name]) for name in list(ways)[:-1]}
    return {
        "speedup_over_torch": {name: ratio for name, (ratio, _) in ratios.items()},
        "spread": {name: spread for name, (_, spread) in ratios.items()},
        "seconds": {name: median(times) for name, times in seconds.items()},
        "difference": float(difference),
    }


def torch_inverses(x: Tensor, gamma: float) -> Tensor:
    """Inverse RBF kernel matrices as one would write them with torch.linalg, unchecked: (c, m, d) → (c, m, m)."""
    H = torch.exp(-gamma * torch.cdist(x, x).square())
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(H)[0])


def _completed(way: Callable[[], object], x: Tensor) -> Callable[[], None]:
    def run() -> None:
        way()
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def _device() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"device": properties.name, "compute_capability": f"{properties.major}.{properties.minor}"}
