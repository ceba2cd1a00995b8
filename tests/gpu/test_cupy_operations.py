"""The CuPy operations: the same lines over NumPy's arrays, over arrays that refuse the host, and on a GPU."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

import reference
from tests.support import ratios, strategies
from tests.support.bad_input import GOOD, TABLE, Row
from tests.support.calls import CALLS

cupy = pytest.importorskip("cupy")

from gpu import cupy_ops  # noqa: E402
from gpu.kernels.rbf_inverse import rbf_inverses  # noqa: E402
from tests.gpu import stand_in  # noqa: E402

Array = NDArray[Any]

EVERY_OPERATION = pytest.mark.parametrize("operation", CALLS)
FLOATS = pytest.mark.parametrize("dtype", ["float64", "float32"])
WHERE = pytest.mark.parametrize("where", ["numpy", "stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
draws = st.data()


@contextmanager
def arrays_of(where: str) -> Iterator[Callable[[Array], Any]]:
    """What makes arrays there; integers stay integers."""
    with stand_in.installed() if where == "stand-in" else nullcontext():
        from_numpy = cupy_ops.on("numpy" if where == "numpy" else "cuda").from_numpy
        yield lambda array: from_numpy(array, "float32" if array.dtype == np.float32 else "float64")


def computed(where: str, operation: str, arrays: tuple[Array, ...], options: dict[str, Any]) -> tuple[Array, ...]:
    """The results, which must lie where the arrays lie, and in their dtype."""
    with arrays_of(where) as put:
        arguments = tuple(map(put, arrays))
        found = getattr(cupy_ops, operation)(*arguments, **options)
        results = found if isinstance(found, tuple) else (found,)
        assert {(cupy_ops.device(r), r.dtype) for r in results} == {(cupy_ops.device(arguments[0]), arrays[0].dtype)}
        assert all(np.array_equal(cupy_ops.to_numpy(a), b) for a, b in zip(arguments, arrays, strict=True))
        return tuple(map(cupy_ops.to_numpy, results))


def errors(
    operation: str, found: tuple[Array, ...], arrays: tuple[Array, ...], options: dict[str, Any]
) -> tuple[ratios.Ratio, ...]:
    exact: Any = getattr(reference, operation)(*arrays, **options)
    if operation == "gram":
        return (ratios.gram(*found, exact, *arrays, **options),)
    if operation == "inverse_gram" and "ridge" in options:
        backward = ratios.inverse_backward(*found, *arrays, **options)
        return backward, ratios.inverse_forward(*found, exact, *arrays, **options)
    if operation == "inverse_gram":
        return (ratios.inverse_forward(*found, exact, *arrays),)
    if operation == "softmax_cross_entropy":
        return ratios.loss(found[0], exact[0], *arrays), ratios.loss_gradient(found[1], exact[1], *arrays)
    if operation == "weight_gradient":
        return (ratios.weight_gradient(*found, exact, *arrays),)
    if operation == "kernel_sgd_step":
        return (ratios.step(*found, exact, *arrays, **options),)
    assert np.array_equal(*found, exact)  # reshaped bit for bit
    return ()


@WHERE
@EVERY_OPERATION
@FLOATS
@given(draws)
def test_operation_is_the_references(where: str, operation: str, dtype: str, data: DataObject) -> None:
    _, arrays, options = data.draw(CALLS[operation](dtype))
    ratios.assert_within(*errors(operation, computed(where, operation, arrays, options), arrays, options))


@WHERE
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_bad_input_is_refused_by_name(where: str, row: Row) -> None:
    operation, arrays, options = row.call("float64")
    with arrays_of(where) as put:
        arguments = tuple(map(put, arrays))
        with pytest.raises(row.error, match=row.message) as refusal:
            getattr(cupy_ops, operation)(*arguments, **options)
    assert refusal.type is row.error


@WHERE
@FLOATS
@given(strategies.sizes(12), st.lists(st.booleans(), min_size=2, max_size=4), strategies.seeds())
def test_every_gram_matrix_and_inverse_is_what_its_member_has_alone(
    where: str, dtype: str, m: int, singular: list[bool], seed: int
) -> None:
    X = np.random.default_rng(seed).standard_normal((len(singular), m, 4)).astype(dtype)
    X[singular, -1] = X[singular, 0]
    (H,) = computed(where, "gram", (X,), {"gamma": 0.3})
    (inverses,) = computed(where, "inverse_gram", (H,), {"singular": "pinv", "ridge": 0.0})
    for i in range(len(X)):
        (alone,) = computed(where, "gram", (X[i],), {"gamma": 0.3})
        (inverse,) = computed(where, "inverse_gram", (H[i],), {"singular": "pinv", "ridge": 0.0})
        if where == "cuda":  # cuBLAS chooses its algorithm by the number of members
            ratios.assert_within(ratios.gram(H[i], alone, X[i], gamma=0.3))
            ratios.assert_within(ratios.inverse_forward(inverses[i], inverse, H[i]))
        else:
            assert np.array_equal(H[i], alone)
            assert np.array_equal(inverses[i], inverse)


@WHERE
@FLOATS
@given(draws)
def test_refused_member_is_named_and_symmetry_is_exact(where: str, dtype: str, data: DataObject) -> None:
    m = data.draw(strategies.INSTANCES)
    H = data.draw(strategies.stacks(strategies.gram_matrices(dtype, m)))
    (inverses,) = computed(where, "inverse_gram", (H,), {})
    assert np.array_equal(inverses, inverses.swapaxes(-1, -2))
    index = data.draw(st.sampled_from(list(np.ndindex(H.shape[:-2]))))
    H[index] = data.draw(strategies.singular_gram_matrices(dtype, m) | strategies.indefinite_matrices(dtype, m))
    with pytest.raises(np.linalg.LinAlgError, match=re.escape(f"member {index}") + ".* eigenvalues"):
        computed(where, "inverse_gram", (H,), {})


@WHERE
@FLOATS
def test_rbf_value_is_zero_where_the_distance_overflows_and_one_for_duplicates(where: str, dtype: str) -> None:
    largest = float(np.finfo(dtype).max)
    X = np.array([[largest, 1], [-largest, 1], [largest, 1], [1, 2]], dtype)
    (H,) = computed(where, "gram", (np.stack([X, np.ones_like(X)]),), {"gamma": 0.1})
    assert np.array_equal(H[0], (X[:, None] == X).all(-1))
    assert np.array_equal(H[1], np.ones((4, 4)))


@WHERE
@FLOATS
def test_rbf_values_do_not_suffer_from_a_feature_that_is_large_and_the_same_in_all_rows(where: str, dtype: str) -> None:
    X = np.random.default_rng(0).standard_normal((49, 3)).astype(dtype)
    X[:, 0] = 2e20 / 3
    (H,) = computed(where, "gram", (X,), {"gamma": 1.0})
    ratios.assert_within(ratios.gram_rbf(H, reference.gram(X[:, 1:]), X, gamma=1.0))


@pytest.mark.parametrize("where", ["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("operation", ["softmax_cross_entropy", "weight_gradient", "kernel_sgd_step"])
def test_arrays_of_the_host_and_of_a_gpu_are_refused_together(operation: str, where: str) -> None:
    arrays, scalars = GOOD[operation]
    with arrays_of(where) as put:
        first, *others = arrays.values()
        with pytest.raises(ValueError, match=r"cuda:0.*cpu"):
            getattr(cupy_ops, operation)(put(first), *others, **scalars)


# The arrays and libraries of CuPy


@pytest.mark.parametrize(
    "planted",
    [np.asarray, np.array, np.exp, np.sum, bool, float, list, lambda a: a + np.ones(2)],
    ids=["asarray", "array", "exp", "sum", "bool", "float", "list", "mixed"],
)
def test_stand_in_refuses_what_would_leave_the_gpu_unasked(
    planted: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = cupy_ops._product
    monkeypatch.setattr(cupy_ops, "_product", lambda A, B: (planted(A), product(A, B))[1])
    with stand_in.installed():
        X = cupy_ops.from_numpy(np.eye(2), "float64")
        with pytest.raises(TypeError):
            cupy_ops.gram(X)


def test_stand_in_has_nothing_that_cupy_lacks() -> None:
    own = [*stand_in.OPERATORS, *stand_in.METHODS, *stand_in.ATTRIBUTES, "__matmul__", "T", "data", "device", "get"]
    assert [name for name in own if not hasattr(cupy.ndarray, name)] == []
    assert [name for name in stand_in.FUNCTIONS if not hasattr(cupy, name)] == []


@EVERY_OPERATION
@given(draws)
def test_no_product_is_computed_in_tf32_and_the_math_mode_comes_back(operation: str, data: DataObject) -> None:
    _, arrays, options = data.draw(CALLS[operation]("float32"))
    with stand_in.installed() as libraries:
        libraries.mode = libraries.CUBLAS_TF32_TENSOR_OP_MATH
        getattr(cupy_ops, operation)(*(cupy_ops.from_numpy(array, "float32") for array in arrays), **options)
        assert set(libraries.modes_of_products) <= {libraries.CUBLAS_DEFAULT_MATH}
        assert libraries.mode == libraries.CUBLAS_TF32_TENSOR_OP_MATH


# On a GPU


@pytest.mark.gpu
@EVERY_OPERATION
@given(draws)
def test_tf32_changes_no_bit_on_a_gpu(operation: str, data: DataObject) -> None:
    _, arrays, options = data.draw(CALLS[operation]("float32"))
    plain = computed("cuda", operation, arrays, options)
    cublas, handle = cupy.cuda.cublas, cupy.cuda.Device().cublas_handle
    before = cupy._core.get_compute_type(np.float32)
    cupy._core.set_compute_type(np.float32, cupy._core._routines_linalg.COMPUTE_TYPE_TF32)
    cublas.setMathMode(handle, cublas.CUBLAS_TF32_TENSOR_OP_MATH)
    try:
        lowered = computed("cuda", operation, arrays, options)
        assert cublas.getMathMode(handle) == cublas.CUBLAS_TF32_TENSOR_OP_MATH
    finally:
        cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
        cupy._core.set_compute_type(np.float32, before)
    assert all(map(np.array_equal, plain, lowered))


@pytest.mark.gpu
def test_results_are_ready_on_the_current_stream_of_a_gpu() -> None:
    X = np.random.default_rng(0).standard_normal((300, 64, 200))
    expected = cupy_ops.inverse_gram(cupy_ops.gram(X, gamma=0.01))
    with cupy.cuda.Stream(non_blocking=True):
        x = cupy_ops.from_numpy(X, "float64")
        for _ in range(5):
            inverses = cupy_ops.inverse_gram(cupy_ops.gram(x, gamma=0.01))
            fused, failed = rbf_inverses(x, gamma=0.01)
            assert not failed.any().item()
            for found in (inverses.get(), fused.get()):
                ratios.assert_within(ratios.inverse_forward(found, expected, cupy_ops.gram(X, gamma=0.01)))
