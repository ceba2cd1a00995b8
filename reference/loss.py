"""Softmax cross-entropy of a mini-batch (Eq. 6): value, gradient and Hessian in the logits."""

import numpy as np
from numpy.typing import ArrayLike

from reference import _checks as check
from reference._checks import Array, Labels


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[np.float64, Array]:
    """Mean loss J = (1/m) Σ_k [ln Σ_j exp f_kj − f_k,y_k] and ∂J/∂f = (softmax(f) − one-hot)/m, (m, n_c).

    Raises TypeError (logits not real, labels not integers), ValueError (shapes, non-finite logits, a label
    outside [0, n_c)), FloatingPointError (the loss overflows).
    """
    f, y = _logits_and_labels(logits, labels)
    m = len(f)
    rows = np.arange(m)
    with np.errstate(over="ignore", under="ignore"):
        # Shifted by the row's maximum, no exponential overflows and the sum is at least 1.
        shifted = f - np.max(f, axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        total = np.sum(exponentials, axis=1)
        # Each term divided before the sum: a mean that fits does not overflow on the way.
        loss = np.sum((np.log(total) - shifted[rows, y]) / m)
        gradient = exponentials / total[:, None]
        gradient[rows, y] -= 1
    check.no_overflow("softmax_cross_entropy", loss)
    return loss, gradient / m


def softmax_cross_entropy_hvp(logits: ArrayLike, labels: ArrayLike, direction: ArrayLike) -> Array:
    """Hessian of the mean loss in the logits times `direction` V: row k is (p_k∘v_k − p_k⟨p_k, v_k⟩)/m, (m, n_c).

    The labels do not enter the Hessian; they are checked. Raises as `softmax_cross_entropy`; `direction` has the
    shape of the logits.
    """
    V = check.real_array("direction", direction)
    f, _ = _logits_and_labels(logits, labels)
    check.shape("direction", V, f.shape, "that of the logits")
    check.finite(direction=V)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        p = np.exp(f - np.max(f, axis=1, keepdims=True))
        p /= np.sum(p, axis=1, keepdims=True)
        product = p * (V - np.sum(p * V, axis=1, keepdims=True)) / len(f)
    return check.no_overflow("softmax_cross_entropy_hvp", product)


def _logits_and_labels(logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Labels]:
    f, y = check.real_array("logits", logits), check.label_array("labels", labels)
    check.rank("logits", f, 2)
    check.shape("labels", y, f.shape[:1], "one label for every row of the logits")
    check.finite(logits=f)
    outside = np.argwhere((y < 0) | (y >= f.shape[1]))
    if len(outside):
        row = int(outside[0, 0])
        raise ValueError(f"labels: expected classes in [0, {f.shape[1]}), got {y[row]} at index {row}")
    return f, y
