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
    every kernel. Symmetric bit for bit; the RBF diagonal is exactly 1, and an RBF value whose distance overflows is 0.

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
                # Differences of the rows themselves: translation invariant without centring, and no cancellation.
                H[member] = np.exp(-gamma * squareform(pdist(rows, "sqeuclidean")))
            else:
                inner = np.tril(rows @ rows.T)
                inner += np.tril(inner, -1).T
                H[member] = inner if kernel == "linear" else (gamma * inner + coef0) ** degree
    return check.no_overflow(f"gram ({kernel})", H.reshape(*x.shape[:-1], x.shape[-2]))


def random_psd(m: int, seed: int, *, rank: int | None = None) -> Array:
    """Random positive semi-definite (m, m) matrix AAᵀ/rank, A standard normal (m, rank): the control of section 4.5.

    The paper does not say how its random matrix is drawn; this is the Wishart choice, `rank` = m where None,
    of expectation I. Raises TypeError or ValueError for m or rank that are not integers ≥ 1.
    """
    rows = check.whole("m", check.real_scalar("m", m), 1)
    columns = rows if rank is None else check.whole("rank", check.real_scalar("rank", rank), 1)
    A = np.random.default_rng(seed).standard_normal((rows, columns))
    return gram(A / np.sqrt(columns), "linear")
