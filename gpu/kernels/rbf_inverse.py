"""Inverse RBF kernel matrices of mini-batches in one launch: Gram matrix, Cholesky factor and inverse in shared memory.

One thread block works on one mini-batch and holds one packed triangle of m(m+1)/2 numbers, which is in turn Gram
matrix, factor and inverse factor; X passes through in chunks of 16 features. The library path writes and reads six
m × m matrices in global memory instead, in a dozen launches.

Distances are sums of squared differences: no cancellation, hence no centring and no clamping, duplicates at distance
exactly 0, and an entry that overflows is exp(−∞) = 0. As one triangle is enough, that takes no more instructions than
the matrix product does (a subtraction and a fused multiply-add for each of m²/2 pairs, against m² of the latter, tensor
cores left aside).

What bounds its time, for c mini-batches of m × d float64 (derived, not measured):

- global memory: c·m·(d + m)·8 bytes, each once, though the mirrored half of an inverse is written by columns;
- arithmetic: c·(1.5·m²·d + m³) FLOPs, the first term in registers, 16 pairs for 8 reads of shared memory;
- latency: 2·m + 2·d/16 synchronisations, one after the other, with m²/2 multiply-adds or fewer between two. For m of
  the paper (64) that is what a block waits for; blocks beside it on the same multiprocessor fill the time;
- occupancy: m(m+1)/2 + 16·(m+1) numbers a block, 24 KiB at m = 64 and 81 KiB at 128, of which Hopper has 227 KiB for
  each multiprocessor: 3 blocks (80 registers a thread allow no more), 2 from m = 123 and 1 from m = 155 to 224, the
  largest; in float32, 324.
"""

from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from gpu import cupy_ops

Array = Any  # cupy.ndarray or numpy.ndarray

THREADS, CHUNK, SIDE = 256, 16, 4
SOURCE = Path(__file__).with_suffix(".cu")
DEFINITIONS = (f"-DTHREADS={THREADS}", f"-DCHUNK={CHUNK}", f"-DSIDE={SIDE}")


def rbf_inverses(X: Array, *, gamma: float, ridge: float = 0.0) -> tuple[Array, Array]:
    """(H + ridge·I)⁻¹ with H_ij = exp(−γ‖x_i−x_j‖²) of every mini-batch: (c, m, d) → (c, m, m), (c,) bool.

    float64 or float32, symmetric bit for bit. The second result marks at least what `cupy_ops.cholesky_inverses` calls
    suspicious, and what is not finite. Inverses of marked members mean nothing: `cupy_ops.inverse_gram` of their Gram
    matrices decides.
    On a GPU one launch where a triangle fits in shared memory, else and on NumPy arrays `rbf_inverses_twin`.
    Raises TypeError for other dtypes, ValueError for another rank or an empty X, γ ≤ 0, ridge < 0.
    """
    if X.dtype not in (np.float64, np.float32):
        raise TypeError(f"X is {X.dtype}: expected float64 or float32")
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}: expected (c, m, d) and no empty dimension")
    if not (0 < gamma < np.inf and 0 <= ridge < np.inf):
        raise ValueError(f"gamma is {gamma!r}, ridge is {ridge!r}: expected finite numbers, gamma > 0 and ridge >= 0")
    if isinstance(X, np.ndarray):
        return rbf_inverses_twin(X, gamma=gamma, ridge=ridge)
    with X.device as device:
        if shared_bytes(X.shape[1], X.dtype) > device.attributes["MaxSharedMemoryPerBlockOptin"]:
            return rbf_inverses_twin(X, gamma=gamma, ridge=ridge)
        return _launch(cupy.ascontiguousarray(X), gamma, ridge)


def rbf_inverses_twin(X: Array, *, gamma: float, ridge: float = 0.0) -> tuple[Array, Array]:
    """`rbf_inverses` by the libraries' batched routines; an X that is not finite is a ValueError here."""
    H = cupy_ops.gram(X, gamma=gamma)
    return cupy_ops.cholesky_inverses(H + ridge * cupy.get_array_module(X).eye(H.shape[-1], dtype=X.dtype))


def shared_bytes(m: int, dtype: Any) -> int:
    """Shared memory of one thread block: a packed triangle and one chunk of X, its rows rounded up to whole squares."""
    rows = -(-m // SIDE) * SIDE
    return (m * (m + 1) // 2 + CHUNK * (rows + 1)) * int(np.dtype(dtype).itemsize)


def _launch(X: Array, gamma: float, ridge: float) -> tuple[Array, Array]:
    c, m, d = X.shape
    inverses, failed = cupy.empty((c, m, m), dtype=X.dtype), cupy.empty(c, dtype=bool)
    real, shared = X.dtype.type, shared_bytes(m, X.dtype)
    kernel = _kernel("double" if real is np.float64 else "float")
    kernel.max_dynamic_shared_size_bytes = shared
    largest_norm = cupy_ops.largest_condition(m, X.dtype) / (m + ridge)  # of the inverse: ‖H + ridge·I‖₁ ≤ m + ridge
    scalars = (np.int32(m), np.int32(d), real(gamma), real(ridge), real(largest_norm))
    kernel((c,), (THREADS,), (X, *scalars, inverses, failed), shared_mem=shared)
    return inverses, failed


@cache
def _kernel(real: str) -> Any:
    name = f"rbf_inverse<{real}>"
    options = ("--std=c++17", *DEFINITIONS)
    return cupy.RawModule(code=SOURCE.read_text("utf-8"), options=options, name_expressions=(name,)).get_function(name)
