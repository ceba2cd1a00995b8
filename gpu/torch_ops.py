"""The operations of the backend contract on torch tensors: batched, on any device, in float64 and float32.

Every public operation is a row of checks (types, then shapes, then values) in front of an unchecked core. The optimizer
and the kernel cache call the cores `gram_core` or its halves, `invert_members` and `step_block_`: one code for training
and for the checked operation. Results never share memory with inputs, inputs are never written to, and everything but
what works in place can be differentiated. float32 is computed as float32 even where the caller has allowed TF32,
bfloat16 or autocast, the polynomial kernel in float64.

This file knows nothing of optimizers, caches or the reference; it imports NumPy and torch alone.
"""

import functools
import math
import numbers
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

KERNELS = ("rbf", "linear", "polynomial")
SINGULAR = ("raise", "pinv")
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)

name = "torch:cpu"
dtypes = ("float64", "float32")

_FLOATS = (torch.float64, torch.float32)

_NOTHING = nullcontext()


def gram(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0) -> Tensor:
    """Gram matrices H_ij = k(x_i, x_j) of the rows of X (section 3.1; scikit-learn's kernels).

    `rbf` exp(−γ‖x−y‖²), `linear` ⟨x,y⟩, `polynomial` (γ⟨x,y⟩ + coef0)^degree. (..., m, d) → (..., m, m), float64 or
    float32. Symmetric bit for bit; the diagonal of `rbf` is exactly 1, and a distance that overflows gives 0.
    Raises TypeError, ValueError for bad arguments (every parameter is checked for every kernel), FloatingPointError
    where an entry overflows.
    """
    _check_floats(X=X)
    _check_reals(gamma=gamma, degree=degree, coef0=coef0)
    _check_shape("X", X, "(..., m, d)", X.ndim >= 2)
    _check_choice("kernel", kernel, KERNELS)
    gamma = _positive("gamma", gamma, X.dtype)
    degree = _count("degree", degree, X.dtype)
    coef0 = _number("coef0", coef0, X.dtype, "a finite number", lambda _: True)
    _check_finite(X=X)
    return gram_core(X, kernel, gamma=gamma, degree=degree, coef0=coef0)


def gram_core(X: Tensor, kernel: str, *, gamma: float, degree: int, coef0: float) -> Tensor:
    """`gram` after its checks."""
    with _full_precision_of(X):
        if kernel == "rbf":
            return _rbf(X, gamma)
        values = X @ X.mT if kernel == "linear" else (_scaled_products(X, gamma) + coef0) ** float(degree)
        return _finite_result(f"the {kernel} Gram matrix", _symmetric(values.to(X.dtype)))


def _scaled_products(X: Tensor, gamma: float) -> Tensor:
    """γ·X·Xᵀ in float64, also where ⟨x,y⟩ alone leaves its range: every row, and γ, is first divided by a power of two
    of its own size, and its products are multiplied by it in the end.

    What is lost are the smallest entries of a float64 row that spans more than 450 decimal orders of magnitude.
    """
    rows = X.double()
    # All rows are brought to one size: the largest whose products, d of them added up, stay in range.
    size = (1023 - X.shape[-1].bit_length()) // 2
    exponents = torch.frexp(rows.detach().abs().amax(-1, keepdim=True)).exponent - size
    factor, shift = math.frexp(gamma)
    scaled = _times_power_of_two(rows, -exponents)
    return _times_power_of_two(factor * (scaled @ scaled.mT), exponents + exponents.mT + shift)


def _times_power_of_two(A: Tensor, exponent: Tensor) -> Tensor:
    half = exponent // 2  # the whole power may leave the range of float64 where the result does not
    return (A * half.double().exp2()).mul_((exponent - half).double().exp2())


def _rbf(X: Tensor, gamma: float) -> Tensor:
    centred = _centred(X, gamma)
    values, overflowing = rbf_of_products(_symmetric(centred @ centred.mT), gamma)
    if overflowing.any():
        values = values.clone()  # autograd keeps the result of exp
        values[overflowing] = _rbf_from_differences(X[overflowing], math.sqrt(gamma))
    return values


