"""The operations of the backend contract on CuPy arrays, and by the same lines on NumPy arrays where there is no GPU.

Every operation takes its array module from its first array; only `cholesky_inverses`, which needs cuSOLVER and cuBLAS
by name, has a twin for NumPy. Nothing is converted between host and GPU on the quiet: what the host decides on comes
by `item` or `tolist`, single numbers and indices alone. Work is queued on the current stream of the arrays' device, and
so are the results.

float32 is computed as float32. CuPy's product of two matrices follows CUPY_TF32 and a setting of the whole process;
its product of two stacks of matrices follows the math mode of the calling thread's own cuBLAS handle alone. Hence
every product here is one of stacks, and that mode is raised for as long as an operation runs.

This file imports NumPy and CuPy alone.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

try:
    import cupy
except ImportError as error:
    raise ImportError(
        "gpu.cupy_ops needs CuPy, of your driver's CUDA: pip install 'kernel-sgd[cuda13]' or 'kernel-sgd[cuda12]'"
    ) from error

Array = Any  # cupy.ndarray or numpy.ndarray

KERNELS = ("rbf", "linear", "polynomial")
SINGULAR = ("raise", "pinv")

name = "cupy"
dtypes = ("float64", "float32")


def gram(X: Array, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0) -> Array:
    """Gram matrices H_ij = k(x_i, x_j) of the rows of X (section 3.1 of the paper).

    `rbf` exp(−γ‖x−y‖²), `linear` ⟨x,y⟩, `polynomial` (γ⟨x,y⟩ + coef0)^degree. (..., m, d) → (..., m, m), float64 or
    float32. Symmetric bit for bit; the diagonal of `rbf` is exactly 1, and a distance that overflows gives 0.
    Raises TypeError, ValueError for bad arguments (every parameter is checked for every kernel), FloatingPointError
    where an entry overflows.
    """
    _check_floats(X=X)
    _check_reals(gamma=gamma, degree=degree, coef0=coef0)
    _check_shape("X", X, "(..., m, d)", X.ndim >= 2)
    _check_choice("kernel", kernel, KERNELS)
    gamma = _scalar("gamma", gamma, X.dtype, "a finite positive number", lambda v: v > 0 and _rounded(v, X.dtype) > 0)
    degree = _count("degree", degree, X.dtype)
    coef0 = _scalar("coef0", coef0, X.dtype, "a finite number", lambda _: True)
    with _arithmetic(X):
        _check_finite(X=X)
        if kernel == "rbf":
            return _rbf(X, math.sqrt(gamma))
        if kernel == "linear":
            values = _product(X, _transposed(X))
        else:
            values = ((_scaled_products(X, gamma) + coef0) ** float(degree)).astype(X.dtype)
        return _finite_result(f"the {kernel} Gram matrix", _symmetric(values))


def _scaled_products(X: Array, gamma: float) -> Array:
    """γ·X·Xᵀ in float64: ⟨x,y⟩ alone may overflow or vanish where γ⟨x,y⟩ does not, also where rows differ in scale.

    Every row is a power of two times one whose largest entry has half the exponent that d products leave room for.
    """
    xp = cupy.get_array_module(X)
    rows = X.astype(np.float64)
    room = (1023 - X.shape[-1].bit_length()) // 2
    exponents = xp.frexp(abs(rows).max(-1, keepdims=True))[1] - room
    rows = xp.ldexp(rows, -exponents)
    factor, shift = math.frexp(gamma)
    return xp.ldexp(factor * _product(rows, _transposed(rows)), exponents + _transposed(exponents) + shift)


def _rbf(X: Array, root: float) -> Array:
    """exp(−‖√γx − √γy‖²), the distance from norms and products of centred rows; `root` is √γ."""
    xp = cupy.get_array_module(X)
    centred = X - X.mean(-2, keepdims=True)
    # Far from the origin the mean is rounded by more than the rows differ: what is left of it goes in a second round.
    centred = root * (centred - centred.mean(-2, keepdims=True))
    products = _symmetric(_product(centred, _transposed(centred)))
    squares = (centred * centred).sum(-1)
    distances = xp.maximum(squares[..., :, None] + squares[..., None, :] - 2 * products, 0)
    diagonal = xp.arange(X.shape[-2])
    distances[..., diagonal, diagonal] = 0
    values = xp.exp(-distances)
    overflows = ~(squares <= np.finfo(X.dtype).max / 8).all(-1)
    for index in _indices(overflows):  # a distance as a sum of squared differences is infinite, or right
        rows = root * (X[index][:, None] - X[index])
        values[index] = xp.exp(-(rows * rows).sum(-1))
    return values


def inverse_gram(H: Array, *, ridge: float = 0.0, singular: str = "raise") -> Array:
    """(H + ridge·I)⁻¹ by Cholesky factors, member by member (Eq. 5). (..., m, m) → (..., m, m), symmetric bit for bit.

    A member is numerically singular where λ_min ≤ m·eps·λ_max or λ_max = 0. `singular="pinv"` gives those members
    their pseudoinverse (eigenvalues up to m·eps·λ_max count as 0), the others what they have alone; "raise" raises.
    The lower triangle counts, after a check of symmetry to 100·eps. Raises TypeError, ValueError for bad arguments,
    numpy.linalg.LinAlgError with the member's index and eigenvalue range where a member is indefinite
    (λ_min < −m·eps·λ_max) or singular, FloatingPointError where an inverse overflows.
    """
    _check_floats(H=H)
    _check_reals(ridge=ridge)
    _check_shape("H", H, "(..., m, m)", H.ndim >= 2 and H.shape[-1] == H.shape[-2])
    ridge = _not_negative("ridge", ridge, H.dtype)
    _check_choice("singular", singular, SINGULAR)
    with _arithmetic(H):
        _check_finite(H=H)
        _check_symmetric(H)
        xp, m = cupy.get_array_module(H), H.shape[-1]
        shifted = H + ridge * xp.eye(m, dtype=H.dtype)
        inverse, suspicious = cholesky_inverses(shifted.reshape(-1, m, m))
        inverse = inverse.reshape(H.shape)
        for index in _indices(suspicious.reshape(H.shape[:-2])):
            inverse[index] = _inverse_by_eigenvalues(H[index], ridge, singular, index)
        return inverse


def cholesky_inverses(A: Array) -> tuple[Array, Array]:
    """A⁻¹ = L⁻ᵀ·L⁻¹ from the Cholesky factor A = L·Lᵀ of each member, and which are suspicious: (c, m, m), (c,) bool.

    Suspicious is what has no factor, and what may be numerically singular: κ₁ ≥ 1/(2·m·eps). (κ₂ ≤ κ₁, so that no
    singular member passes; the 2 is for the rounding of a κ₁ that large.) The inverse of a suspicious member means
    nothing. Reads the lower triangles, checks nothing; symmetric bit for bit.
    """
    with _arithmetic(A):
        inverse_factors, failed = (_inverse_factors_numpy if isinstance(A, np.ndarray) else _inverse_factors_cuda)(A)
        inverses = _symmetric(_product(_transposed(inverse_factors), inverse_factors))
        return inverses, failed | ~(_norm1(A) * _norm1(inverses) < largest_condition(A.shape[-1], A.dtype))


def largest_condition(m: int, dtype: Any) -> float:
    """κ₁ from which on an inverse is not trusted to be that of a regular m × m matrix."""
    return 0.5 / (m * float(np.finfo(dtype).eps))


def _inverse_factors_cuda(A: Array) -> tuple[Array, Array]:
    """L⁻¹ by cuSOLVER's potrfBatched and cuBLAS's trsmBatched. (potrsBatched takes one right-hand side at a time.)"""
    c, m, _ = A.shape
    double = A.dtype == np.float64
    cublas, cusolver, device = cupy.cuda.cublas, cupy.cuda.cusolver, cupy.cuda.Device()
    factors = A.astype(A.dtype, order="C", copy=True)
    inverse_factors = cupy.empty_like(factors)
    inverse_factors[:] = cupy.eye(m, dtype=A.dtype)
    L, Y = (B.data.ptr + B.strides[0] * cupy.arange(c, dtype=np.uintp) for B in (factors, inverse_factors))
    info, one = cupy.empty(c, dtype=np.int32), np.ones((), A.dtype)
    # Columns come first to the libraries: L is upper to them, and L·Y = I is Yᵀ·Lᵀ = I, Lᵀ on the right.
    right, upper = cublas.CUBLAS_SIDE_RIGHT, cublas.CUBLAS_FILL_MODE_UPPER
    potrf = cusolver.dpotrfBatched if double else cusolver.spotrfBatched
    potrf(device.cusolver_handle, upper, m, L.data.ptr, m, info.data.ptr, c)
    trsm = cublas.dtrsmBatched if double else cublas.strsmBatched
    plain = cublas.CUBLAS_OP_N, cublas.CUBLAS_DIAG_NON_UNIT
    trsm(device.cublas_handle, right, upper, *plain, m, m, one.ctypes.data, L.data.ptr, m, Y.data.ptr, m, c)
    return inverse_factors, info != 0


def _inverse_factors_numpy(A: np.ndarray[Any, Any]) -> tuple[Array, Array]:
    """L⁻¹ by LAPACK's potrf, member by member for the sake of those that have none, and forward substitution."""
    factors, failed = np.empty_like(A, order="C"), np.zeros(len(A), dtype=bool)
    inverse_factors = np.zeros_like(factors)
    for number, member in enumerate(A):
        try:
            factors[number] = np.linalg.cholesky(member)
        except np.linalg.LinAlgError:
            factors[number], failed[number] = np.eye(len(member)), True
    for row in range(A.shape[-1]):
        pivots = factors[:, row, row, None]
        known = factors[:, None, row, :row] @ inverse_factors[:, :row]
        inverse_factors[:, row] = -known[:, 0] / pivots
        inverse_factors[:, row, row] = 1 / pivots[:, 0]
    return inverse_factors, failed


