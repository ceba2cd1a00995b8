"""The update rule: Eq. 5 in the space of the weights, Eq. 3 in the projected space."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from reference import _checks as check
from reference._checks import Array


def weight_gradient(dlogits: ArrayLike, features: ArrayLike) -> Array:
    """G = ∂J/∂W = dlogitsᵀ · features, (m, n_c), (m, d_in) → (n_c, d_in), for logits = features · Wᵀ.

    Raises TypeError (not real), ValueError (shapes, non-finite), FloatingPointError (overflow).
    """
    d, z = check.real_array("dlogits", dlogits), check.real_array("features", features)
    check.rank("dlogits", d, 2)
    check.rank("features", z, 2)
    check.shape("features", z, (len(d), z.shape[1]), "one row for every row of dlogits")
    check.finite(dlogits=d, features=z)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return check.no_overflow("weight_gradient", d.T @ z)


def kernel_sgd_step(W: ArrayLike, grad: ArrayLike, P: ArrayLike, lr: float) -> Array:
    """W' = W − lr · grad · P (Eq. 5), (n_c, d_in), (n_c, d_in), (d_in, d_in) → (n_c, d_in).

    P need not be symmetric: the product is as written. Raises TypeError (not real), ValueError (shapes,
    non-finite, lr < 0), FloatingPointError (overflow).
    """
    w, G, p = check.real_array("W", W), check.real_array("grad", grad), check.real_array("P", P)
    lr = check.real_scalar("lr", lr)
    check.rank("W", w, 2)
    check.shape("grad", G, w.shape, "that of W")
    check.shape("P", p, (w.shape[1], w.shape[1]), "d_in × d_in, d_in the columns of W")
    check.in_range("lr", lr, 0)
    check.finite(W=w, grad=G, P=p)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return check.no_overflow("kernel_sgd_step", w - lr * (G @ p))


def projected_sgd_step(W: ArrayLike, gradient: Callable[[Array], ArrayLike], projection: ArrayLike, lr: float) -> Array:
    """One SGD step on the projected loss (Eq. 3), there and back: (n_c, d_in) → (n_c, d_in).

    With Ŵ = W·Π^½ and Ĵ(Ŵ) = J(Ŵ·Π^-½): Ŵ' = Ŵ − lr·∇Ĵ(Ŵ), W' = Ŵ'·Π^-½. `gradient` maps a weight matrix to
    ∇J there; `projection` Π (the paper's P, its kernel matrix) is symmetric positive definite. That W' equals
    W − lr·∇J(W)·Π⁻¹ is Eq. 4, which this function does not use.

    Raises TypeError (not real), ValueError (shapes, non-finite, lr < 0, Π not symmetric),
    numpy.linalg.LinAlgError (Π not positive definite), FloatingPointError (overflow).
    """
    w, projected_by = check.real_array("W", W), check.real_array("projection", projection)
    lr = check.real_scalar("lr", lr)
    check.rank("W", w, 2)
    check.shape("projection", projected_by, (w.shape[1], w.shape[1]), "d_in × d_in, d_in the columns of W")
    check.in_range("lr", lr, 0)
    check.finite(W=w, projection=projected_by)
    root, inverse_root = _square_roots(projected_by)

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        projected = w @ root
        G = check.real_array("gradient(W)", gradient(projected @ inverse_root))
        check.shape("gradient(W)", G, w.shape, "that of W")
        projected = projected - lr * (G @ inverse_root)
        return check.no_overflow("projected_sgd_step", projected @ inverse_root)


def _square_roots(projection: Array) -> tuple[Array, Array]:
    if not np.array_equal(projection, projection.T):
        raise ValueError("projection: expected a symmetric matrix")
    eigenvalues, vectors = eigh(projection)
    if eigenvalues[0] <= 0:
        raise np.linalg.LinAlgError(
            f"projection: expected a positive definite matrix, got eigenvalues from {eigenvalues[0]:.6g} "
            f"to {eigenvalues[-1]:.6g}"
        )
    scale = np.sqrt(eigenvalues)
    return (vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T
