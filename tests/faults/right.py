"""Backends as right as `gpu.torch_ops` that compute otherwise: `--backend tests.faults.right:BACKENDS.inverse_by_qr`.

What an operation refuses, and the pseudoinverse, are torch's; the numbers come from other algorithms, in another
precision, order of summation or memory. The suite must report none of them.
"""

import math
from collections.abc import Callable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu import torch_ops
from tests.conformance.backends import OPERATIONS, namespace

Array = NDArray[Any]
Function = Callable[..., Any]
LinAlgError = np.linalg.LinAlgError


def checked(operation: str, compute: Function) -> Function:
    """`compute` over NumPy arrays, once torch has refused what is to be refused."""
    right = getattr(torch_ops, operation)

    @wraps(right)
    def over_numpy(*tensors: Any, **options: Any) -> Any:
        right(*tensors, **options)
        arrays = [torch_ops.to_numpy(a) if isinstance(a, Tensor) else a for a in tensors]
        with np.errstate(all="ignore"):
            found = compute(*arrays, **options)
        parts = found if isinstance(found, tuple) else (found,)
        results = tuple(torch.from_numpy(np.asarray(part, arrays[0].dtype)) for part in parts)
        return results if isinstance(found, tuple) else results[0]

    return over_numpy


# Five inverses, each backward stable for symmetric positive definite matrices.


def by_ldl(A: Array) -> Array:
    """A = L·D·Lᵀ with the pivots of Bunch and Kaufman: A⁻¹ = L⁻ᵀ·D⁻¹·L⁻¹."""
    L, D, _ = scipy.linalg.ldl(A)
    half = np.linalg.solve(L, np.eye(len(A), dtype=A.dtype))
    return half.T @ np.linalg.solve(D, half)


def by_eigenvalues(A: Array) -> Array:
    """A = V·Λ·Vᵀ: A⁻¹ = V·Λ⁻¹·Vᵀ."""
    eigenvalues, vectors = np.linalg.eigh(A)
    return vectors / eigenvalues @ vectors.T


def by_qr(A: Array) -> Array:
    """A, its columns permuted, is Q·R: R⁻¹·Qᵀ, its rows permuted back. Without pivots AX is near I, XA need not be."""
    Q, R, order = scipy.linalg.qr(A, pivoting=True)
    inverse = np.empty_like(A)
    inverse[order] = scipy.linalg.solve_triangular(R, Q.T)
    return inverse


def by_bordering(A: Array) -> Array:
    """MᵀM for the inverse M of the Cholesky factor, a row (−λ·rᵀM, λ) at a time: r = M·a, λ = 1/√(α − rᵀr), where
    (aᵀ, α) is the next row of A."""
    M = np.zeros_like(A)
    for k in range(len(A)):
        r = M[:k, :k] @ A[:k, k]
        M[k, k] = 1 / np.sqrt(A[k, k] - r @ r)
        M[k, :k] = -M[k, k] * (r @ M[:k, :k])
    return M.T @ M


def by_gauss_jordan(A: Array) -> Array:
    """(A, I) → (I, A⁻¹), with the largest pivot of every column."""
    m = len(A)
    both = np.hstack([A, np.eye(m, dtype=A.dtype)])
    for k in range(m):
        pivot = k + np.abs(both[k:, k]).argmax()
        both[[k, pivot]] = both[[pivot, k]]
        both[k] /= both[k, k]
        others = np.arange(m) != k
        both[others] -= np.outer(both[others, k], both[k])
    return both[:, m:]


def inverting(invert: Callable[[Array], Array]) -> Function:
    """Regular members are inverted one by one, each times a power of two that brings its largest entry to about 1."""

    def inverse_gram(H: Array, *, ridge: float = 0.0, singular: str = "raise") -> Array:
        inverse, is_singular = torch_ops.invert_members(torch.from_numpy(H.copy()), float(ridge), singular)
        found = inverse.numpy()
        for index in np.ndindex(H.shape[:-2]):
            if not is_singular[index]:
                exponent = math.frexp(max(np.abs(H[index]).max(), float(ridge)))[1]
                lower = np.ldexp(np.tril(H[index]), -exponent)
                A = lower + np.tril(lower, -1).T
                A[np.diag_indices_from(A)] += np.ldexp(A.dtype.type(ridge), -exponent)
                computed = invert(A).astype(H.dtype)
                found[index] = np.ldexp((computed + computed.T) / 2, -exponent)
        return found

    return checked("inverse_gram", inverse_gram)


# The other formulas, for a product of matrices that may be anybody's.

Product = Callable[[Array, Array], Array]


def gram(
    X: Array,
    kernel: str = "rbf",
    *,
    gamma: float = 1.0,
    degree: float = 3,
    coef0: float = 1.0,
    product: Product = np.matmul,
) -> Array:
    """Member by member: RBF distances from the differences themselves, rows of the polynomial brought to about 1."""
    H = np.empty((*X.shape[:-1], X.shape[-2]), X.dtype)
    ones = np.ones((X.shape[-1], 1), X.dtype)
    for index in np.ndindex(X.shape[:-2]):
        x = X[index]
        if kernel == "rbf":
            H[index] = np.exp(-float(gamma) * product(np.square(x[:, None] - x), ones)[..., 0])
        elif kernel == "linear":
            H[index] = product(x, x.T)
        else:
            exponents = np.frexp(np.abs(x).max(1, keepdims=True))[1]
            rows = np.ldexp(x, -exponents)
            factor, shift = math.frexp(gamma)
            products = np.ldexp(product(rows, rows.T) * x.dtype.type(factor), exponents + exponents.T + shift)
            H[index] = (products + float(coef0)) ** int(degree)
    return np.maximum(H, H.swapaxes(-1, -2))