def _inverse_by_eigenvalues(H: Array, ridge: float, singular: str, index: tuple[int, ...]) -> Array:
    """The inverse or pseudoinverse of one suspicious member; an error where it must be."""
    xp, m = cupy.get_array_module(H), len(H)
    exponent = math.frexp(max(abs(H).max().item(), ridge))[1]
    # Divided by 2^exponent, which rounds nothing, the largest entry is about 1: no eigenvalue leaves the dtype's range.
    scaled = xp.ldexp(H, -exponent) + math.ldexp(ridge, -exponent) * xp.eye(m, dtype=H.dtype)
    eigenvalues, vectors = xp.linalg.eigh(scaled)
    smallest, largest = eigenvalues[0].item(), eigenvalues[-1].item()
    negligible = m * float(np.finfo(H.dtype).eps) * largest
    is_singular = smallest <= negligible or largest == 0
    if smallest < -negligible or (is_singular and singular == "raise"):
        what = "numerically singular" if smallest >= -negligible else "indefinite"
        low, high, least = (np.ldexp(value, exponent) for value in (smallest, largest, negligible))
        raise np.linalg.LinAlgError(
            f"H + ridge·I is {what} in member {index}: its eigenvalues go from {low:.6g} to {high:.6g}; "
            f"expected all above m·eps·λ_max = {least:.3g} (ridge is {ridge:.6g})"
        )
    eigenvalues[eigenvalues <= negligible] = math.inf
    inverse = xp.ldexp(_symmetric(_product(vectors / eigenvalues, vectors.T)), -exponent)
    return _finite_result(f"the inverse of member {index} of H + ridge·I", inverse)