def centred_products_(X: Tensor, gamma: float, out: Tensor) -> None:
    """⟨x_i − x̄, x_j − x̄⟩ of every member of X, which is overwritten, into `out`: (..., m, d) → (..., m, m).

    On a processor NumPy hands it to BLAS's syrk, which may take two thirds of the time of torch's product. The caller
    then sees to the threads of NumPy's BLAS, which torch.set_num_threads does not reach. Not for autograd.
    """
    centred = _centred(X, gamma, out=X)
    if X.device.type != "cpu":
        out.copy_(_symmetric(centred @ centred.mT))
        return
    rows = centred.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        np.matmul(rows, rows.swapaxes(-1, -2), out=out.numpy())


def _centred(X: Tensor, gamma: float, out: Tensor | None = None) -> Tensor:
    mean = X.mean(-2, keepdim=True)
    centred = torch.sub(X, mean, out=out)
    # The mean's own rounding moves the data off centre, by some δ ≤ 8·eps·‖mean‖: where γδ² is not tiny, centre again.
    scale = 8 * torch.finfo(X.dtype).eps * math.sqrt(gamma)
    if not scale * torch.linalg.vector_norm(mean.detach(), 1).item() < 0.1:  # cheap, and settles nearly all calls
        off_centre = scale * mean.detach().abs().sum(-1, keepdim=True)
        centred = torch.where(off_centre < 0.1, centred, centred - centred.mean(-2, keepdim=True))
    return centred


