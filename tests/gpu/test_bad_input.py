"""Bad input gets the same answer from the reference and from torch: one row per kind of mistake."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import reference
from gpu import torch_ops
from tests.support import ratios

Arguments = dict[str, Any]
Row = tuple[str, Arguments, type[Exception], str]

BACKENDS: dict[str, tuple[ModuleType, Callable[[Any], Any]]] = {
    "reference": (reference, np.array),
    "torch": (torch_ops, torch.tensor),
}

# A good call of every operation; a row below replaces some of its arguments.
GOOD: dict[str, Arguments] = {
    "gram": {"X": np.ones((3, 2)), "kernel": "rbf", "gamma": 1.0, "degree": 3, "coef0": 1.0},
    "inverse_gram": {"H": np.eye(3), "ridge": 0.0, "singular": "raise"},
    "reshape_inverse": {"Hinv": np.eye(3), "d_in": 2},
    "softmax_cross_entropy": {"logits": np.ones((3, 2)), "labels": np.array([0, 1, 1])},
    "weight_gradient": {"dlogits": np.ones((3, 2)), "features": np.ones((3, 4))},
    "kernel_sgd_step": {"W": np.ones((2, 4)), "grad": np.ones((2, 4)), "P": np.eye(4), "lr": 0.1},
}
SCALARS = {
    "gram": ("gamma", "degree", "coef0"),
    "inverse_gram": ("ridge",),
    "reshape_inverse": ("d_in",),
    "kernel_sgd_step": ("lr",),
}
FLOAT_ARRAYS = [
    (operation, argument)
    for operation, arguments in GOOD.items()
    for argument, value in arguments.items()
    if getattr(value, "dtype", None) == np.float64
]

SHAPES: list[Row] = [
    (operation, {argument: np.ones(shape)}, ValueError, rf"(?s){argument}.*shape")
    for operation, argument, *shapes in (
        ("gram", "X", (), (3,), (0, 2), (3, 0), (0, 3, 2)),
        ("inverse_gram", "H", (3,), (3, 2), (0, 0), (0, 2, 2)),
        ("reshape_inverse", "Hinv", (3,), (3, 2), (0, 0)),
        ("softmax_cross_entropy", "logits", (3,), (3, 0), (0, 2), (1, 3, 2)),
        ("weight_gradient", "dlogits", (3,), (0, 2), (3, 0), (1, 3, 2)),
        ("weight_gradient", "features", (3,), (2, 4), (3, 0)),
        ("kernel_sgd_step", "W", (4,), (0, 4), (2, 0)),
        ("kernel_sgd_step", "grad", (4,), (4, 2), (1, 4)),
        ("kernel_sgd_step", "P", (4,), (3, 3), (2, 4)),
    )
    for shape in shapes
] + [
    ("softmax_cross_entropy", {"labels": np.zeros(shape, dtype=int)}, ValueError, r"labels.*shape")
    for shape in ((), (2,), (3, 1))
]

NEVER_NUMBERS_OF_THE_RIGHT_SIZE: dict[str, tuple[Any, ...]] = {
    "gamma": (0, -1.0, Fraction(-1, 10**400)),
    "degree": (0, -1, 2.5, Fraction(5, 2)),
    "coef0": (),
    "ridge": (-1e-300,),
    "d_in": (0, -1, 2.5),
    "lr": (-0.1,),
}
PARAMETERS: list[Row] = [
    (operation, {argument: value}, ValueError, argument)
    for operation, arguments in SCALARS.items()
    for argument in arguments
    for value in (np.nan, np.inf, -np.inf, np.float32("inf"), 10**400, *NEVER_NUMBERS_OF_THE_RIGHT_SIZE[argument])
]
PARAMETERS += [
    ("gram", {"kernel": kernel, argument: np.nan}, ValueError, argument)
    for kernel, argument in product(("linear", "polynomial"), SCALARS["gram"])
]
PARAMETERS += [
    ("gram", {"kernel": kernel}, ValueError, rf"kernel.*{kernel}") for kernel in ("RBF", "sigmoid", "", None, 3)
]
PARAMETERS += [("inverse_gram", {"singular": choice}, ValueError, "singular") for choice in ("ignore", None, True)]

TYPES: list[Row] = [
    (operation, {argument: value}, TypeError, argument)
    for operation, arguments in SCALARS.items()
    for argument in arguments
    for value in (True, np.True_, None, "1", 1j, [1.0])
]
TYPES += [
    (operation, {argument: GOOD[operation][argument].astype(kind)}, TypeError, argument)
    for (operation, argument), kind in product(FLOAT_ARRAYS, (bool, complex))
]
TYPES += [
    ("softmax_cross_entropy", {"labels": np.array([0, 1, 1]).astype(kind)}, TypeError, "labels")
    for kind in (bool, float, complex)
]

VALUES: list[Row] = []
for (_operation, _argument), _value in product(FLOAT_ARRAYS, (np.nan, np.inf, -np.inf)):
    _array = GOOD[_operation][_argument].copy()
    _array[-1, 0] = _value
    VALUES.append((_operation, {_argument: _array}, ValueError, rf"{_argument}.*({_value}).*\(\d, 0\)"))
VALUES += [
    ("softmax_cross_entropy", {"labels": np.array(labels)}, ValueError, "labels")
    for labels in ([0, 1, 2], [0, -1, 1], [0, 2**62, 1])
]
VALUES += [
    ("inverse_gram", {"H": np.array(H)}, ValueError, r"H.*member \(\)")
    for H in ([[1.0, 0.5], [0.5 + 1e-13, 1.0]], [[1e-300, 0.0], [1e-310, 1e-300]], [[1.0, 1e308], [-1e308, 1.0]])
]
VALUES += [
    ("inverse_gram", {"H": np.array([np.eye(2), [[1.0, 0.5], [0.0, 1.0]]])}, ValueError, r"H.*member \(1,\)"),
]

PRECEDENCE: list[Row] = [
    ("gram", {"X": np.ones(3), "gamma": "1"}, TypeError, "gamma"),
    ("gram", {"X": np.full(3, np.nan), "kernel": "RBF", "gamma": -1}, ValueError, r"X.*shape"),
    ("inverse_gram", {"H": np.full((3, 2), np.nan), "ridge": None}, TypeError, "ridge"),
    ("reshape_inverse", {"Hinv": np.full((3, 2), np.nan), "d_in": 0}, ValueError, r"Hinv.*shape"),
    ("softmax_cross_entropy", {"logits": np.ones(3), "labels": np.ones(2)}, TypeError, "labels"),
    (
        "softmax_cross_entropy",
        {"logits": np.full((3, 2), np.nan), "labels": np.array([9])},
        ValueError,
        r"labels.*shape",
    ),
    (
        "weight_gradient",
        {"dlogits": np.full((3, 2), np.nan), "features": np.ones((2, 4))},
        ValueError,
        r"features.*shape",
    ),
    ("kernel_sgd_step", {"W": np.full((2, 4), np.nan), "P": np.eye(3), "lr": True}, TypeError, "lr"),
    ("kernel_sgd_step", {"W": np.full((2, 4), np.nan), "P": np.eye(3), "lr": -1.0}, ValueError, r"P.*shape"),
]

SINGULAR: list[Row] = [
    ("inverse_gram", {"H": np.array(H), **options}, np.linalg.LinAlgError, rf"{what}.*eigenvalues|eigenvalues.*{what}")
    for H, options, what in (
        ([[0.0]], {}, "singular"),
        ([[1.0, 1.0], [1.0, 1.0]], {}, "singular"),
        (np.full((3, 3), 1e308), {}, "singular"),
        ([[-1.0]], {"ridge": 1.0}, "singular"),
        ([[-1.0]], {}, "indefinite"),
        ([[1.0, 2.0], [2.0, 1.0]], {"singular": "pinv"}, "indefinite"),
        ([[0.0, 0.0], [0.0, -1.0]], {"singular": "pinv"}, "indefinite"),
        ([[-1.0]], {"ridge": 0.5, "singular": "pinv"}, "indefinite"),
    )
]
SINGULAR += [
    ("inverse_gram", {"H": np.stack([np.eye(2), np.ones((2, 2))])}, np.linalg.LinAlgError, r"\(1,\)"),
    (
        "inverse_gram",
        {"H": np.stack([[np.eye(2)], [-np.eye(2)]]), "singular": "pinv"},
        np.linalg.LinAlgError,
        r"\(1, 0\)",
    ),
]

OVERFLOW: list[Row] = [
    ("gram", {"X": np.array([[1e200]]), "kernel": "linear"}, FloatingPointError, "overflow"),
    ("gram", {"X": np.array([[1e60]]), "kernel": "polynomial"}, FloatingPointError, "overflow"),
    ("inverse_gram", {"H": np.array([[5e-324]])}, FloatingPointError, "overflow"),
    ("inverse_gram", {"H": np.full((2, 2), 5e-324), "singular": "pinv"}, FloatingPointError, "overflow"),
    (
        "softmax_cross_entropy",
        {"logits": np.array([[1e308, -1e308]]), "labels": np.array([1])},
        FloatingPointError,
        "overflow",
    ),
    (
        "weight_gradient",
        {"dlogits": np.full((3, 2), 1e200), "features": np.full((3, 4), -1e200)},
        FloatingPointError,
        "overflow",
    ),
    ("kernel_sgd_step", {"grad": np.full((2, 4), 1e200), "P": np.full((4, 4), 1e200)}, FloatingPointError, "overflow"),
]

TABLE = SHAPES + PARAMETERS + TYPES + VALUES + PRECEDENCE + SINGULAR + OVERFLOW


def call(backend: str, operation: str, changes: Arguments) -> Any:
    module, array = BACKENDS[backend]
    arguments = GOOD[operation] | changes
    return getattr(module, operation)(
        **{name: array(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    )


def call_torch(operation: str, tensors: Arguments) -> Any:
    good = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in GOOD[operation].items()}
    return getattr(torch_ops, operation)(**good | tensors)


def identifier(value: Any) -> str | None:
    if isinstance(value, dict):
        shown = (f"{k}={f'{v.dtype}{v.shape}' if isinstance(v, np.ndarray) else str(v)[:9]}" for k, v in value.items())
        return ",".join(shown)
    return value.__name__ if isinstance(value, type) else None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("operation", "changes", "error", "message"), TABLE, ids=identifier)
def test_bad_input_is_refused_by_name(
    backend: str, operation: str, changes: Arguments, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refusal:
        call(backend, operation, changes)
    assert refusal.type is error


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", GOOD)
def test_good_input_is_taken(backend: str, operation: str) -> None:
    call(backend, operation, {})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("two", [2, 2.0, np.float32(2), np.int8(2), Fraction(4, 2)], ids=repr)
def test_any_real_number_is_the_number_it_equals(backend: str, two: Any) -> None:
    module, _ = BACKENDS[backend]
    for operation, arguments in SCALARS.items():
        found, expected = (call(backend, operation, dict.fromkeys(arguments, value)) for value in (two, 2))
        assert np.array_equal(module.to_numpy(found), module.to_numpy(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_overflows_inside_but_not_as_a_result_is_no_error(backend: str) -> None:
    module, _ = BACKENDS[backend]
    H = np.full((2, 2), 1e308) + np.diag([7e307, 7e307])
    ratios.assert_within(ratios.inverse_backward(module.to_numpy(call(backend, "inverse_gram", {"H": H})), H))
    far = call(backend, "gram", {"X": np.array([[1e300], [-1e300], [1e300]])})
    assert np.array_equal(module.to_numpy(far), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    steep = {"logits": np.array([[1e308, 0.0], [1e308, 0.0]]), "labels": np.array([1, 1])}
    assert float(call(backend, "softmax_cross_entropy", steep)[0]) == 1e308


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        ("gram", {"gamma": 1e-60}),
        ("gram", {"gamma": 1e60}),
        ("gram", {"coef0": -1e60}),
        ("gram", {"degree": 10**60}),
        ("inverse_gram", {"ridge": 1e60}),
        ("kernel_sgd_step", {"lr": 1e60}),
    ],
    ids=identifier,
)
def test_scalar_that_float32_cannot_hold_is_refused_with_float32_arrays_alone(
    operation: str, changes: Arguments
) -> None:
    single = {k: v.astype(np.float32) for k, v in GOOD[operation].items() if isinstance(v, np.ndarray)}
    (argument,) = changes
    with pytest.raises(ValueError, match=rf"{argument}.*float32"):
        call("torch", operation, single | changes)
    if argument != "degree":
        call("torch", operation, changes)


@pytest.mark.parametrize("change", [np.float16, np.int64, "list", "numpy", "sparse"], ids=str)
@pytest.mark.parametrize(("operation", "argument"), FLOAT_ARRAYS)
def test_torch_takes_dense_tensors_of_its_own_precisions_alone(operation: str, argument: str, change: Any) -> None:
    good = GOOD[operation][argument]
    other = {"list": good.tolist(), "numpy": good, "sparse": torch.tensor(good).to_sparse()}
    with pytest.raises(TypeError, match=argument):
        call_torch(operation, {argument: other[change] if change in other else torch.tensor(good.astype(change))})


@pytest.mark.parametrize(
    ("operation", "argument"),
    [pair for pair in FLOAT_ARRAYS if pair[0] in ("weight_gradient", "kernel_sgd_step")],
)
def test_torch_takes_arrays_of_one_precision_on_one_device_alone(operation: str, argument: str) -> None:
    good = torch.tensor(GOOD[operation][argument])
    with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
        call_torch(operation, {argument: good.float()})
    with pytest.raises(ValueError, match=rf"{argument}.*meta"):
        call_torch(operation, {argument: good.to("meta")})


def test_torch_takes_labels_on_the_device_of_the_logits_alone() -> None:
    with pytest.raises(ValueError, match=r"labels.*meta"):
        call_torch("softmax_cross_entropy", {"labels": torch.tensor([0, 1, 1], device="meta")})