def reshape_inverse(Hinv: Array, d_in: int) -> Array:
    """P of Eq. 5: the leading k × k block of Hinv, k = min(m, d_in), in a d_in × d_in matrix of zeros.

    (..., m, m) → (..., d_in, d_in), in the dtype of Hinv. Raises TypeError, ValueError for bad arguments.
    """
    _check_floats(Hinv=Hinv)
    _check_reals(d_in=d_in)
    _check_shape("Hinv", Hinv, "(..., m, m)", Hinv.ndim >= 2 and Hinv.shape[-1] == Hinv.shape[-2])
    d_in = _count("d_in", d_in, Hinv.dtype)
    with _arithmetic(Hinv):
        _check_finite(Hinv=Hinv)
        P = cupy.get_array_module(Hinv).zeros((*Hinv.shape[:-2], d_in, d_in), dtype=Hinv.dtype)
        P[..., : Hinv.shape[-1], : Hinv.shape[-1]] = Hinv[..., :d_in, :d_in]
        return P


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Mean cross-entropy J = −mean log softmax(f)_y, and its gradient (softmax(f) − one-hot)/m in the logits f.

    (m, n_c), (m,) integers of any width → scalar (of NumPy: a NumPy scalar), (m, n_c).
    Raises TypeError, ValueError for bad arguments, FloatingPointError where the loss overflows.
    """
    _check_floats(logits=logits)
    _check_array("labels", labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels are {labels.dtype}: expected integers")
    _check_shape("logits", logits, "(m, n_c)", logits.ndim == 2)
    m, classes = logits.shape
    _check_shape("labels", labels, f"({m},), one for each row of logits", labels.shape == (m,))
    _check_devices(logits=logits, labels=labels)
    with _arithmetic(logits):
        _check_finite(logits=logits)
        xp = cupy.get_array_module(logits)
        targets = labels.astype(np.int64)  # what does not fit wraps to a negative number, which is no class either
        for (row,) in _indices((targets < 0) | (targets >= classes)):
            raise ValueError(f"labels[{row}] is {labels[row].item()}: expected one of [0, {classes})")
        below = logits - logits.max(1, keepdims=True)
        weights = xp.exp(below)
        sums = weights.sum(1, keepdims=True)
        loss = ((xp.log(sums[:, 0]) - below[xp.arange(m), targets]) / m).sum()
        gradient = (weights / sums - (targets[:, None] == xp.arange(classes))) / m
        return _finite_result("the loss", loss), gradient


def weight_gradient(dlogits: Array, features: Array) -> Array:
    """G = dlogitsᵀ · features, the gradient in the last layer's weight. (m, n_c), (m, d_in) → (n_c, d_in).

    Raises TypeError, ValueError for bad arguments, FloatingPointError where an entry overflows.
    """
    _check_floats(dlogits=dlogits, features=features)
    _check_shape("dlogits", dlogits, "(m, n_c)", dlogits.ndim == 2)
    m = len(dlogits)
    _check_shape("features", features, f"({m}, d_in)", features.ndim == 2 and len(features) == m)
    _check_devices(dlogits=dlogits, features=features)
    with _arithmetic(dlogits):
        _check_finite(dlogits=dlogits, features=features)
        return _finite_result("the weight gradient", _product(dlogits.T, features))


def kernel_sgd_step(W: Array, grad: Array, P: Array, lr: float) -> Array:
    """W − lr · grad · P (Eq. 5), for P as written, symmetric or not.

    (n_c, d_in), (n_c, d_in), (d_in, d_in), float → (n_c, d_in).
    Raises TypeError, ValueError for bad arguments, FloatingPointError where an entry overflows.
    """
    _check_floats(W=W, grad=grad, P=P)
    _check_reals(lr=lr)
    _check_shape("W", W, "(n_c, d_in)", W.ndim == 2)
    classes, d_in = W.shape
    _check_shape("grad", grad, f"({classes}, {d_in})", grad.shape == W.shape)
    _check_shape("P", P, f"({d_in}, {d_in})", P.shape == (d_in, d_in))
    _check_devices(W=W, grad=grad, P=P)
    lr = _not_negative("lr", lr, W.dtype)
    with _arithmetic(W):
        _check_finite(W=W, grad=grad, P=P)
        return _finite_result("the stepped weight", W - lr * _product(grad, P))


def from_numpy(array: Any, dtype: str) -> Array:
    """A copy on the current GPU, in the same memory order; float arrays in `dtype`, integers as they are."""
    return cupy.array(_host_copy(array, dtype))


def to_numpy(array: Array) -> np.ndarray[Any, np.dtype[Any]]:
    """The array as NumPy's: itself where it is one."""
    host: np.ndarray[Any, np.dtype[Any]] = (
        np.asarray(array) if isinstance(array, np.generic | np.ndarray) else array.get()
    )
    return host


