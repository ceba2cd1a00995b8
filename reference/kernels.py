"""Gram matrices of a mini-batch: H_ij = k(x_i, x_j), the Hessian of the paper's kernel machine (section 2)."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from reference import _checks as check
from reference._checks import Array

KERNELS = ("rbf", "linear", "polynomial")


def gram(X: ArrayLike, kernel: str = "rbf", *, gamma: float = 1.0, degree: float = 3, coef0: float = 1.0) -> Array:
    """Gram matrix H_ij = k(x_i, x_j) of the rows of X, (..., m, d) → (..., m, m) float64.

    `rbf` exp(−γ‖x−y‖²), `linear` ⟨x,y⟩, `polynomial` (γ⟨x,y⟩ + c₀)^degree; every parameter is checked for
    every kernel. Symmetric bit for bit; the RBF diagonal is exactly 1, and an RBF value whose γ‖x−y‖² overflows is 0.
    ‖x−y‖² or ⟨x,y⟩ alone may leave the range of float64.

    Raises TypeError (X not real, a parameter no real number), ValueError (shape, non-finite X, unknown
    kernel, γ ≤ 0, degree not an integer ≥ 1, c₀ not finite), FloatingPointError (the result overflows).
    """
    x = check.real_array("X", X)
    gamma, degree, coef0 = (
        check.real_scalar(name, value) for name, value in (("gamma", gamma), ("degree", degree), ("coef0", coef0))
    )
    check.rank("X", x, 2, batched=True)
    check.one_of("kernel", kernel, KERNELS)
    gamma = check.in_range("gamma", gamma, 0, open_low=True)
    degree = check.whole("degree", degree, 1)
    check.in_range("coef0", coef0, -np.inf)
    check.finite(X=x)

    members = x.reshape(-1, *x.shape[-2:])
    H = np.empty((len(members), x.shape[-2], x.shape[-2]))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for member, rows in enumerate(members):
            if kernel == "rbf":
                H[member] = _rbf(rows, gamma)
            elif kernel == "linear":
                lower = np.tril(rows @ rows.T)
                H[member] = lower + np.tril(lower, -1).T
            else:
                H[member] = (_scaled_products(rows, gamma) + coef0) ** degree
    return check.no_overflow(f"gram ({kernel})", H.reshape(*x.shape[:-1], x.shape[-2]))


def _rbf(rows: Array, gamma: float) -> Array:
    """exp(−γ‖x−y‖²) from the differences of the rows: translation invariant without centring, and no cancellation."""
    # For γ < 1 half of its exponent, a power of two and so exact, goes into the rows.
    half = min(0, int(np.frexp(gamma)[1]) // 2)
    squares = pdist(np.ldexp(rows, half), "sqeuclidean")
    return np.exp(squareform(-np.ldexp(gamma, -2 * half) * squares))


def _scaled_products(rows: Array, gamma: float) -> Array:
    """γ⟨x,y⟩ from products that are a significand and an exponent each, so that none leaves the range of float64."""
    significands, exponents = np.frexp(rows)
    factor, shift = np.frexp(gamma)
    H = np.empty((len(rows), len(rows)))
    for i, (x, e) in enumerate(zip(significands, exponents, strict=True)):
        products = x * significands
        powers = np.where(products == 0, -(10**4), e + exponents)  # 0 has no exponent to compare
        largest = powers.max(axis=1)
        sums = np.sum(np.ldexp(products, powers - largest[:, None]), axis=1)
        H[i] = np.ldexp(factor * sums, largest + shift)
    return H


def random_psd(m: int, seed: int, *, rank: int | None = None) -> Array:
    """Random positive semi-definite (m, m) matrix AAᵀ/rank, A standard normal (m, rank): the control of section 4.5.

    The paper does not say how its random matrix is drawn; this is the Wishart choice, `rank` = m where None,
    of expectation I. Raises TypeError or ValueError for m or rank that are not integers ≥ 1.
    """
    rows = check.whole("m", check.real_scalar("m", m), 1)
    columns = rows if rank is None else check.whole("rank", check.real_scalar("rank", rank), 1)
    A = np.random.default_rng(seed).standard_normal((rows, columns))
    return gram(A / np.sqrt(columns), "linear")
