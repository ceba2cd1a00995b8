"""The nine matrix types with which LAPACK tests positive definite factorisations (TESTING/LIN: dchkpo, dlatb4).

All are norm · Q·diag(1, ..., 1/κ)·Qᵀ, the eigenvalues in geometric progression and Q random orthogonal (the identity in
the diagonal type); norm 1 and κ = 2 unless the name says otherwise, eps the spacing of the dtype at 1. With κ = 0.1/eps
λ_min/λ_max is 10·eps, give or take a rounding: where implementations may, but need not, call a matrix singular.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class MatrixType(NamedTuple):
    """`build(m, dtype, seed)` gives an (m, m) array of the dtype, symmetric bit for bit."""

    build: Callable[[int, str, int], Array]
    singular: bool


def _conditioned(m: int, dtype: str, seed: int, condition: float, *, diagonal: bool = False) -> Array:
    """Eigenvalues from 1 down to 1/condition, or 1 alone for m = 1."""
    spectrum = condition ** -np.linspace(0, 1, m)
    Q = np.eye(m) if diagonal else np.linalg.qr(np.random.default_rng(seed).standard_normal((m, m))).Q
    H = Q * spectrum @ Q.T
    return ((H + H.T) / 2).astype(dtype)


def _random(m: int, dtype: str, seed: int) -> Array:
    return _conditioned(m, dtype, seed, 2.0)


def _ill_conditioned(m: int, dtype: str, seed: int, *, power: float) -> Array:
    return _conditioned(m, dtype, seed, (0.1 / float(np.finfo(dtype).eps)) ** power)


def _scaled(m: int, dtype: str, seed: int, *, exponent: int) -> Array:
    """The random type times (tiny/4eps)^exponent, a power of two and so exact; its inverse fits the dtype."""
    info = np.finfo(dtype)
    return _random(m, dtype, seed) * (info.tiny / info.eps / 4) ** exponent


def _zeroed(m: int, dtype: str, seed: int, *, zeroed: Callable[[int], int]) -> Array:
    """The random type with one row and column, counted from 0, set to 0."""
    H = _random(m, dtype, seed)
    H[zeroed(m)] = H[:, zeroed(m)] = 0
    return H


POSITIVE_DEFINITE_TYPES = {
    "diagonal": MatrixType(partial(_conditioned, condition=2.0, diagonal=True), singular=False),
    "random": MatrixType(_random, singular=False),
    "first row and column 0": MatrixType(partial(_zeroed, zeroed=lambda _: 0), singular=True),
    "last row and column 0": MatrixType(partial(_zeroed, zeroed=lambda m: m - 1), singular=True),
    "middle row and column 0": MatrixType(partial(_zeroed, zeroed=lambda m: m // 2), singular=True),
    "condition sqrt(0.1/eps)": MatrixType(partial(_ill_conditioned, power=0.5), singular=False),
    "condition 0.1/eps": MatrixType(partial(_ill_conditioned, power=1.0), singular=False),
    "near underflow": MatrixType(partial(_scaled, exponent=1), singular=False),
    "near overflow": MatrixType(partial(_scaled, exponent=-1), singular=False),
}
