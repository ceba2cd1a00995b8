"""A stand-in for CuPy on the CPU: its arrays refuse every silent conversion, and its libraries take pointers.

`installed` puts it in the place of `cupy`. `Array` allows what cupy.ndarray allows and is explicit about leaving it
(`item`, `tolist`, `get`); it is stricter in that even a truth value or a loop has to be asked for by one of these.
cuSOLVER's and cuBLAS's routines work on raw memory, columns first, as the real ones do, so that the lines which only a
GPU runs otherwise are run here: layouts, triangles and sides by LAPACK's and BLAS's own rules.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from scipy.linalg import blas, lapack

from gpu import cupy_ops

FUNCTIONS = [
    "arange",
    "argwhere",
    "ascontiguousarray",
    "empty",
    "empty_like",
    "exp",
    "eye",
    "frexp",
    "isfinite",
    "ldexp",
    "log",
]
FUNCTIONS += ["maximum", "zeros"]
CONSTANTS = {
    "CUBLAS_DEFAULT_MATH": 0,
    "CUBLAS_TF32_TENSOR_OP_MATH": 3,
    "CUBLAS_FILL_MODE_LOWER": 0,
    "CUBLAS_FILL_MODE_UPPER": 1,
    "CUBLAS_SIDE_LEFT": 0,
    "CUBLAS_SIDE_RIGHT": 1,
    "CUBLAS_OP_N": 0,
    "CUBLAS_DIAG_NON_UNIT": 0,
}
_ARITHMETIC = ["add", "sub", "mul", "truediv"]
_OTHERS = ["pow", "and", "or", "invert", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne"]
OPERATORS = [f"__{name}__" for name in [*_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC), *_OTHERS]]
ATTRIBUTES = ["dtype", "shape", "ndim", "strides", "item", "tolist"]
METHODS = ["mean", "sum", "max", "min", "all", "any", "astype", "reshape", "swapaxes"]
_HANDLE = 1


class Array:
    """Holds a NumPy array and gives it out by `item`, `tolist` and `get` alone."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"{function} of NumPy on an array of the GPU")

    def __bool__(self) -> bool:
        raise TypeError("implicit conversion to a truth value is not allowed: use .item()")

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> "Array":
        return Array(self._values[_unwrapped(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[_unwrapped(index)] = _unwrapped(value)

    def __matmul__(self, other: "Array") -> "Array":
        stacked = self._values.ndim > 2  # a product of two matrices is what CUPY_TF32 says, and here it says yes
        LIBRARIES.modes_of_products.append(LIBRARIES.mode if stacked else CONSTANTS["CUBLAS_TF32_TENSOR_OP_MATH"])
        return Array(self._values @ _unwrapped(other))

    def __getattr__(self, name: str) -> Any:
        if name not in ATTRIBUTES:
            raise AttributeError(name)
        return getattr(self._values, name)

    @property
    def T(self) -> "Array":  # noqa: N802
        return Array(self._values.T)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._values.ctypes.data)

    @property
    def device(self) -> "Device":
        return Device()

    def get(self) -> np.ndarray[Any, Any]:
        return self._values.copy()


class Device:
    """The one device there is."""

    id, cublas_handle, cusolver_handle = 0, _HANDLE, _HANDLE
    attributes: ClassVar = {"MaxSharedMemoryPerBlockOptin": 227 * 1024}

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None: ...


class Libraries:
    """The routines of cuBLAS and cuSOLVER that take arrays of pointers, and cuBLAS's math mode."""

    def __init__(self) -> None:
        self.mode, self.modes_of_products = 0, list[int]()
        self.dpotrfBatched, self.spotrfBatched = (self._potrf_of(dtype) for dtype in ("float64", "float32"))
        self.dtrsmBatched, self.strsmBatched = (self._trsm_of(dtype) for dtype in ("float64", "float32"))
        vars(self).update(CONSTANTS)

    def getMathMode(self, handle: int) -> int:  # noqa: N802
        assert handle == _HANDLE
        return self.mode

    def setMathMode(self, handle: int, mode: int) -> None:  # noqa: N802
        assert handle == _HANDLE
        self.mode = mode

    @staticmethod
    def _potrf_of(dtype: str) -> Callable[..., None]:
        def potrf(handle: int, uplo: int, n: int, members: int, lda: int, info: int, count: int) -> None:
            assert handle == _HANDLE
            found = _memory(info, (count,), "int32")
            for number, address in enumerate(_memory(members, (count,), "uintp")):
                A = _memory(int(address), (n, lda), dtype).T
                routine = lapack.dpotrf if dtype == "float64" else lapack.spotrf
                factor, found[number] = routine(A, lower=uplo == 0, clean=0)
                A[:] = factor

        return potrf

    @staticmethod
    def _trsm_of(dtype: str) -> Callable[..., None]:
        def trsm(
            handle: int, side: int, uplo: int, op: int, diag: int, m: int, n: int, alpha: int, *arrays: int
        ) -> None:
            assert handle == _HANDLE
            A, lda, B, ldb, count = arrays
            factor = _memory(alpha, (1,), dtype)[0]
            pairs = zip(*(_memory(address, (count,), "uintp") for address in (A, B)), strict=True)
            for a, b in pairs:
                triangle = _memory(int(a), (n if side else m, lda), dtype).T
                unknown = _memory(int(b), (n, ldb), dtype).T[:m]
                routine = blas.dtrsm if dtype == "float64" else blas.strsm
                unknown[:] = routine(factor, triangle, unknown, side=side, lower=uplo == 0, trans_a=op, diag=diag)

        return trsm


def _memory(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_unwrapped, value))
    if isinstance(value, np.ndarray):
        raise TypeError("an array of NumPy with one of the GPU")
    return value._values if isinstance(value, Array) else value


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        found = function(*map(_unwrapped, arguments), **options)
        return tuple(map(Array, found)) if isinstance(found, tuple) else Array(found)

    return call


for _name in OPERATORS + METHODS:
    setattr(Array, _name, _wrapped(getattr(np.ndarray, _name)))

LIBRARIES = Libraries()
CUPY = SimpleNamespace(
    ndarray=Array,
    array=lambda host: Array(host.copy(order="K")),
    cuda=SimpleNamespace(Device=Device, cublas=LIBRARIES, cusolver=LIBRARIES),
    linalg=SimpleNamespace(eigh=_wrapped(np.linalg.eigh)),
    get_array_module=lambda *arrays: CUPY if any(isinstance(array, Array) for array in arrays) else np,
    **{name: _wrapped(getattr(np, name)) for name in FUNCTIONS},
)


@contextmanager
def installed(*modules: ModuleType, **more: Any) -> Iterator[Libraries]:
    """gpu.cupy_ops and other modules computing on `Array`s, with `more` in their cupy; what its libraries saw."""
    LIBRARIES.mode, LIBRARIES.modes_of_products = 0, []
    with ExitStack() as stack:
        for module in (cupy_ops, *modules):
            stack.enter_context(patch.object(module, "cupy", SimpleNamespace(**vars(CUPY), **more)))
        yield LIBRARIES