def device(array: Array) -> str:
    """Where the array lies: "cpu", or such as "cuda:0"."""
    return "cpu" if isinstance(array, np.generic | np.ndarray) else f"cuda:{array.device.id}"


def on(where: str) -> SimpleNamespace:
    """This backend with a `from_numpy` that makes arrays of "numpy", for machines without a GPU, or of "cuda"."""
    makers: dict[str, Callable[[Any, str], Array]] = {"numpy": _host_copy, "cuda": from_numpy}
    _check_choice("where", where, tuple(makers))
    operations = (gram, inverse_gram, reshape_inverse, softmax_cross_entropy, weight_gradient, kernel_sgd_step)
    return SimpleNamespace(
        name=f"cupy:{where}",
        dtypes=dtypes,
        from_numpy=makers[where],
        **{operation.__name__: operation for operation in (*operations, to_numpy, device)},
    )


@contextmanager
def _arithmetic(array: Array) -> Iterator[None]:
    """Computes where the array lies, quiet about what overflows (results are judged), float32 never as TF32."""
    with np.errstate(all="ignore"), nullcontext() if isinstance(array, np.ndarray) else _on_its_gpu(array):
        yield


@contextmanager
def _on_its_gpu(array: Array) -> Iterator[None]:
    with array.device as current:
        cublas, handle = cupy.cuda.cublas, current.cublas_handle
        mode = cublas.getMathMode(handle)
        cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
        try:
            yield
        finally:
            cublas.setMathMode(handle, mode)


