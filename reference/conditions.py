"""When a Kernel SGD step of the last layer does not raise the loss: conditions on η, P and the ridge.

Notation: features Z (m, d_in), symmetric P (d_in, d_in), residual R = softmax − one-hot (m, n_c), K = ZPZᵀ/m, with a
separate bias that moves by SGD K = (ZPZᵀ + 11ᵀ)/m. The step changes the logits by −η·KR, and J by Taylor's formula:

    J(F − ηKR) − J(F) = −(η/m)⟨R, KR⟩ + (η²/2m) Σ_k Var_{q_k}((KR)_k),   q_k a softmax between the two.

A variance is at most range²/4 (Popoviciu), a range at most √2 times the norm, and ‖KR‖² ≤ λ_max(K)⟨R, KR⟩ for
positive semi-definite K. That is all that the mini-batch conditions rest on.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh

from reference import _checks as check
from reference._checks import Array


def instance_form(z: ArrayLike, P: ArrayLike) -> float:
    """zᵀPz for one instance's features z (d_in,) and any P (d_in, d_in); its sign decides, for every η > 0.

    The logits move by −η·zᵀPz·(softmax − one-hot): J does not rise where zᵀPz ≥ 0 and rises strictly where zᵀPz < 0
    (unless softmax = one-hot). Raises TypeError (not real), ValueError (shapes, non-finite), FloatingPointError.
    """
    features, p = check.real_array("z", z), check.real_array("P", P)
    check.rank("z", features, 1)
    check.shape("P", p, (len(features), len(features)), "d_in × d_in, d_in the length of z")
    check.finite(z=features, P=p)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(check.no_overflow("instance_form", features @ p @ features))


def max_learning_rate(features: ArrayLike, P: ArrayLike, *, bias: bool = False) -> float:
    """4/λ_max(K): up to this η the mean loss of the mini-batch does not rise, whatever W, labels and n_c.

    Infinite for K = 0. Raises TypeError, ValueError (shapes, non-finite, P not symmetric), FloatingPointError, and
    numpy.linalg.LinAlgError where K is not positive semi-definite: no such η exists then. Rounding of K's entries,
    an eigenvalue of at least −(m + d_in)·eps·‖|Z||P||Z|ᵀ/m‖, is forgiven.
    """
    z, p = check.real_array("features", features), check.real_array("P", P)
    eigenvalues = eigvalsh(_logit_kernel(z, p, bias))
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    # Where ZPZᵀ cancels, its rounding has the size of the terms, not that of λ_max.
    size = np.linalg.norm(_logit_kernel(np.abs(z), np.abs(p), bias), np.inf)
    if low < -sum(z.shape) * np.finfo(np.float64).eps * size:
        raise np.linalg.LinAlgError(
            f"P: expected ZPZᵀ positive semi-definite, got eigenvalues of K from {low:.6g} to {high:.6g}"
        )
    return 4 / high if high > 0 else np.inf


def sharp_learning_rate(features: ArrayLike, P: ArrayLike, residual: ArrayLike, *, bias: bool = False) -> float:
    """8⟨R, KR⟩ / Σ_k range((KR)_k)²: the sharper bound on η, for these labels and this W.

    Never below 4/λ_max(K) for a positive semi-definite K, but for rounding; where KR is 0 but for rounding, so that the
    quotient is one of roundings, it can be anything. Infinite where KR changes no difference of logits, 0.0 where
    ⟨R, KR⟩ ≤ 0 and it does: the step then climbs at first order or nothing is known. K need not be definite. Raises as
    `max_learning_rate`, without the LinAlgError.
    """
    R = check.real_array("residual", residual)
    K = _logit_kernel(features, P, bias)
    check.rank("residual", R, 2)
    check.shape("residual", R, (len(K), R.shape[1]), "one row for every row of the features")
    check.finite(residual=R)
    with np.errstate(over="ignore", invalid="ignore"):
        change = check.no_overflow("sharp_learning_rate", K @ R)
        ranges = check.no_overflow("sharp_learning_rate", change.max(axis=1) - change.min(axis=1))
        largest = float(ranges.max())
        if largest == 0:
            return np.inf
        # In units of the largest range, whose square may leave the range of float64.
        slope = check.no_overflow("sharp_learning_rate", np.sum(R * (change / largest)))
        return max(0.0, 8 * float(slope) / float(np.sum((ranges / largest) ** 2)) / largest)


def guaranteeing_ridge(features: ArrayLike, lr: float, *, bias: bool = False) -> float:
    """The ridge that makes η = lr safe for these features, whatever the positive semi-definite kernel matrix.

    With λ = λ_max(ZᵀZ/m): η·λ/4 without, η·λ/(4 − η) with a separate bias, since (H + ridge·I)⁻¹, padded or truncated,
    has no eigenvalue above 1/ridge. Raises TypeError, ValueError (shape, non-finite, lr < 0; with a bias lr ≥ 4, where
    no ridge suffices), FloatingPointError.
    """
    z, lr = check.real_array("features", features), check.real_scalar("lr", lr)
    check.rank("features", z, 2)
    check.in_range("lr", lr, 0)
    if bias and lr >= 4:
        raise ValueError(f"lr: expected a learning rate < 4 with a separate bias, got {lr!r}")
    check.finite(features=z)
    with np.errstate(over="ignore"):
        largest = check.no_overflow("guaranteeing_ridge", np.float64(np.linalg.norm(z, 2)) ** 2 / len(z))
    return float(lr * largest / (4 - lr if bias else 4))


def _logit_kernel(features: ArrayLike, P: ArrayLike, bias: bool) -> Array:
    z, p = check.real_array("features", features), check.real_array("P", P)
    check.rank("features", z, 2)
    check.shape("P", p, (z.shape[1], z.shape[1]), "d_in × d_in, d_in the columns of the features")
    check.finite(features=z, P=p)
    if not np.array_equal(p, p.T):
        raise ValueError("P: expected a symmetric matrix")
    with np.errstate(over="ignore", invalid="ignore"):
        K = (z @ p @ z.T + (1 if bias else 0)) / len(z)
        return check.no_overflow("ZPZᵀ/m", (K + K.T) / 2)
