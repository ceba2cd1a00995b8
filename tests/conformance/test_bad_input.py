"""Bad input gets the answer of the table, by class and by name of the argument; good input at its edge is taken."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.conformance.about import EVERY_OPERATION, about
from tests.conformance.backends import DTYPES
from tests.conformance.subject import Subject
from tests.support import ratios
from tests.support.bad_input import FLOAT_ARRAYS, GOOD, SCALARS, TABLE, good_call
from tests.support.calls import Call


@pytest.mark.parametrize("row", [pytest.param(row, marks=about(row.operation), id=name) for name, row in TABLE.items()])
def test_bad_input_is_refused(subject: Subject, row: Any) -> None:
    if subject.takes_any_real and not row.for_any_real:
        pytest.skip(f"not run: {subject.name} takes any real array")
    subject.refuses(row.call(subject.dtype), row.error, row.message)


@EVERY_OPERATION
def test_good_input_is_taken(subject: Subject, operation: str) -> None:
    subject.run(good_call(operation, subject.dtype))


@pytest.mark.parametrize(
    ("operation", "name", "sign", "exponent"),
    [
        ("gram", "gamma", 1, 0.9),
        ("gram", "gamma", 1, -0.9),
        ("gram", "coef0", -1, 0.9),
        ("inverse_gram", "ridge", 1, 0.9),
        ("kernel_sgd_step", "lr", 1, 0.9),
    ],
)
def test_scalar_that_the_precision_can_hold_is_taken(
    subject: Subject, operation: str, name: str, sign: int, exponent: float
) -> None:
    value = sign * 2.0 ** int(exponent * np.finfo(subject.dtype).maxexp)
    call = good_call(operation, subject.dtype, **{name: value})
    exact = getattr(subject.oracle, operation)(*call.arrays, **call.options)
    subject.judge(*subject.errors(call, subject.run(call), exact), call=call)


@pytest.mark.parametrize("two", [2, 2.0, np.float32(2), np.int8(2), Fraction(4, 2)], ids=repr)
@pytest.mark.parametrize("operation", [operation for operation, names in SCALARS.items() if names])
def test_any_real_number_is_the_number_it_equals(subject: Subject, operation: str, two: Any) -> None:
    call, expected = (
        good_call(operation, subject.dtype, **dict.fromkeys(SCALARS[operation], value)) for value in (two, 2)
    )
    subject.judge(*subject.errors(expected, subject.run(call), subject.run(expected)), call=call)


@pytest.mark.parametrize(
    ("operation", "argument"), [pair for pair in FLOAT_ARRAYS if pair[0] in ("weight_gradient", "kernel_sgd_step")]
)
def test_arrays_of_two_precisions_are_refused(subject: Subject, operation: str, argument: str) -> None:
    if set(subject.backend.dtypes) != set(DTYPES):
        pytest.skip(f"not run: {subject.name} claims one precision")
    (other,) = set(DTYPES) - {subject.dtype}
    arrays, scalars = GOOD[operation]
    mixed = [
        subject.backend.from_numpy(array, other if name == argument else subject.dtype)
        for name, array in arrays.items()
    ]
    with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
        getattr(subject.backend, operation)(*mixed, **scalars)


@about("inverse_gram")
def test_what_overflows_inside_but_not_in_the_inverse_is_no_error(subject: Subject) -> None:
    largest = float(np.finfo(subject.dtype).max)
    H = (np.full((2, 2), largest / 2) + np.diag([largest / 3] * 2)).astype(subject.dtype)
    call = Call("inverse_gram", (H,), {})
    subject.judge(ratios.inverse_backward(subject.run(call), H), call=call)


@about("gram")
def test_rbf_values_of_distances_that_overflow_are_0(subject: Subject) -> None:
    far = float(np.finfo(subject.dtype).max) / 100
    call = Call("gram", (np.array([[far], [-far], [far]], subject.dtype),), {})
    with subject.blamed_on(call):
        assert np.array_equal(subject.run(call), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


@about("softmax_cross_entropy")
def test_mean_loss_that_fits_is_no_overflow_on_the_way(subject: Subject) -> None:
    steep = float(np.finfo(subject.dtype).max) / 1.5
    call = Call("softmax_cross_entropy", (np.array([[steep, 0], [steep, 0]], subject.dtype), np.array([1, 1])), {})
    loss, _ = subject.run(call)
    exact, _ = subject.oracle.softmax_cross_entropy(*call.arrays)
    subject.judge(ratios.loss(loss, exact, *call.arrays), call=call)
