"""Hypothesis strategies for everything Kernel SGD takes in, ordinary and nasty.

Every function returns a strategy. Float arrays come in the dtype asked for ("float64" or "float32"); sizes are numbers
or strategies of numbers. Cases are put together from small pieces (sizes, small integers, powers of ten), so that they
shrink to something readable; a seed stands for the entries of random or large matrices only. Neither torch nor the
reference is known here.
"""

from collections.abc import Sequence
from math import log10, prod
from typing import NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.strategies import DrawFn, SearchStrategy
from numpy.typing import NDArray

T = TypeVar("T")
Array = NDArray[np.floating]
Labels = NDArray[np.integer]
Size = int | SearchStrategy[int]
Real = float | SearchStrategy[float]
Shape = tuple[int, ...]

PAPER_GRID = (0.1, 0.01, 0.001, 0.0001)  # learning rates and γ of the paper, section 4.1

DATA_KINDS = (
    "plain",
    "random",
    "duplicates",
    "near-duplicates",
    "offset",
    "outlier",
    "tiny",
    "subnormal",
    "huge",  # squares still fit the dtype, cubes do not
)
BOUNDED_KINDS = DATA_KINDS[:-1]  # for polynomial kernels: degree 3 does not overflow

# Largest decimal exponents of the scales drawn: data whose squares, matrices whose inverses fit the dtype.
_DATA_EXPONENT = {"float64": 150, "float32": 16}
_MATRIX_EXPONENT = {"float64": 200, "float32": 25}
_OFFSET_EXPONENT = {"float64": 8, "float32": 5}


class StepInputs(NamedTuple):
    """The arguments of W − lr · grad · P, in this order."""

    W: Array
    grad: Array
    P: Array
    lr: float


class Preconditioned(NamedTuple):
    """A weight, its gradient and the m × m inverse that is to be reshaped for them."""

    W: Array
    grad: Array
    inverse: Array
    lr: float


def dtypes() -> SearchStrategy[str]:
    """The dtypes a backend may claim."""
    return st.sampled_from(("float64", "float32"))


def sizes(largest: int = 8) -> SearchStrategy[int]:
    """1, 2, ..., largest."""
    return st.integers(1, largest)


INSTANCES, FEATURES, CLASSES = sizes(8), sizes(6), sizes(5)
_TRAINING_SET, _MINI_BATCH, _HIDDEN_LAYERS = sizes(12), sizes(5), st.integers(0, 2)
_LEADING = st.sampled_from(((1,), (3,), (2, 2)))


def seeds() -> SearchStrategy[int]:
    """Seeds of random generators."""
    return st.integers(0, 2**32 - 1)


def learning_rates() -> SearchStrategy[float]:
    """The paper's grid, and around it 0, 1 and 10."""
    return st.sampled_from((*PAPER_GRID, 1.0, 10.0, 0.0))


def kernels(*names: str) -> SearchStrategy[dict[str, object]]:
    """Keywords of `gram` for the named kernels, all three where none is named, parameters around the paper's."""
    gamma = st.sampled_from((1.0, *PAPER_GRID))
    polynomial = {"gamma": gamma, "degree": st.integers(1, 3), "coef0": st.integers(-2, 2).map(float)}
    parameters = {"rbf": {"gamma": gamma | st.just(10.0)}, "linear": {}, "polynomial": polynomial}
    return st.one_of(
        *(st.fixed_dictionaries({"kernel": st.just(name), **parameters[name]}) for name in names or parameters)
    )


@st.composite
def matrices(draw: DrawFn, dtype: str = "float64", rows: Size = INSTANCES, columns: Size = FEATURES) -> Array:
    """Any (rows, columns): small integers times a power of ten, or standard normal."""
    shape = _drawn(draw, rows), _drawn(draw, columns)
    A = _integers(draw, shape) * 10.0 ** draw(_exponents(3))
    return (_normal(draw, shape) if draw(st.booleans()) else A).astype(dtype)


