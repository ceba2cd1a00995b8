"""The inverse of a Gram matrix through its Cholesky factor, and what happens where there is none."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, eigvalsh
from scipy.linalg.lapack import dpocon, dpotrf, dpotri

from reference import _checks as check
from reference._checks import Array

EPS = float(np.finfo(np.float64).eps)


def inverse_gram(H: ArrayLike, *, ridge: float = 0.0, singular: Literal["raise", "pinv"] = "raise") -> Array:
    """(H + ridge·I)⁻¹, (..., m, m) → (..., m, m) float64, symmetric bit for bit.

    A member is numerically singular where λ_min ≤ m·eps·λ_max or λ_max = 0. With `singular="pinv"` such a
    member gets its pseudoinverse (eigenvalues up to m·eps·λ_max taken as 0), as the published paper has it.

    Raises TypeError (H or ridge not real), ValueError (shape, non-finite, unknown `singular`, ridge < 0, a
    member with max|H − Hᵀ| > 100·eps·max|H|; below that the lower triangle counts), numpy.linalg.LinAlgError
    (singular with "raise"; indefinite, λ_min < −m·eps·λ_max, always), FloatingPointError (overflow).
    """
    h = check.real_array("H", H)
    ridge = check.real_scalar("ridge", ridge)
    check.square("H", h, batched=True)
    check.one_of("singular", singular, ("raise", "pinv"))
    check.in_range("ridge", ridge, 0)
    check.finite(H=h)

    inverse = np.empty_like(h)
    with np.errstate(over="ignore", under="ignore"):
        for index in np.ndindex(h.shape[:-2]):
            _require_symmetric(h[index], index)
            shifted = check.no_overflow("H + ridge·I", h[index] + ridge * np.eye(h.shape[-1]))
            scaled, exponent = _scaled(shifted)
            inverse[index] = np.ldexp(_invert(scaled, exponent, index, singular), -exponent)
    return check.no_overflow("inverse_gram", inverse)


def condition_estimate(H: ArrayLike) -> Array:
    """LAPACK's estimate (pocon) of the 1-norm condition number ‖H‖₁‖H⁻¹‖₁, (..., m, m) → (...).

    Infinite where the Cholesky factorisation of the member breaks down. Raises as `inverse_gram` does for bad input.
    """
    h = check.real_array("H", H)
    check.square("H", h, batched=True)
    check.finite(H=h)
    estimate = np.empty(h.shape[:-2])
    with np.errstate(over="ignore", under="ignore"):
        for index in np.ndindex(estimate.shape):
            _require_symmetric(h[index], index)
            estimate[index] = _condition(_scaled(h[index])[0])
    return estimate


def _require_symmetric(member: Array, index: tuple[int, ...]) -> None:
    asymmetry = np.max(np.abs(member - member.T))
    if asymmetry > 100 * EPS * np.max(np.abs(member)):
        raise ValueError(f"H: expected symmetric matrices, got max|H - H^T| = {asymmetry:.3g} in member {index}")


def _scaled(A: Array) -> tuple[Array, int]:
    """A·2^-e and e, its largest entry about 1: exact, and neither norms nor eigenvalues leave the range of float64.

    e is even, so that square roots of powers of 4 stay exact: the inverse of I is I.
    """
    exponent = 2 * (int(np.frexp(np.max(np.abs(A)))[1]) // 2)
    return np.ldexp(A, -exponent), exponent


def _condition(A: Array) -> float:
    factor, info = dpotrf(A, lower=1)
    if info != 0:
        return np.inf
    # pocon takes the norm of the symmetric matrix whose lower triangle counts.
    norm = np.max(np.sum(np.abs(_mirrored(A)), axis=0))
    rcond, _ = dpocon(factor, norm, uplo="L")
    return float(1 / rcond) if rcond > 0 else np.inf


def _invert(A: Array, exponent: int, index: tuple[int, ...], singular: str) -> Array:
    eigenvalues = eigvalsh(A, lower=True)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    threshold = len(A) * EPS * high
    factor, info = dpotrf(A, lower=1, clean=1)
    if low < -threshold:
        raise np.linalg.LinAlgError(f"H: member {index} is indefinite: {_range(low, high, A, exponent)}")
    if low > threshold and info == 0:
        return _mirrored(dpotri(factor, lower=1)[0])
    if singular == "raise":
        raise np.linalg.LinAlgError(
            f"H: member {index} is numerically singular: {_range(low, high, A, exponent)}; "
            'add a ridge or take singular="pinv"'
        )
    return _pseudoinverse(A, threshold)


def _range(low: float, high: float, A: Array, exponent: int) -> str:
    low, high, threshold = np.ldexp((low, high, len(A) * EPS * high), exponent)
    return (
        f"eigenvalues from {low:.6g} to {high:.6g}, condition estimate {_condition(A):.3g}; "
        f"expected the smallest above m·eps·λ_max = {threshold:.3g}"
    )


def _pseudoinverse(A: Array, threshold: float) -> Array:
    # SciPy's default driver ("evr") is wrong by several m·eps·λ_max here: it would invert eigenvalues that are 0.
    eigenvalues, vectors = eigh(A, lower=True, driver="evd")
    kept = eigenvalues > threshold
    half = vectors[:, kept]
    return _mirrored((half / eigenvalues[kept]) @ half.T)


def _mirrored(A: Array) -> Array:
    """The symmetric matrix with the lower triangle of A."""
    return np.tril(A) + np.tril(A, -1).T