def softmax_cross_entropy(logits: Array, labels: Array, *, product: Product = np.matmul) -> tuple[Array, Array]:
    m, classes = logits.shape
    below = logits - logits.max(1, keepdims=True)
    sums = product(np.exp(below), np.ones((classes, 1), logits.dtype))
    one_hot = labels[:, None] == np.arange(classes)
    return np.sum((np.log(sums) - below)[one_hot] / m), (np.exp(below) / sums - one_hot) / m


def weight_gradient(dlogits: Array, features: Array, *, product: Product = np.matmul) -> Array:
    return product(dlogits.T, features)


def kernel_sgd_step(W: Array, grad: Array, P: Array, lr: float, *, product: Product = np.matmul) -> Array:
    return W - float(lr) * product(grad, P)


FORMULAS: dict[str, Function] = {
    function.__name__: function for function in (gram, softmax_cross_entropy, weight_gradient, kernel_sgd_step)
}


def last_term_first(A: Array, B: Array) -> Array:
    """A·B, its sums one term after the other from the last."""
    total = np.zeros((*A.shape[:-1], B.shape[-1]), A.dtype)
    for k in reversed(range(A.shape[-1])):
        total += A[..., k, None] * B[k]
    return total


def widely(compute: Function) -> Function:
    """In the widest float there is; the result is rounded once."""

    def widened(*arrays: Any, **options: Any) -> Any:
        wide = (a.astype(np.longdouble) if getattr(a, "dtype", np.dtype(int)).kind == "f" else a for a in arrays)
        return compute(*wide, **options)

    return widened


def column_major(operation: str) -> Function:
    """torch's results in column-major memory."""
    right = getattr(torch_ops, operation)

    @wraps(right)
    def transposed(*arguments: Any, **options: Any) -> Any:
        found = right(*arguments, **options)
        parts = found if isinstance(found, tuple) else (found,)
        results = tuple(part.mT.contiguous().mT if part.ndim > 1 else part for part in parts)
        return results if isinstance(found, tuple) else results[0]

    return transposed


def member_by_member(operation: str) -> Function:
    """torch's operation in a loop over the members, once the whole batch has been checked."""
    right = getattr(torch_ops, operation)

    @wraps(right)
    def looped(array: Tensor, *arguments: Any, **options: Any) -> Tensor:
        whole = right(array, *arguments, **options)
        for index in np.ndindex(array.shape[:-2]):
            whole[index] = right(array[index], *arguments, **options)
        return whole

    return looped


def cautious_inverse(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Refuses from 64·m·eps·λ_max down, where a backend may."""
    inverse = torch_ops.inverse_gram(H, ridge=ridge, singular=singular)
    if singular == "raise" and ridge == 0:
        scaled = H / H.abs().amax((-2, -1), keepdim=True)
        for index in np.ndindex(H.shape[:-2]):
            smallest, largest = torch.linalg.eigvalsh(scaled[index])[[0, -1]].tolist()
            if smallest <= 64 * H.shape[-1] * torch.finfo(H.dtype).eps * largest:
                raise LinAlgError(f"member {index} is nearly singular: its eigenvalues go from {smallest} to {largest}")
    return inverse


def without_device() -> SimpleNamespace:
    backend = namespace(torch_ops)
    del backend.device
    return backend


def float32_from_numpy(array: Any, dtype: str) -> Tensor:
    if dtype != "float32":
        raise ValueError(f"dtype is {dtype!r}: expected 'float32'")
    return torch_ops.from_numpy(array, dtype)


BACKENDS = SimpleNamespace(
    inverse_by_ldl=namespace(torch_ops, inverse_gram=inverting(by_ldl)),
    inverse_by_eigenvalues=namespace(torch_ops, inverse_gram=inverting(by_eigenvalues)),
    inverse_by_qr=namespace(torch_ops, inverse_gram=inverting(by_qr)),
    inverse_by_bordering=namespace(torch_ops, inverse_gram=inverting(by_bordering)),
    inverse_by_gauss_jordan=namespace(torch_ops, inverse_gram=inverting(by_gauss_jordan)),
    inverse_refused_with_caution=namespace(torch_ops, inverse_gram=cautious_inverse),
    distances_from_differences=namespace(torch_ops, **{name: checked(name, f) for name, f in FORMULAS.items()}),
    sums_from_the_last_term=namespace(
        torch_ops, **{name: checked(name, partial(f, product=last_term_first)) for name, f in FORMULAS.items()}
    ),
    extended_precision=namespace(
        torch_ops,
        inverse_gram=inverting(widely(by_gauss_jordan)),
        **{name: checked(name, widely(f)) for name, f in FORMULAS.items()},
    ),
    column_major_results=namespace(torch_ops, **{name: column_major(name) for name in OPERATIONS}),
    member_by_member=namespace(
        torch_ops, **{name: member_by_member(name) for name in ("gram", "inverse_gram", "reshape_inverse")}
    ),
    without_device=without_device(),
    to_numpy_copies=namespace(torch_ops, to_numpy=lambda array: torch_ops.to_numpy(array).copy()),
    float32_alone=namespace(torch_ops, dtypes=("float32",), from_numpy=float32_from_numpy),
)
