"""What every operation asks of its arguments: types first, then shapes, then values (DESIGN, the table of bad input).

Arrays become float64 here, once, so that the formulas that follow never meet another dtype.
"""

import math
from numbers import Real
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
Result = TypeVar("Result", Array, np.float64)


def real_array(name: str, value: ArrayLike) -> Array:
    """`value` as float64. TypeError for anything but integers and real floats (bool and complex included)."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {array.dtype}")
    return array.astype(np.float64)


def label_array(name: str, value: ArrayLike) -> Labels:
    """`value` as an integer array. TypeError for floats and bool."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer class labels, got dtype {array.dtype}")
    return cast(Labels, array)


def real_scalar(name: str, value: object) -> float:
    """`value` as a float. TypeError for bool, strings, arrays, None; a value beyond float64 becomes infinite."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a real number, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value == abs(value) else -math.inf


def in_range(name: str, value: float, low: float, *, open_low: bool = False) -> float:
    """`value` if it is finite and at least (`open_low`: above) `low`, else ValueError."""
    if not math.isfinite(value) or value < low or (open_low and value == low):
        raise ValueError(f"{name}: expected a finite number {'>' if open_low else '>='} {low:g}, got {value!r}")
    return value


def whole(name: str, value: float, low: int) -> int:
    """`value` as an int if it is integral (2.0 is) and at least `low`, else ValueError."""
    if not math.isfinite(value) or value != math.floor(value) or value < low:
        raise ValueError(f"{name}: expected an integer >= {low}, got {value!r}")
    return int(value)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")


def rank(name: str, array: NDArray[Any], ndim: int, *, batched: bool = False) -> None:
    """ValueError unless `array` has `ndim` dimensions (`batched`: at least) and no empty one."""
    fits = array.ndim >= ndim if batched else array.ndim == ndim
    if not fits or 0 in array.shape:
        least = "at least " if batched else ""
        raise ValueError(f"{name}: expected {least}{ndim} non-empty dimensions, got shape {array.shape}")


def shape(name: str, array: NDArray[Any], expected: tuple[int, ...], why: str) -> None:
    """ValueError unless `array` has the `expected` shape; `why` says where that comes from."""
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected} ({why}), got {array.shape}")


def square(name: str, array: Array, *, batched: bool = False) -> None:
    """ValueError unless the last two dimensions of `array` are equal and not empty."""
    rank(name, array, 2, batched=batched)
    if array.shape[-1] != array.shape[-2]:
        raise ValueError(f"{name}: expected square matrices, got shape {array.shape}")


def finite(**arrays: Array) -> None:
    """ValueError naming the first array with a NaN or an infinity, and where it is."""
    for name, array in arrays.items():
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(f"{name}: expected finite entries, got {array[where]} at index {where}")


def no_overflow(operation: str, result: Result) -> Result:
    """`result` if it is finite, else FloatingPointError: finite input that left the range of float64."""
    if not np.all(np.isfinite(result)):
        raise FloatingPointError(f"{operation}: the result overflows float64; scale the input down")
    return result