def _host_copy(array: Any, dtype: str) -> np.ndarray[Any, Any]:
    _check_choice("dtype", dtype, dtypes)
    array = np.asarray(array)
    native = np.dtype(dtype) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # becomes infinity, which every operation refuses
        return np.array(array, dtype=native, order="K")


def _product(A: Array, B: Array) -> Array:
    """A·B, as a stack of one more dimension: see the top of the file."""
    return (A[None] @ B[None])[0]


def _transposed(A: Array) -> Array:
    return A.swapaxes(-1, -2)


def _symmetric(A: Array) -> Array:
    """A with the larger rounding of every pair in both places: a product is not symmetric bit for bit."""
    return cupy.get_array_module(A).maximum(A, _transposed(A))


def _norm1(A: Array) -> Array:
    return abs(A).sum(-2).max(-1)


def _indices(mask: Array) -> list[tuple[int, ...]]:
    """Where it holds; of a mask without dimensions, `[()]` or nothing."""
    if mask.ndim == 0:
        return [()] if mask.item() else []
    return [tuple(index) for index in cupy.get_array_module(mask).argwhere(mask).tolist()]


def _check_array(name: str, array: Array) -> None:
    if type(array) not in (cupy.ndarray, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}: expected a cupy.ndarray, or a numpy.ndarray")


def _check_floats(**arrays: Array) -> None:
    """Arrays of float64 or float32, all of one precision."""
    first: Array = None
    for name, array in arrays.items():
        _check_array(name, array)
        if array.dtype not in (np.dtype("float64"), np.dtype("float32")):
            raise TypeError(f"{name} is {array.dtype}: expected float64 or float32")
        first = array if first is None else first
        if array.dtype != first.dtype:
            raise TypeError(f"{name} is {array.dtype}: expected {first.dtype} like {next(iter(arrays))}")


def _check_reals(**scalars: float) -> None:
    for name, value in scalars.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a real number")


def _check_shape(name: str, array: Array, expected: str, fits: bool) -> None:
    if not fits or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}: expected {expected} and no empty dimension")


def _check_devices(**arrays: Array) -> None:
    where = {name: device(array) for name, array in arrays.items()}
    if len(set(where.values())) > 1:
        raise ValueError(f"arrays lie on different devices, {where}: expected one")


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ValueError(f"{name} is {choice!r}: expected one of {choices}")


def _check_finite(**arrays: Array) -> None:
    for name, array in arrays.items():
        finite = cupy.get_array_module(array).isfinite(array)
        if not finite.all().item():
            index = _indices(~finite)[0]
            raise ValueError(f"{name} holds {array[index].item()} at {index}: expected finite numbers")


def _check_symmetric(H: Array) -> None:
    difference, largest = abs(H - _transposed(H)).max((-2, -1)), abs(H).max((-2, -1))
    for index in _indices(difference > 100 * float(np.finfo(H.dtype).eps) * largest):
        raise ValueError(
            f"H differs from its transpose by {difference[index].item():.3g} in member {index}: "
            f"expected at most 100·eps times its largest entry, {largest[index].item():.3g}"
        )


def _finite_result(what: str, result: Array) -> Array:
    if not cupy.get_array_module(result).isfinite(result).all().item():
        raise FloatingPointError(f"{what} overflows {result.dtype}: expected arguments of moderate size")
    return result


def _scalar(name: str, value: float, dtype: Any, expected: str, holds: Callable[[float], bool]) -> float:
    """The value, which must be finite in the dtype and fulfil `holds` as given."""
    rounded = _rounded(value, dtype)
    if not math.isfinite(rounded) or not holds(value):
        shown = repr(value) if math.isfinite(rounded) else f"{rounded} in {dtype}"
        raise ValueError(f"{name} is {shown}: expected {expected} that {dtype} can hold")
    return float(value)


def _rounded(value: float, dtype: Any) -> float:
    try:
        with np.errstate(over="ignore", under="ignore"):
            return float(np.float64(float(value)).astype(dtype))
    except OverflowError:  # an integer or fraction beyond float64
        return math.inf


def _not_negative(name: str, value: float, dtype: Any) -> float:
    return _scalar(name, value, dtype, "a finite number >= 0", lambda v: v >= 0)


def _count(name: str, value: float, dtype: Any) -> int:
    return int(_scalar(name, value, dtype, "an integer >= 1", lambda v: v >= 1 and v == math.floor(v)))
