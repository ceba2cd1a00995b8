"""The reshaping rule of section 3.1: the m × m inverse made to fit a layer with d_in inputs."""

import numpy as np
from numpy.typing import ArrayLike

from reference import _checks as check
from reference._checks import Array


def reshape_inverse(Hinv: ArrayLike, d_in: float) -> Array:
    """P, (..., m, m) → (..., d_in, d_in): P[:k, :k] = Hinv[:k, :k] with k = min(m, d_in), all else exactly 0.

    m < d_in pads with zeros, m > d_in drops the last rows and columns (section 3.1, i and ii). Raises
    TypeError (not real), ValueError (not square, non-finite, d_in not an integer ≥ 1).
    """
    inverse = check.real_array("Hinv", Hinv)
    d_in = check.real_scalar("d_in", d_in)
    check.square("Hinv", inverse, batched=True)
    size = check.whole("d_in", d_in, 1)
    check.finite(Hinv=inverse)
    k = min(inverse.shape[-1], size)
    P = np.zeros((*inverse.shape[:-2], size, size))
    P[..., :k, :k] = inverse[..., :k, :k]
    return P