@st.composite
def data_matrices(
    draw: DrawFn,
    dtype: str = "float64",
    rows: Size = INSTANCES,
    columns: Size = FEATURES,
    kinds: Sequence[str] = DATA_KINDS,
) -> Array:
    """Training inputs X (m, d) of one of the kinds; squared norms never overflow."""
    shape = m, _ = _drawn(draw, rows), _drawn(draw, columns)
    kind = draw(st.sampled_from(kinds))
    X, scale = _integers(draw, shape), 10.0 ** draw(_exponents(1))
    if kind == "subnormal":
        return (X * float(np.finfo(dtype).smallest_subnormal)).astype(dtype)
    if kind in ("tiny", "huge"):
        exponent = draw(st.integers(_DATA_EXPONENT[dtype] // 2, _DATA_EXPONENT[dtype]))
        return (X * 10.0 ** (exponent if kind == "huge" else -exponent)).astype(dtype)
    X = X * scale
    if kind == "random":
        X = _normal(draw, shape) * scale
    if kind in ("duplicates", "near-duplicates"):
        X = X[draw(_repeating_rows(m))]
    if kind == "near-duplicates":
        X += _integers(draw, shape) * 10.0 ** -draw(st.integers(3, 12))
    if kind == "offset":
        X += 10.0 ** draw(st.integers(2, _OFFSET_EXPONENT[dtype])) / 3  # a full significand: no square is exact
    if kind == "outlier":
        X[draw(st.integers(0, m - 1))] *= 10.0 ** draw(st.integers(2, _OFFSET_EXPONENT[dtype] - 1))
    return X.astype(dtype)


@st.composite
def logits(draw: DrawFn, dtype: str = "float64", rows: Size = INSTANCES, classes: Size = CLASSES) -> Array:
    """Logits (m, n_c) up to ±1e4: random, integers at a scale, a row of equals, or steep (exp underflows)."""
    shape = _drawn(draw, rows), _drawn(draw, classes)
    f, scale = _integers(draw, shape, largest=10), 10.0 ** draw(_exponents(3))
    kind = draw(st.sampled_from(("integers", "tie", "random", "steep")))
    if kind == "steep":
        scale = 1e3
    if kind == "tie":
        f[0] = f[0, 0]
    if kind == "random":
        f = np.clip(_normal(draw, shape), -10, 10)
    return (f * scale).astype(dtype)


def labels(rows: int, classes: int, dtype: str = "int64") -> SearchStrategy[Labels]:
    """Labels (m,) in [0, n_c)."""
    return hnp.arrays(dtype, rows, elements=st.integers(0, classes - 1))


@st.composite
def logits_and_labels(
    draw: DrawFn, dtype: str = "float64", rows: Size = INSTANCES, classes: Size = CLASSES
) -> tuple[Array, Labels]:
    """What the loss takes: logits (m, n_c) and labels (m,), one class among the cases."""
    f = draw(logits(dtype, rows, classes))
    return f, draw(labels(*f.shape))


@st.composite
def features(draw: DrawFn, dtype: str = "float64", rows: Size = INSTANCES, columns: Size = FEATURES) -> Array:
    """Inputs (m, d_in) of a layer: any matrix, or one that has gone through a ReLU."""
    Z = draw(matrices(dtype, rows, columns))
    return np.maximum(Z, 0) if draw(st.booleans()) else Z


@st.composite
def gram_matrices(
    draw: DrawFn,
    dtype: str = "float64",
    size: Size = INSTANCES,
    condition: Real | None = None,
    scale: Real | None = None,
) -> Array:
    """Symmetric positive definite H (m, m) with the given λ_max/λ_min (for m > 1) and λ_max.

    By default a condition up to 1/(128·m·eps), where nobody may call H singular, and any scale whose inverse fits.
    """
    m = _drawn(draw, size)
    if condition is None:
        condition = _powers_of_ten(0, int(-log10(128 * m * np.finfo(dtype).eps)))
    if scale is None:
        scale = _powers_of_ten(-3, 3) | _powers_of_ten(-_MATRIX_EXPONENT[dtype], _MATRIX_EXPONENT[dtype])
    smallest = 1 / _drawn(draw, condition)
    decay = np.linspace(0, 1, m)
    exponents = draw(st.sampled_from((decay, np.ceil(decay), np.floor(decay))))  # geometric, one large, one small
    return _with_spectrum(draw, _drawn(draw, scale) * smallest**exponents).astype(dtype)


def projections(dtype: str = "float64", size: Size = INSTANCES) -> SearchStrategy[Array]:
    """Symmetric positive definite P of Eq. 3, well-conditioned."""
    return gram_matrices(dtype, size, condition=_powers_of_ten(0, 2), scale=_powers_of_ten(-1, 1))


@st.composite
def singular_gram_matrices(draw: DrawFn, dtype: str = "float64", size: Size = INSTANCES) -> Array:
    """Exactly singular positive semi-definite H (m, m): equal rows, an exact product of low rank, or 0.

    The eigenvalues that are not 0 are far above m·eps·λ_max.
    """
    m = _drawn(draw, size)
    kind = draw(st.sampled_from(("duplicates", "low rank", "zero"))) if m > 1 else "zero"
    if kind == "duplicates":
        H = draw(gram_matrices(dtype, m - 1, condition=_powers_of_ten(0, 2)))
        rows = draw(_repeating_rows(m))
        return H[np.ix_(rows, rows)]
    A = _integers(draw, (m, min(m - 1, 2)), largest=2) if kind == "low rank" else np.zeros((m, 1))
    return (A @ A.T).astype(dtype)


@st.composite
def positive_semidefinite_matrices(draw: DrawFn, dtype: str = "float64", size: Size = INSTANCES) -> Array:
    """A·Aᵀ (m, m) of any rank, 0 included, exact in the dtype."""
    m = _drawn(draw, size)
    A = _integers(draw, (m, draw(st.integers(1, m))))
    return (A @ A.T).astype(dtype)


@st.composite
def indefinite_matrices(draw: DrawFn, dtype: str = "float64", size: Size = INSTANCES) -> Array:
    """Symmetric (m, m) with an eigenvalue of at most −1/100 of the largest in size."""
    spectrum = np.ones(_drawn(draw, size))
    spectrum[-1] = -draw(_powers_of_ten(-2, 0))
    return _with_spectrum(draw, spectrum).astype(dtype)


@st.composite
def preconditioned_gradients(
    draw: DrawFn, dtype: str = "float64", classes: Size = CLASSES, columns: Size = FEATURES
) -> Preconditioned:
    """A layer's weight and gradient (n_c, d_in), an inverse (m, m) with m <, = or > d_in, and a learning rate."""
    n_c, d_in = _drawn(draw, classes), _drawn(draw, columns)
    m = draw(st.sampled_from((d_in, max(1, d_in - 1), d_in + 1)) | sizes())
    W, grad = (draw(matrices(dtype, n_c, d_in)) for _ in range(2))
    inverse = draw(gram_matrices(dtype, m, scale=_powers_of_ten(-3, 3)))
    return Preconditioned(W, grad, inverse, draw(learning_rates()))


@st.composite
def step_inputs(draw: DrawFn, dtype: str = "float64", classes: Size = CLASSES, columns: Size = FEATURES) -> StepInputs:
    """What the step takes: P is a reshaped inverse, or any square matrix, not symmetric."""
    W, grad, inverse, lr = draw(preconditioned_gradients(dtype, classes, columns))
    d_in = W.shape[1]
    if draw(st.booleans()):
        return StepInputs(W, grad, draw(matrices(dtype, d_in, d_in)), lr)
    k = min(len(inverse), d_in)
    P = np.zeros((d_in, d_in), dtype)
    P[:k, :k] = inverse[:k, :k]
    return StepInputs(W, grad, P, lr)


@st.composite
def network_sizes(
    draw: DrawFn, inputs: Size = FEATURES, classes: Size = CLASSES, hidden: Size = _HIDDEN_LAYERS
) -> tuple[int, ...]:
    """(inputs, hidden..., classes) of a small multilayer perceptron."""
    widths = [draw(sizes(6)) for _ in range(_drawn(draw, hidden))]
    return _drawn(draw, inputs), *widths, _drawn(draw, classes)


@st.composite
def mini_batch_compositions(
    draw: DrawFn, instances: Size = _TRAINING_SET, batch_size: Size = _MINI_BATCH
) -> tuple[NDArray[np.int64], ...]:
    """A permutation of all instances cut in order into mini-batches; the last one may be ragged."""
    n, m = _drawn(draw, instances), _drawn(draw, batch_size)
    order = np.array(draw(st.permutations(range(n))), dtype=np.int64)
    return tuple(order[start : start + m] for start in range(0, n, m))


@st.composite
def stacks(
    draw: DrawFn,
    members: SearchStrategy[Array],
    leading: SearchStrategy[Shape] = _LEADING,
) -> Array:
    """Leading batch dimensions over members of one fixed shape."""
    shape = draw(leading)
    drawn = [draw(members) for _ in range(prod(shape))]
    return np.stack(drawn).reshape(*shape, *drawn[0].shape)


@st.composite
def layouts(draw: DrawFn, arrays: SearchStrategy[Array]) -> Array:
    """The same values in another memory: contiguous, column-major, strided or read-only."""
    array = draw(arrays)
    layout = draw(st.sampled_from(("contiguous", "column-major", "strided", "read-only")))
    if layout == "column-major":
        return np.asfortranarray(array)
    if layout == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    array = array.copy()
    array.flags.writeable = layout != "read-only"
    return array


@st.composite
def not_finite(draw: DrawFn, arrays: SearchStrategy[Array]) -> Array:
    """Bad input: an array with one entry replaced by NaN or an infinity."""
    array = draw(arrays).copy()
    array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
    return array


def _drawn(draw: DrawFn, value: T | SearchStrategy[T]) -> T:
    return draw(value) if isinstance(value, SearchStrategy) else value


def _exponents(largest: int) -> SearchStrategy[int]:
    return st.integers(-largest, largest)


def _powers_of_ten(smallest: int, largest: int) -> SearchStrategy[float]:
    return st.integers(smallest, largest).map(lambda exponent: 10.0**exponent)


def _integers(draw: DrawFn, shape: Shape, largest: int = 8) -> NDArray[np.float64]:
    """Integers in [−largest, largest], entry by entry where they are few."""
    if prod(shape) > 64:
        return np.random.default_rng(draw(seeds())).integers(-largest, largest + 1, shape).astype(float)
    return draw(hnp.arrays("int64", shape, elements=st.integers(-largest, largest))).astype(float)


def _normal(draw: DrawFn, shape: Shape) -> NDArray[np.float64]:
    return np.random.default_rng(draw(seeds())).standard_normal(shape)


def _repeating_rows(m: int) -> SearchStrategy[NDArray[np.int64]]:
    """m row numbers below m − 1: at least two are equal (for m > 1)."""
    return hnp.arrays("int64", m, elements=st.integers(0, max(0, m - 2)))


def _with_spectrum(draw: DrawFn, spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Q·diag(spectrum)·Qᵀ, symmetric bit for bit, Q the identity or a random orthogonal matrix."""
    m = len(spectrum)
    Q = np.linalg.qr(_normal(draw, (m, m))).Q if draw(st.booleans()) else np.eye(m)
    H = Q * spectrum @ Q.T
    return (H + H.T) / 2
