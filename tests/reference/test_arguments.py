"""What the operations ask of their arguments, and what they leave alone."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from reference import conditions
from reference.algorithm import Settings, train
from reference.network import Layer, backward, forward, initial_layers
from tests.support import strategies

A = np.array([[2.0, 1.0], [1.0, 3.0]])
R = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
ONE, TWO_ROWS, LABELS = np.ones((1, 1)), np.ones((2, 1)), np.array([2, 0])
HUGE = 1e200 * ONE
# Products that overflow both ways, and are added.
ROW, SIGNS = np.ones((1, 2)), np.array([[1.0, -1.0]])
OPPOSITE = HUGE * SIGNS.T

# Every operation with arguments that all kinds of numbers can express.
OPERATIONS: dict[Callable[..., Any], dict[str, Any]] = {
    reference.gram: {"X": A},
    reference.inverse_gram: {"H": A},
    reference.condition_estimate: {"H": A},
    reference.reshape_inverse: {"Hinv": A, "d_in": 2},
    reference.softmax_cross_entropy: {"logits": R, "labels": LABELS},
    reference.softmax_cross_entropy_hvp: {"logits": R, "labels": LABELS, "direction": R},
    reference.weight_gradient: {"dlogits": R, "features": A},
    reference.kernel_sgd_step: {"W": A, "grad": A, "P": A, "lr": 1.0},
    reference.projected_sgd_step: {"W": A, "gradient": lambda W: W, "projection": A, "lr": 1.0},
    conditions.instance_form: {"z": A[0], "P": A},
    conditions.max_learning_rate: {"features": A, "P": A},
    conditions.sharp_learning_rate: {"features": A, "P": A, "residual": R},
    conditions.guaranteeing_ridge: {"features": A, "lr": 1.0},
    partial(forward, [Layer(A, A[0])]): {"X": A},
    partial(backward, [Layer(A, A[0])], [A]): {"dlogits": A},
}
BATCHED = ("gram", "inverse_gram", "condition_estimate", "reshape_inverse")


def name_of(operation: Callable[..., Any]) -> str:
    return operation.func.__name__ if isinstance(operation, partial) else operation.__name__


every_operation = pytest.mark.parametrize(
    ("operation", "arguments"), [pytest.param(*each, id=name_of(each[0])) for each in OPERATIONS.items()]
)

gram, inverse_gram, reshape_inverse = reference.gram, reference.inverse_gram, reference.reshape_inverse
cross_entropy, step, projected = (
    reference.softmax_cross_entropy,
    reference.kernel_sgd_step,
    partial(reference.projected_sgd_step, gradient=lambda W: W),
)

GUARANTEEING, PROJECTED = partial(conditions.guaranteeing_ridge, A), partial(projected, A, projection=A)

BAD_TYPES = {
    "X": [partial(gram, A > 1), partial(gram, A + 0j), partial(gram, A.astype(str))],
    "gamma": [partial(gram, A, gamma=True), partial(gram, A, "linear", gamma="1")],
    "degree": [partial(gram, A, degree=None)],
    "coef0": [partial(gram, A, coef0=1j), partial(gram, A, coef0=A)],
    "H": [partial(inverse_gram, A > 1)],
    "ridge": [partial(inverse_gram, A, ridge=False)],
    "d_in": [partial(reshape_inverse, A, "2")],
    "labels": [partial(cross_entropy, R, [0.0, 1.0]), partial(cross_entropy, R, [True, False])],
    "lr": [partial(step, A, A, A, A), *(partial(f, lr=None) for f in (GUARANTEEING, PROJECTED))],
    "gradient(W)": [partial(reference.projected_sgd_step, A, lambda _: A + 0j, A, 1.0)],
    "m": [partial(reference.random_psd, "2", 1)],
    "rank": [partial(reference.random_psd, 2, 1, rank="2")],
    "epochs": [partial(train, [Layer(A, A[0])], A, [0, 1], [np.arange(2)], "1", Settings())],
}
BAD_SHAPES = {
    "X": [partial(gram, [1.0]), partial(gram, A[:0]), partial(gram, A[:, :0]), partial(forward, [Layer(R, A[0])], A)],
    "H": [partial(inverse_gram, R), partial(inverse_gram, A[0]), partial(reference.condition_estimate, A[None, :0])],
    "Hinv": [partial(reshape_inverse, R, 2)],
    "logits": [partial(cross_entropy, R[0], LABELS)],
    "labels": [partial(cross_entropy, R, [0]), partial(cross_entropy, R, [[0], [1]])],
    "direction": [partial(reference.softmax_cross_entropy_hvp, R, LABELS, A)],
    "features": [partial(reference.weight_gradient, R, ONE), partial(conditions.guaranteeing_ridge, A[0], 1.0)],
    "grad": [partial(step, A, R, A, 1.0)],
    "P": [partial(step, A, A, R, 1.0), partial(conditions.instance_form, [1.0], A)],
    "residual": [partial(conditions.sharp_learning_rate, A, A, R[:1])],
    "projection": [partial(projected, A, projection=R, lr=1.0)],
}
BAD_VALUES = {
    "kernel": [partial(gram, A, "sigmoid")],
    "gamma": [partial(gram, A, kernel, gamma=g) for kernel in ("rbf", "linear") for g in (0, -1.0, np.inf, np.nan)],
    "degree": [partial(gram, A, degree=degree) for degree in (0, 1.5, np.inf, 10**400)],
    "coef0": [partial(gram, A, coef0=coef0) for coef0 in (np.nan, -np.inf)],
    "ridge": [partial(inverse_gram, A, ridge=ridge) for ridge in (-1.0, np.nan, np.inf)],
    "singular": [partial(inverse_gram, A, singular="ignore")],
    "d_in": [partial(reshape_inverse, A, d_in) for d_in in (0, 2.5, np.nan)],
    "labels": [partial(cross_entropy, R, labels) for labels in ([0, 3], [-1, 0])],
    "lr": [
        partial(step, A, A, A, -0.1),
        partial(GUARANTEEING, 4.0, bias=True),
        *(partial(f, lr=-1.0) for f in (GUARANTEEING, PROJECTED)),
    ],
    "epochs": [partial(train, [Layer(A, A[0])], A, [0, 1], [np.arange(2)], -1, Settings())],
    "H": [partial(f, [[1, 1e308], [-1e308, 1]]) for f in (inverse_gram, reference.condition_estimate)],
    "projection": [partial(projected, A, projection=R[:, :2], lr=1.0)],
    "P": [partial(conditions.max_learning_rate, A, R[:, :2])],
    "m": [partial(reference.random_psd, 0, 1), partial(reference.random_psd, 1.5, 1)],
    "rank": [partial(reference.random_psd, 2, 1, rank=0)],
    "sizes": [partial(initial_layers, [3], 0), partial(initial_layers, [3, 0], 0)],
}
INDEFINITE = {"projection": [partial(projected, A, projection=P, lr=1.0) for P in (-A, 0 * A)]}
OVERFLOWS = {
    "gram (linear)": [partial(gram, HUGE, "linear")],
    "gram (polynomial)": [partial(gram, A, "polynomial", degree=2000)],
    "inverse_gram": [partial(inverse_gram, [[1e-310]]), partial(inverse_gram, [[1e-310, 0], [0, 0]], singular="pinv")],
    "H + ridge·I": [partial(inverse_gram, [[1e308]], ridge=1e308)],
    "softmax_cross_entropy": [partial(cross_entropy, [[1e308, -1e308]], [1])],
    "softmax_cross_entropy_hvp": [
        partial(reference.softmax_cross_entropy_hvp, 0 * R[:1], [0], [[1.7e308, 1.7e308, -1.7e308]]),
        partial(reference.softmax_cross_entropy_hvp, [[0, 0, -1e4]], [0], [[-1.7e308, -1.7e308, 1.7e308]]),
    ],
    "weight_gradient": [
        partial(reference.weight_gradient, HUGE, HUGE),
        partial(reference.weight_gradient, HUGE * TWO_ROWS, OPPOSITE),
    ],
    "kernel_sgd_step": [
        partial(step, ONE, HUGE, HUGE, 1.0),
        partial(step, ROW, HUGE * ROW, OPPOSITE * ROW, 1.0),
    ],
    "projected_sgd_step": [
        partial(projected, HUGE, projection=1e-300 * ONE, lr=1.0),
        partial(reference.projected_sgd_step, ROW, lambda _: 1e300 * ROW, 1e-200 * (ONE + np.eye(2)), 1.0),
    ],
    "instance_form": [
        partial(conditions.instance_form, [1e200], ONE),
        partial(conditions.instance_form, HUGE[0] * ROW[0], OPPOSITE * ROW),
    ],
    "ZPZᵀ/m": [
        partial(conditions.max_learning_rate, HUGE, ONE),
        partial(conditions.max_learning_rate, HUGE * ROW, OPPOSITE * SIGNS),
    ],
    "sharp_learning_rate": [
        partial(conditions.sharp_learning_rate, TWO_ROWS, HUGE, 1e300 * A),
        partial(conditions.sharp_learning_rate, TWO_ROWS, HUGE, OPPOSITE),
        partial(conditions.sharp_learning_rate, ONE, ONE, 1.7e308 * SIGNS),  # the range
        partial(conditions.sharp_learning_rate, np.eye(9), 9 * np.eye(9), 8e307 * np.tile(SIGNS, (9, 1))),  # the slope
    ],
    "guaranteeing_ridge": [partial(conditions.guaranteeing_ridge, HUGE, 1.0)],
    "forward": [
        partial(forward, [Layer(HUGE, ONE[0])], HUGE),
        partial(forward, [Layer(OPPOSITE.T, ONE[0])], HUGE * ROW),
    ],
    "backward": [
        partial(backward, [Layer(ONE, ONE[0]), Layer(HUGE, ONE[0])], [ONE, ONE], HUGE),
        partial(backward, [Layer(ONE, ONE[0]), Layer(OPPOSITE, ROW[0])], [ONE, ONE], HUGE * ROW),
    ],
}


BAD_INPUT = [
    pytest.param(error, name, call, id=f"{error.__name__}-{name}")
    for error, table in (
        (TypeError, BAD_TYPES),
        (ValueError, BAD_SHAPES),
        (ValueError, BAD_VALUES),
        (np.linalg.LinAlgError, INDEFINITE),
        (FloatingPointError, OVERFLOWS),
    )
    for name, calls in table.items()
    for call in calls
]


@pytest.mark.parametrize(("error", "name", "call"), BAD_INPUT)
def test_bad_input_raises_and_names_the_argument(error: type[Exception], name: str, call: partial[object]) -> None:
    """Also where the caller has told NumPy to raise: the error is ours."""
    with np.errstate(all="raise"), pytest.raises(error, match=f"^{re.escape(name)}: "):
        call()


@every_operation
def test_array_of_another_kind_or_rank_raises_and_is_named(
    operation: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            with pytest.raises(TypeError, match=f"^{name}: expected (an array of real numbers|integer class labels)"):
                operation(**arguments | {name: value + 0j})
            deeper = value[0, 0] if name_of(operation) in BATCHED else value[None]
            with pytest.raises(ValueError, match=f"^{name}: expected "):
                operation(**arguments | {name: deeper})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(gram, A, "cubic"), "kernel: expected one of 'rbf', 'linear', 'polynomial', got 'cubic'"),
        (partial(gram, A, gamma=0.0), "gamma: expected a finite number > 0, got 0.0"),
        (partial(inverse_gram, A, ridge=-1.0), "ridge: expected a finite number >= 0, got -1.0"),
        (partial(inverse_gram, A, singular="skip"), "singular: expected one of 'raise', 'pinv', got 'skip'"),
        (partial(reshape_inverse, A, 0.0), "d_in: expected an integer >= 1, got 0.0"),
        (partial(gram, A[0]), "X: expected at least 2 non-empty dimensions, got shape (2,)"),
        (partial(inverse_gram, R), "H: expected square matrices, got shape (2, 3)"),
        (partial(cross_entropy, R, [0, 3]), "labels: expected classes in [0, 3), got 3 at index 1"),
        (
            partial(cross_entropy, R, [0]),
            "labels: expected shape (2,) (one label for every row of the logits), got (1,)",
        ),
        (
            partial(reference.softmax_cross_entropy_hvp, R, LABELS, A),
            "direction: expected shape (2, 3) (that of the logits), got (2, 2)",
        ),
        (
            partial(reference.weight_gradient, R, ONE),
            "features: expected shape (2, 1) (one row for every row of dlogits), got (1, 1)",
        ),
        (partial(step, A, R, A, 1.0), "grad: expected shape (2, 2) (that of W), got (2, 3)"),
        (partial(step, A, A, R, 1.0), "P: expected shape (2, 2) (d_in × d_in, d_in the columns of W), got (2, 3)"),
        (
            partial(projected, A, projection=R, lr=1.0),
            "projection: expected shape (2, 2) (d_in × d_in, d_in the columns of W), got (2, 3)",
        ),
        (partial(projected, A, projection=R[:, :2], lr=1.0), "projection: expected a symmetric matrix"),
        (
            partial(projected, np.eye(3), projection=np.diag([1.0, -2.0, 0.5]), lr=1.0),
            "projection: expected a positive definite matrix, got eigenvalues from -2 to 1",
        ),
        (
            partial(reference.projected_sgd_step, A, lambda _: R, A, 1.0),
            "gradient(W): expected shape (2, 2) (that of W), got (2, 3)",
        ),
        (
            partial(conditions.instance_form, [1.0], A),
            "P: expected shape (1, 1) (d_in × d_in, d_in the length of z), got (2, 2)",
        ),
        (
            partial(conditions.max_learning_rate, A, R),
            "P: expected shape (2, 2) (d_in × d_in, d_in the columns of the features), got (2, 3)",
        ),
        (partial(conditions.max_learning_rate, A, R[:, :2]), "P: expected a symmetric matrix"),
        (
            partial(conditions.max_learning_rate, A, -A),
            "P: expected ZPZᵀ positive semi-definite, got eigenvalues of K from -23.6803 to -1.31966",
        ),
        (
            partial(conditions.sharp_learning_rate, A, A, R[:1]),
            "residual: expected shape (2, 3) (one row for every row of the features), got (1, 3)",
        ),
        (
            partial(GUARANTEEING, 4.0, bias=True),
            "lr: expected a learning rate < 4 with a separate bias, got 4.0",
        ),
        (
            partial(forward, [Layer(R, A[0])], A),
            "X: expected shape (2, 3) (the columns of the first layer's weight), got (2, 2)",
        ),
        (
            partial(train, [Layer(A, A[0])], A[:, None], [0], [np.arange(2)], 1, Settings()),
            "y: expected one label for every row of X, shape (2,), got (1,)",
        ),
        (partial(initial_layers, [3], 0), "sizes: expected at least two integers >= 1, got [3]"),
        (partial(Settings, layers="first"), "layers: expected one of 'last', 'all', 'none', got 'first'"),
        (partial(Settings, bias="none"), "bias: expected one of 'plain', 'augmented', got 'none'"),
        (partial(Settings, decay="l1"), "decay: expected one of 'l2', 'decoupled', got 'l1'"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_message_says_what_was_expected_and_what_came(call: partial[object], message: str) -> None:
    with pytest.raises((ValueError, np.linalg.LinAlgError)) as error:
        call()
    assert str(error.value) == message


TINY = 1e-200 * A


@pytest.mark.parametrize(
    "call",
    [
        partial(gram, 100 * A),
        partial(gram, TINY, "linear"),
        partial(gram, TINY, "polynomial", gamma=1e-300, coef0=0.0),
        partial(inverse_gram, 1e-300 * A + 1e-310 * np.ones((2, 2))),
        partial(reference.condition_estimate, 1e-310 * A),
        partial(cross_entropy, 1000 * R, LABELS),
        partial(reference.softmax_cross_entropy_hvp, 1000 * R, LABELS, 1e-300 * R),
        partial(reference.weight_gradient, TINY, TINY),
        partial(step, A, TINY, TINY, 1.0),
        partial(reference.projected_sgd_step, TINY, lambda _: TINY, 1e-10 * A, 1e-300),
    ],
)
def test_what_vanishes_is_no_error_whatever_the_caller_has_told_numpy(call: partial[object]) -> None:
    expected = _arrays(call())
    with np.errstate(all="raise"):
        assert all(map(np.array_equal, _arrays(call()), expected))


def test_least_of_everything_is_taken() -> None:
    assert reference.random_psd(1, 0).shape == (1, 1)
    assert reference.random_psd(2, 0, rank=1).shape == (2, 2)
    assert reshape_inverse(A, 1).shape == (1, 1)
    assert gram(A, "polynomial", degree=1).shape == (2, 2)
    losses, _ = train([Layer(A, A[0])], A, LABELS // 2, [np.arange(2)], 0, Settings())
    assert losses == []


def test_types_are_judged_before_shapes_and_shapes_before_values() -> None:
    with pytest.raises(TypeError, match=r"^gamma: "):
        gram(A[0], "sigmoid", gamma="1")
    with pytest.raises(TypeError, match=r"^labels: "):
        cross_entropy(R * np.nan, [[0.5]])
    with pytest.raises(TypeError, match=r"^lr: "):
        step(A, R, A, None)
    with pytest.raises(ValueError, match=r"^X: "):
        gram(A[0], "sigmoid", gamma=-1)
    with pytest.raises(ValueError, match=r"^P: "):
        step(A * np.nan, A, R, -1.0)


@every_operation
@given(st.data())
def test_nan_and_infinity_anywhere_raise_and_name_the_array(
    operation: Callable[..., Any], arguments: dict[str, Any], data: st.DataObject
) -> None:
    arrays = [name for name, value in arguments.items() if isinstance(value, np.ndarray) and name != "labels"]
    name = data.draw(st.sampled_from(arrays))
    broken = data.draw(strategies.not_finite(st.just(arguments[name])))
    with pytest.raises(ValueError, match=f"^{name}: expected finite entries"):
        operation(**arguments | {name: broken})


@every_operation
@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32"])
def test_any_real_array_is_computed_in_float64(
    operation: Callable[..., Any], arguments: dict[str, Any], dtype: str
) -> None:
    converted = {
        name: value.astype(dtype) if isinstance(value, np.ndarray) and name != "labels" else value
        for name, value in arguments.items()
    }
    for found, expected in zip(_arrays(operation(**converted)), _arrays(operation(**arguments)), strict=True):
        assert found.dtype == np.float64
        assert np.array_equal(found, expected)


@every_operation
def test_inputs_are_never_written_to_and_never_shared(operation: Callable[..., Any], arguments: dict[str, Any]) -> None:
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    for array in arrays:
        array.flags.writeable = False
    try:
        results = _arrays(operation(**arguments))
    finally:
        for array in arrays:
            array.flags.writeable = array.base is None
    assert not any(np.shares_memory(result, array) for result in results for array in arrays)


@pytest.mark.parametrize("kind", [np.complex128, bool, np.int8])
def test_from_numpy_leaves_what_is_no_float_to_the_operations(kind: type) -> None:
    assert reference.from_numpy(np.eye(2, dtype=kind), "float64").dtype == kind


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex128"])
def test_from_numpy_refuses_a_dtype_that_is_not_claimed(dtype: str) -> None:
    with pytest.raises(ValueError, match=dtype):
        reference.from_numpy(np.eye(2), dtype)


def test_from_numpy_copies_in_the_same_memory_order_and_leaves_integers() -> None:
    columns = np.asfortranarray(A, dtype=np.float32)
    copy, labels = reference.from_numpy(columns, "float64"), reference.from_numpy(LABELS, "float64")
    assert (copy.dtype, copy.flags.f_contiguous, labels.dtype) == (np.float64, True, LABELS.dtype)
    assert np.array_equal(copy, A)
    assert not np.shares_memory(labels, LABELS)
    assert reference.to_numpy(copy) is copy


def _arrays(result: Any) -> list[np.ndarray]:
    """The arrays (and numbers) of a result, flat."""
    if isinstance(result, Layer):
        return [result.weight, result.bias]
    if isinstance(result, tuple):
        return [array for part in result for array in _arrays(part)]
    return [np.asarray(result)]