def rbf_of_products(products: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """exp(−γ(p_ii + p_jj − 2·p_ij)) of products p_ij = ⟨x_i, x_j⟩, symmetric bit for bit, and of which members the
    products, or what is added of them, may have overflowed: theirs are wrong. (..., m, m) → (..., m, m), (...) bool."""
    squares = products.diagonal(dim1=-2, dim2=-1)
    overflowing = ~(squares.detach().amax(-1) <= torch.finfo(products.dtype).max / 8)
    exponent = (squares.unsqueeze(-1) + squares.unsqueeze(-2)).add_(products, alpha=-2).clamp_(min=0).mul_(-gamma)
    exponent.diagonal(dim1=-2, dim2=-1).zero_()
    return exponent.exp_(), overflowing


def _rbf_from_differences(X: Tensor, root: float) -> Tensor:
    """RBF values without a matrix product: a difference that overflows gives 0, and duplicates give 1."""
    rows = [((X - row.unsqueeze(-2)) * root).square().sum(-1) for row in X.unbind(-2)]
    return _symmetric(torch.stack(rows, -2).neg().exp())


def inverse_gram(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
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
    _check_finite(H=H)
    _check_symmetric(H)
    return invert_members(H, ridge, singular)[0]


def invert_members(H: Tensor, ridge: float, singular: str) -> tuple[Tensor, Tensor]:
    """`inverse_gram` after its checks, and which members took the pseudoinverse: (..., m, m), (...) bool."""
    m, eps = H.shape[-1], torch.finfo(H.dtype).eps
    with _full_precision_of(H):
        # LAPACK's bits depend on how a member is aligned: rows of 4, 8, ..., padded with the identity, align all alike.
        shifted = torch.nn.functional.pad(H, (0, -m % 4, 0, -m % 4))
        diagonal = shifted.diagonal(dim1=-2, dim2=-1)
        diagonal[..., :m] += ridge
        diagonal[..., m:] = 1
        factor, info = torch.linalg.cholesky_ex(shifted)
        suspicious = info != 0
        if suspicious.any():  # potri refuses the factors that failed
            identity = torch.eye(shifted.shape[-1], dtype=H.dtype, device=H.device)
            factor = torch.where(suspicious[..., None, None], identity, factor)
        inverse = _symmetric(torch.cholesky_inverse(factor)[..., :m, :m])
        # ‖A‖₁ ≤ √m·tr A for a positive definite A: the traces, cheap, settle nearly all members.
        if not (_trace(shifted[..., :m, :m]) * _trace(inverse) * (m * m * eps) < 0.25).all():
            suspicious |= ~(_norm1(shifted[..., :m, :m]) * _norm1(inverse) * (m * eps) < 0.5)
        took_pseudoinverse = torch.zeros_like(suspicious)
        for index in map(tuple, suspicious.nonzero().tolist()):
            inverse[index], took_pseudoinverse[index] = _invert_by_eigenvalues(H[index], ridge, singular, index)
        return inverse, took_pseudoinverse


def _invert_by_eigenvalues(H: Tensor, ridge: float, singular: str, index: tuple[int, ...]) -> tuple[Tensor, bool]:
    """One suspicious member: its inverse or pseudoinverse, and whether it is singular; an error where it must be."""
    m, limits = len(H), torch.finfo(H.dtype)
    # A power of two brings the largest entry to about 1, so that no eigenvalue leaves the range of the dtype.
    most = math.frexp(limits.max)[1] - 2
    exponent = math.frexp(max(H.detach().abs().max().item(), ridge))[1]
    scale = math.ldexp(1.0, max(-most, min(-exponent, most)))
    scaled = H * scale
    scaled.diagonal().add_(ridge * scale)
    eigenvalues, vectors = torch.linalg.eigh(scaled, UPLO="L")
    smallest, largest = eigenvalues.detach()[[0, -1]].tolist()
    negligible = m * limits.eps * largest
    is_singular = smallest <= negligible or largest == 0
    if smallest < -negligible or (is_singular and singular == "raise"):
        what = "numerically singular" if smallest >= -negligible else "indefinite"
        raise np.linalg.LinAlgError(
            f"H + ridge·I is {what} in member {index}: its eigenvalues go from {smallest / scale:.6g} to "
            f"{largest / scale:.6g}; expected all above m·eps·λ_max = {negligible / scale:.3g} (ridge is {ridge:.6g})"
        )
    reciprocals = eigenvalues.masked_fill(eigenvalues <= negligible, math.inf).reciprocal()
    inverse = _symmetric((vectors * reciprocals) @ vectors.mT) * scale
    return _finite_result(f"the inverse of member {index} of H + ridge·I", inverse), is_singular


def reshape_inverse(Hinv: Tensor, d_in: int) -> Tensor:
    """P of Eq. 5: the leading k × k block of Hinv, k = min(m, d_in), in a d_in × d_in matrix of zeros.

    (..., m, m) → (..., d_in, d_in), in the dtype of Hinv.
    Raises TypeError, ValueError for bad arguments.
    """
    _check_floats(Hinv=Hinv)
    _check_reals(d_in=d_in)
    _check_shape("Hinv", Hinv, "(..., m, m)", Hinv.ndim >= 2 and Hinv.shape[-1] == Hinv.shape[-2])
    d_in = _count("d_in", d_in, Hinv.dtype)
    _check_finite(Hinv=Hinv)
    k = min(Hinv.shape[-1], d_in)
    P = Hinv.new_zeros(*Hinv.shape[:-2], d_in, d_in)
    P[..., :k, :k] = Hinv[..., :k, :k]
    return P


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy J = −mean log softmax(f)_y, and its gradient (softmax(f) − one-hot)/m in the logits f.

    (m, n_c), (m,) integers of any width → scalar, (m, n_c). Both can be differentiated in the logits.
    Raises TypeError, ValueError for bad arguments, FloatingPointError where the loss overflows.
    """
    _check_floats(logits=logits)
    _check_dense("labels", labels)
    if labels.dtype not in INTEGERS:
        raise TypeError(f"labels are {labels.dtype}: expected integers")
    _check_shape("logits", logits, "(m, n_c)", logits.ndim == 2)
    m, classes = logits.shape
    _check_shape("labels", labels, f"({m},), one for each row of logits", labels.shape == (m,))
    _check_devices(logits=logits, labels=labels)
    _check_finite(logits=logits)
    targets = labels.to(torch.int64)  # what does not fit wraps to a negative number, which is no class either
    outside = (targets < 0) | (targets >= classes)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ValueError(f"labels[{first}] is {labels[first].item()}: expected one of [0, {classes})")
    with _full_precision_of(logits):
        log_softmax = torch.log_softmax(logits, 1)
        targets = targets.unsqueeze(1)
        loss = (log_softmax.gather(1, targets) / -m).sum()
        one_hot = (targets == torch.arange(classes, device=logits.device)).to(logits.dtype)
        gradient = (log_softmax.exp() - one_hot) / m
    return _finite_result("the loss", loss), gradient


def weight_gradient(dlogits: Tensor, features: Tensor) -> Tensor:
    """G = dlogitsᵀ · features, the gradient in the last layer's weight. (m, n_c), (m, d_in) → (n_c, d_in).

    Raises TypeError, ValueError for bad arguments, FloatingPointError where an entry overflows.
    """
    _check_floats(dlogits=dlogits, features=features)
    _check_shape("dlogits", dlogits, "(m, n_c)", dlogits.ndim == 2)
    m = len(dlogits)
    _check_shape("features", features, f"({m}, d_in)", features.ndim == 2 and len(features) == m)
    _check_devices(dlogits=dlogits, features=features)
    _check_finite(dlogits=dlogits, features=features)
    with _full_precision_of(dlogits):
        return _finite_result("the weight gradient", dlogits.mT @ features)


def kernel_sgd_step(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
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
    _check_finite(W=W, grad=grad, P=P)
    stepped = W.clone()
    with _full_precision_of(W):
        step_block_(stepped, grad, P, lr)
    return _finite_result("the stepped weight", stepped)


def step_block_(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> None:
    """In place W[:, :k] −= lr · grad[:, :k] · P[:k, :k], k = min(d_in, m), for P of (m, m) or (d_in, d_in). No checks.

    What `kernel_sgd_step` gives for the P that `reshape_inverse` pads, without forming it. The caller sees to
    `full_precision` and to gradient mode.
    """
    k = min(W.shape[1], P.shape[0])
    block = P if len(P) == k else P[:k, :k]
    _leading(W, k).addmm_(_leading(grad, k), block, alpha=-lr)


def _leading(A: Tensor, k: int) -> Tensor:
    """A[:, :k], in half the time that slicing takes: on small layers that time counts."""
    return A if A.shape[1] == k else A.as_strided((A.shape[0], k), A.stride())


def from_numpy(array: Any, dtype: str) -> Tensor:
    """A copy of a NumPy array on the CPU, in the same memory order; float arrays in `dtype`, integers as they are."""
    return _tensor_on(torch.device("cpu"), array, dtype)


def to_numpy(array: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """The tensor as a NumPy array: a view where it lies on the CPU."""
    return array.numpy(force=True)


def device(array: Tensor) -> str:
    """Where the tensor lies, such as "cpu" or "cuda:0"."""
    return str(array.device)


def on(where: str) -> SimpleNamespace:
    """This backend for another device: `on("cuda").from_numpy` puts arrays there; operations run where arrays lie."""
    operations = (
        gram,
        inverse_gram,
        reshape_inverse,
        softmax_cross_entropy,
        weight_gradient,
        kernel_sgd_step,
        to_numpy,
        device,
    )
    return SimpleNamespace(
        name=f"torch:{where}",
        dtypes=dtypes,
        from_numpy=functools.partial(_tensor_on, torch.device(where)),
        **{operation.__name__: operation for operation in operations},
    )


def full_precision(device_type: str) -> AbstractContextManager[None]:
    """float32 products as float32: no autocast, TF32 or bfloat16 inside; the caller's settings come back on exit.

    Costs next to nothing where the caller has lowered nothing.
    """
    try:
        lowered = torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the answer where something has been set through the API of torch 2.9
        lowered = True
    if lowered or torch.is_autocast_enabled(device_type):
        return _raised_precision(device_type)
    return _NOTHING


@contextmanager
def _raised_precision(device_type: str) -> Iterator[None]:
    # Read and written through one API only: torch refuses to read through the older one once the newer has been used.
    backend = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    matmul: Any = getattr(backend, "matmul", None)
    newer = getattr(matmul, "fp32_precision", None)
    before = newer or torch.get_float32_matmul_precision()
    set_precision = (
        functools.partial(setattr, matmul, "fp32_precision") if newer else torch.set_float32_matmul_precision
    )
    lowered = before not in ("none", "ieee", "highest")
    if lowered:
        set_precision("ieee" if newer else "highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if lowered and newer:
            set_precision("none")  # so that an inherited setting stays inherited
        if lowered and getattr(matmul, "fp32_precision", None) != before:
            set_precision(before)


def _full_precision_of(array: Tensor) -> AbstractContextManager[None]:
    return full_precision(array.device.type) if array.dtype == torch.float32 else nullcontext()


def _tensor_on(where: torch.device, array: Any, dtype: str) -> Tensor:
    if dtype not in dtypes:
        raise ValueError(f"dtype is {dtype!r}: expected one of {dtypes}")
    array = np.asarray(array)
    native = np.dtype(dtype) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # becomes infinity, which every operation refuses
        copied = array.astype(native, order="K", copy=True)
    return torch.from_numpy(copied).to(where)


def _symmetric(A: Tensor) -> Tensor:
    """A with the larger rounding of every pair in both places: products and powers are not symmetric bit for bit."""
    return torch.maximum(A, A.mT)


def _trace(A: Tensor) -> Tensor:
    return A.detach().diagonal(dim1=-2, dim2=-1).sum(-1)


def _norm1(A: Tensor) -> Tensor:
    return A.detach().abs().sum(-2).amax(-1)


def _check_dense(name: str, array: Tensor) -> None:
    if not isinstance(array, Tensor):
        raise TypeError(f"{name} is a {type(array).__name__}: expected a torch.Tensor")
    if array.layout is not torch.strided or array.is_nested:
        raise TypeError(f"{name} is {'nested' if array.is_nested else array.layout}: expected a dense tensor")


def _check_floats(**arrays: Tensor) -> None:
    """Dense tensors of float64 or float32, all of one precision."""
    first: Tensor | None = None
    for name, array in arrays.items():
        _check_dense(name, array)
        if array.dtype not in _FLOATS:
            raise TypeError(f"{name} is {array.dtype}: expected torch.float64 or torch.float32")
        first = array if first is None else first
        if array.dtype != first.dtype:
            raise TypeError(f"{name} is {array.dtype}: expected {first.dtype} like {next(iter(arrays))}")


def _check_reals(**scalars: float) -> None:
    for name, value in scalars.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a real number")


def _check_shape(name: str, array: Tensor, expected: str, fits: bool) -> None:
    if not fits or 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)}: expected {expected} and no empty dimension")


def _check_devices(**arrays: Tensor) -> None:
    where = {name: str(array.device) for name, array in arrays.items()}
    if len(set(where.values())) > 1:
        raise ValueError(f"arrays lie on different devices, {where}: expected one")


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ValueError(f"{name} is {choice!r}: expected one of {choices}")


def _check_finite(**arrays: Tensor) -> None:
    for name, array in arrays.items():
        if not _is_finite(array):
            index = tuple((~array.isfinite()).nonzero()[0].tolist())
            raise ValueError(f"{name} holds {array[index].item()} at {index}: expected finite numbers")


def _finite_result(what: str, result: Tensor) -> Tensor:
    if not _is_finite(result):
        raise FloatingPointError(f"{what} overflows {result.dtype}: expected arguments of moderate size")
    return result


def _is_finite(array: Tensor) -> bool:
    smallest, largest = array.detach().aminmax()  # NaN comes through; one pass, far cheaper than isfinite
    return math.isfinite(smallest.item()) and math.isfinite(largest.item())


def _check_symmetric(H: Tensor) -> None:
    H = H.detach()
    difference, largest = (H - H.mT).abs().amax((-2, -1)), H.abs().amax((-2, -1))
    asymmetric = difference > 100 * torch.finfo(H.dtype).eps * largest
    if asymmetric.any():
        index = tuple(asymmetric.nonzero()[0].tolist())
        raise ValueError(
            f"H differs from its transpose by {difference[index].item():.3g} in member {index}: "
            f"expected at most 100·eps times its largest entry, {largest[index].item():.3g}"
        )


def _number(name: str, value: float, dtype: torch.dtype, expected: str, holds: Callable[[float], bool]) -> float:
    """The value, which must be finite in the dtype and fulfil `holds` as given."""
    rounded = _rounded(value, dtype)
    if not math.isfinite(rounded) or not holds(value):
        shown = repr(value) if math.isfinite(rounded) else f"{rounded} in {dtype}"
        raise ValueError(f"{name} is {shown}: expected {expected} that {dtype} can hold")
    return float(value)


def _rounded(value: float, dtype: torch.dtype) -> float:
    try:
        return torch.tensor(float(value), dtype=torch.float64, device="cpu").to(dtype).item()
    except OverflowError:  # an integer or fraction beyond float64
        return math.inf


def _positive(name: str, value: float, dtype: torch.dtype) -> float:
    return _number(name, value, dtype, "a finite positive number", lambda v: v > 0 and _rounded(v, dtype) > 0)


def _not_negative(name: str, value: float, dtype: torch.dtype) -> float:
    return _number(name, value, dtype, "a finite number of at least 0", lambda v: v >= 0)


def _count(name: str, value: float, dtype: torch.dtype) -> int:
    return int(_number(name, value, dtype, "a finite integer of at least 1", lambda v: v >= 1 and v == int(v)))
