"""The table of bad input (DESIGN, section 3), row by row: what replaces an argument of a good call, and the answer.

A row's name says operation, argument and what is wrong with it. Values may depend on the precision: a function of
numpy.finfo then stands in their place.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.support.calls import Call

Array = NDArray[Any]
Changes = dict[str, Any] | Callable[[np.finfo], dict[str, Any]]
LinAlgError = np.linalg.LinAlgError
HUGE = 10**400


class Row(NamedTuple):
    """The good call of `operation` with `changes` must raise `error`, its message matching `message`."""

    operation: str
    changes: Changes
    error: type[Exception]
    message: str
    for_any_real: bool = True  # whether it holds for a backend that takes any real array, too

    def call(self, dtype: str) -> Call:
        """The bad call in a precision."""
        changes = self.changes(np.finfo(dtype)) if callable(self.changes) else self.changes
        return good_call(self.operation, dtype, **changes)


# The arrays of a good call, then its other arguments; all dimensions differ.
GOOD: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "gram": ({"X": np.ones((3, 2))}, {"kernel": "rbf", "gamma": 1.0, "degree": 3, "coef0": 1.0}),
    "inverse_gram": ({"H": np.eye(3)}, {"ridge": 0.0, "singular": "raise"}),
    "reshape_inverse": ({"Hinv": np.eye(3)}, {"d_in": 2}),
    "softmax_cross_entropy": ({"logits": np.ones((3, 2)), "labels": np.array([0, 1, 1])}, {}),
    "weight_gradient": ({"dlogits": np.ones((3, 2)), "features": np.ones((3, 4))}, {}),
    "kernel_sgd_step": ({"W": np.ones((2, 4)), "grad": np.ones((2, 4)), "P": np.eye(4)}, {"lr": 0.1}),
}
SCALARS = {
    operation: tuple(name for name, value in scalars.items() if not isinstance(value, str))
    for operation, (_, scalars) in GOOD.items()
}
FLOAT_ARRAYS = [
    (operation, name) for operation, (arrays, _) in GOOD.items() for name in arrays if arrays[name].dtype.kind == "f"
]


def good_call(operation: str, dtype: str, **changes: Any) -> Call:
    """The good call with some arguments changed; its float arrays in `dtype` unless they are changed."""
    arrays, scalars = GOOD[operation]
    in_dtype = {name: array.astype(dtype) if array.dtype.kind == "f" else array for name, array in arrays.items()}
    chosen = tuple(changes.get(name, array) for name, array in in_dtype.items())
    return Call(operation, chosen, {name: changes.get(name, value) for name, value in scalars.items()})


def _shapes() -> dict[str, Row]:
    bad = {
        ("gram", "X"): [(), (3,), (0, 2), (3, 0), (0, 3, 2)],
        ("inverse_gram", "H"): [(3,), (3, 2), (0, 0), (0, 2, 2)],
        ("reshape_inverse", "Hinv"): [(3,), (3, 2), (0, 0)],
        ("softmax_cross_entropy", "logits"): [(3,), (3, 0), (0, 2), (1, 3, 2)],
        ("softmax_cross_entropy", "labels"): [(), (2,), (3, 1)],
        ("weight_gradient", "dlogits"): [(3,), (0, 2), (3, 0), (1, 3, 2)],
        ("weight_gradient", "features"): [(3,), (2, 4), (3, 0)],
        ("kernel_sgd_step", "W"): [(4,), (0, 4), (2, 0)],
        ("kernel_sgd_step", "grad"): [(4,), (4, 2), (1, 4)],
        ("kernel_sgd_step", "P"): [(4,), (3, 3), (2, 4)],
    }
    return {
        f"{operation}: {name} of shape {shape}": Row(
            operation, {name: np.ones(shape, int if name == "labels" else float)}, ValueError, rf"(?s)\b{name}\b"
        )
        for (operation, name), shapes in bad.items()
        for shape in shapes
    }


def _scalars() -> dict[str, Row]:
    never: dict[str, tuple[Any, ...]] = {
        "gamma": (0, -1.0, Fraction(-1, 10**400)),
        "degree": (0, -1, 2.5, Fraction(5, 2)),
        "coef0": (),
        "ridge": (-1e-300,),
        "d_in": (0, -1, 2.5),
        "lr": (-0.1,),
    }
    infinite = (np.nan, np.inf, -np.inf, np.float32("inf"), HUGE)
    no_numbers = (True, np.True_, None, "1", 1j, [1.0])
    rows = {}
    for operation, names in SCALARS.items():
        for name in names:
            for answer, values in ((ValueError, infinite + never[name]), (TypeError, no_numbers)):
                for value in values:
                    shown = "10**400" if value is HUGE else repr(value)
                    rows[f"{operation}: {name} = {shown}"] = Row(operation, {name: value}, answer, rf"\b{name}\b")
    for kernel in ("linear", "polynomial"):
        for name in SCALARS["gram"]:
            rows[f"gram: {name} = nan with the {kernel} kernel"] = Row(
                "gram", {"kernel": kernel, name: np.nan}, ValueError, rf"\b{name}\b"
            )
    for name, operation, choices in (
        ("kernel", "gram", ("RBF", "sigmoid", "", None, 3)),
        ("singular", "inverse_gram", ("ignore", None, True)),
    ):
        for choice in choices:
            rows[f"{operation}: {name} = {choice!r}"] = Row(operation, {name: choice}, ValueError, rf"\b{name}\b")
    for name, operation, exponent in (
        ("gamma", "gram", 1.5),
        ("gamma", "gram", -2.0),
        ("coef0", "gram", 1.5),
        ("degree", "gram", 1.5),
        ("ridge", "inverse_gram", 1.5),
        ("lr", "kernel_sgd_step", 1.5),
    ):
        # As an integer or fraction: no float holds it in double precision.
        def beyond(f: np.finfo, name: str = name, exponent: float = exponent) -> dict[str, Any]:
            power = int(f.maxexp * exponent)
            return {name: 2**power if power > 0 else Fraction(1, 2**-power)}

        what = "infinite" if exponent > 0 else "0"
        rows[f"{operation}: {name} that is {what} in the precision"] = Row(
            operation, beyond, ValueError, rf"\b{name}\b"
        )
    return rows


def _kinds() -> dict[str, Row]:
    rows = {}
    for operation, name in FLOAT_ARRAYS:
        for kind, any_real in ((bool, True), (complex, True), (np.int64, False)):
            rows[f"{operation}: {name} of {np.dtype(kind)}"] = Row(
                operation, {name: GOOD[operation][0][name].astype(kind)}, TypeError, rf"\b{name}\b", any_real
            )
    for kind in (bool, float, complex):
        rows[f"softmax_cross_entropy: labels of {np.dtype(kind)}"] = Row(
            "softmax_cross_entropy", {"labels": np.array([0, 1, 1]).astype(kind)}, TypeError, r"\blabels\b"
        )
    return rows


def _values() -> dict[str, Row]:
    rows = {}
    for operation, name in FLOAT_ARRAYS:
        for value in (np.nan, np.inf, -np.inf):
            array = GOOD[operation][0][name].copy()
            array[-1, 0] = value
            rows[f"{operation}: {name} holds {value}"] = Row(operation, {name: array}, ValueError, rf"\b{name}\b")
    for labels in ([0, 1, 2], [0, -1, 1], [0, -100, 1], [0, 2**62, 1]):
        rows[f"softmax_cross_entropy: labels {labels} of 2 classes"] = Row(
            "softmax_cross_entropy", {"labels": np.array(labels)}, ValueError, r"\blabels\b"
        )
    asymmetric: dict[str, Callable[[np.finfo], Any]] = {
        "by 1000·eps": lambda f: [[1, 0.5], [0.5 + 1000 * f.eps, 1]],
        "in a tiny matrix": lambda f: [[f.tiny, 0], [f.tiny / 64, f.tiny]],
        "in a huge matrix": lambda f: [[1, f.max / 2], [-f.max / 2, 1]],
        "in one member": lambda _: [np.eye(2), [[1, 0.5], [0, 1]]],
    }
    for what, H in asymmetric.items():
        rows[f"inverse_gram: H not symmetric {what}"] = Row(
            "inverse_gram", lambda f, H=H: {"H": np.array(H(f), f.dtype)}, ValueError, r"\bH\b"
        )
    return rows


def _singular() -> dict[str, Row]:
    cases: dict[str, tuple[Any, dict[str, Any], str]] = {
        "0": ([[0.0]], {}, r"\(\)"),
        "duplicates": ([[1.0, 1.0], [1.0, 1.0]], {}, r"\(\)"),
        "huge duplicates": (lambda f: np.full((3, 3), f.max / 2), {}, r"\(\)"),
        "singular only with its ridge": ([[-1.0]], {"ridge": 1.0}, r"\(\)"),
        "indefinite": ([[-1.0]], {}, r"\(\)"),
        "indefinite, pinv": ([[1.0, 2.0], [2.0, 1.0]], {"singular": "pinv"}, r"\(\)"),
        "no positive eigenvalue, pinv": ([[0.0, 0.0], [0.0, -1.0]], {"singular": "pinv"}, r"\(\)"),
        "indefinite in spite of its ridge": ([[-1.0]], {"ridge": 0.5, "singular": "pinv"}, r"\(\)"),
        "one singular member": (np.stack([np.eye(2), np.ones((2, 2))]), {}, r"\(1,\)"),
        "one indefinite member": (np.stack([[np.eye(2)], [-np.eye(2)]]), {"singular": "pinv"}, r"\(1, 0\)"),
    }
    return {
        f"inverse_gram: H {what}": Row(
            "inverse_gram",
            lambda f, H=H, options=options: {"H": np.array(H(f) if callable(H) else H, f.dtype), **options},
            LinAlgError,
            f"(?s)(?=.*{index})(?=.*eigenvalue)(?=.*\\d)",
        )
        for what, (H, options, index) in cases.items()
    }


def _overflow() -> dict[str, Row]:
    def root(f: np.finfo) -> float:
        return float(2.0 ** (0.7 * f.maxexp))

    cases: dict[str, tuple[str, Callable[[np.finfo], dict[str, Any]]]] = {
        "gram: linear kernel overflows": ("gram", lambda f: {"X": np.array([[root(f)]]), "kernel": "linear"}),
        "gram: polynomial kernel overflows": ("gram", lambda f: {"X": np.array([[root(f)]]), "kernel": "polynomial"}),
        "inverse_gram: inverse overflows": ("inverse_gram", lambda f: {"H": np.array([[f.smallest_subnormal]])}),
        "inverse_gram: pseudoinverse overflows": (
            "inverse_gram",
            lambda f: {"H": np.full((2, 2), f.smallest_subnormal), "singular": "pinv"},
        ),
        "softmax_cross_entropy: loss overflows": (
            "softmax_cross_entropy",
            lambda f: {"logits": np.array([[f.max / 1.5, -f.max / 1.5]]), "labels": np.array([1])},
        ),
        "weight_gradient: sum overflows": (
            "weight_gradient",
            lambda f: {"dlogits": np.full((3, 2), root(f)), "features": np.full((3, 4), -root(f))},
        ),
        "kernel_sgd_step: step overflows": (
            "kernel_sgd_step",
            lambda f: {"grad": np.full((2, 4), root(f)), "P": np.full((4, 4), root(f))},
        ),
    }
    return {
        name: Row(operation, changes, FloatingPointError, "overflow") for name, (operation, changes) in cases.items()
    }


def _precedence() -> dict[str, Row]:
    nan = np.full((3, 2), np.nan)
    cases: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
        "gram: type before shape": ("gram", {"X": np.ones(3), "gamma": "1"}, TypeError, "gamma"),
        "gram: shape before value": ("gram", {"X": np.full(3, np.nan), "kernel": "RBF", "gamma": -1}, ValueError, "X"),
        "inverse_gram: type before shape": ("inverse_gram", {"H": nan, "ridge": None}, TypeError, "ridge"),
        "reshape_inverse: shape before value": ("reshape_inverse", {"Hinv": nan, "d_in": 0}, ValueError, "Hinv"),
        "softmax_cross_entropy: type before shape": (
            "softmax_cross_entropy",
            {"logits": np.ones(3), "labels": np.ones(2)},
            TypeError,
            "labels",
        ),
        "softmax_cross_entropy: shape before value": (
            "softmax_cross_entropy",
            {"logits": nan, "labels": np.array([9])},
            ValueError,
            "labels",
        ),
        "weight_gradient: shape before value": (
            "weight_gradient",
            {"dlogits": nan, "features": np.ones((2, 4))},
            ValueError,
            "features",
        ),
        "kernel_sgd_step: type before shape": (
            "kernel_sgd_step",
            {"W": nan, "P": np.eye(3), "lr": True},
            TypeError,
            "lr",
        ),
        "kernel_sgd_step: shape before value": (
            "kernel_sgd_step",
            {"W": np.full((2, 4), np.nan), "P": np.eye(3), "lr": -1.0},
            ValueError,
            "P",
        ),
    }
    return {name: Row(*case[:3], rf"\b{case[3]}\b") for name, case in cases.items()}


TABLE = _shapes() | _scalars() | _kinds() | _values() | _singular() | _overflow() | _precedence()
