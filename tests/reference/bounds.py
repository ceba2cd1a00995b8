"""What rounding may do: bounds that more than one file of properties needs."""

import numpy as np
from numpy.typing import NDArray

from tests.support import ratios

Array = NDArray[np.float64]
Labels = NDArray[np.integer]

EPS = float(np.finfo(np.float64).eps)
U = EPS / 2  # unit roundoff


def loss_rounding(f: Array, y: Labels, J: float) -> float:
    """An upper bound on the error of the computed loss J of logits f: its ratio at the threshold."""
    below = f.max(axis=1) - f[np.arange(len(f)), y]
    return float(ratios.THRESHOLD * U * ((len(f) + 2) * J + f.shape[1] + 3 + below.mean()))


def central_difference(above: float, below: float, h: float, third: float, rounding: float) -> tuple[float, float]:
    """(J(h) − J(−h))/2h and an upper bound on its error: h²/6 times the `third` derivative, and the rounding of J."""
    return (above - below) / (2 * h), h**2 / 6 * third + rounding / h


def third_moment(spread: float) -> float:
    """The largest third central moment of values within a range: that third derivatives of log-sum-exp are below."""
    return spread**3 / (6 * np.sqrt(3))
