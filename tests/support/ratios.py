"""How wrong a result is: its error over unit roundoff times the problem's own amplification, per operation.

Correct algorithms of any kind stay below one THRESHOLD, as in LAPACK's test programs; a wrong one is far above.
Arrays are NumPy's, the oracle's result is among the arguments, and all is measured in the widest float there is,
so that rounding here does not pollute the ratio. This file knows no implementation: neither torch nor the reference.

In the formulas u is the unit roundoff of the dtype, tiny its smallest normal and σ its smallest subnormal number.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Wide = NDArray[np.longdouble]

THRESHOLD = 30.0

_quiet = np.errstate(all="ignore")  # what is not finite is judged, not warned of


@dataclass(frozen=True)
class Ratio:
    """The largest error/bound of one result, and the entry (or batch member) it stands at.

    A vacuous entry, one whose bound says nothing, counts as 0 unless its result is not finite. Above the threshold
    `off` has the worst entries, at most five: where each stands, what it is, what it should be. Where a norm is judged
    they are those of the matrix `of` in the worst member.
    """

    operation: str
    value: float
    entry: tuple[int, ...]
    error: float
    bound: float
    entries: int
    vacuous: int
    of: str = ""
    off: tuple[tuple[tuple[int, ...], float, float], ...] = ()

    def __str__(self) -> str:
        worst = f"at entry {self.entry}: error {self.error:.3g} over {self.bound:.3g}"
        vacuous = f"; {self.vacuous} of {self.entries} entries vacuous" if self.vacuous else ""
        of = f" of {self.of}" if self.of else ""
        off = "".join(f"\n  entry {entry}{of} is {found}, should be {exact}" for entry, found, exact in self.off)
        return f"{self.operation}: ratio {self.value:.3g} (threshold {THRESHOLD:g}) {worst}{vacuous}{off}"


def assert_within(*ratios: Ratio, what: str = "") -> None:
    """Fail with operation, ratio, threshold and worst entry where a ratio is above THRESHOLD."""
    above = [str(ratio) for ratio in ratios if not ratio.value <= THRESHOLD]
    assert not above, "\n".join([what, *above] if what else above)


def gram(
    computed: ArrayLike,
    exact: ArrayLike,
    X: ArrayLike,
    kernel: str = "rbf",
    *,
    gamma: float = 1.0,
    degree: float = 3,
    coef0: float = 1.0,
) -> Ratio:
    """The ratio of the named kernel, with the keywords of the operation itself."""
    if kernel == "rbf":
        return gram_rbf(computed, exact, X, gamma=gamma)
    if kernel == "linear":
        return gram_linear(computed, exact, X)
    return gram_polynomial(computed, exact, X, gamma=gamma, degree=degree, coef0=coef0)


@_quiet
def gram_rbf(computed: ArrayLike, exact: ArrayLike, X: ArrayLike, *, gamma: float) -> Ratio:
    """u·(d+2)·max(H, Ĥ)·(1 + γ(‖x_i−c‖+‖x_j−c‖)²) + tiny, c the mean row; vacuous from a relative ½ on."""
    Ĥ, H, info = _operands("gram (rbf)", computed, exact, X)
    x = _wide(X)
    norm = np.sqrt(np.square(x - x.mean(axis=-2, keepdims=True)).sum(axis=-1))
    spread = np.square(norm[..., :, None] + norm[..., None, :])
    relative = _roundoff(info) * (x.shape[-1] + 2) * (1 + gamma * spread)
    bound = relative * np.maximum(H, Ĥ) + _wide(info.tiny)
    return _worst("gram (rbf)", Ĥ, H, bound, vacuous=relative >= 0.5)


@_quiet
def gram_linear(computed: ArrayLike, exact: ArrayLike, X: ArrayLike) -> Ratio:
    """u·(d+2)·(|X|·|X|ᵀ) + d·σ."""
    Ĥ, H, info = _operands("gram (linear)", computed, exact, X)
    size, d = _sizes(X)
    return _worst("gram (linear)", Ĥ, H, _roundoff(info) * (d + 2) * size + d * _subnormal(info))


@_quiet
def gram_polynomial(
    computed: ArrayLike, exact: ArrayLike, X: ArrayLike, *, gamma: float, degree: float, coef0: float
) -> Ratio:
    """u·[(d+2)·p·(γA + |c₀|)^(p−1)·γA + p·(γA + |c₀|)^p] + tiny, with A = |X|·|X|ᵀ and p the degree."""
    Ĥ, H, info = _operands("gram (polynomial)", computed, exact, X)
    size, d = _sizes(X)
    product = _wide(gamma) * size
    base = product + abs(_wide(coef0))
    amplification = (d + 2) * degree * base ** (degree - 1) * product + degree * base**degree
    return _worst("gram (polynomial)", Ĥ, H, _roundoff(info) * amplification + _wide(info.tiny))


@_quiet
def inverse_backward(computed: ArrayLike, H: ArrayLike, *, ridge: float = 0.0) -> Ratio:
    """‖I − H·X̂‖₁ over m·u·‖H‖₁·‖X̂‖₁, ridge added to H; one entry per member of the batch."""
    X, A, info = _operands("inverse (backward)", computed, H, H)
    A = _ridged(A, ridge)
    bound = _roundoff(info) * A.shape[-1] * _norm(A) * _norm(X)
    one = np.broadcast_to(_wide(np.eye(A.shape[-1])), A.shape)
    return _worst_norm("inverse (backward)", "H·X", A @ X, one, bound)


@_quiet
def inverse_forward(computed: ArrayLike, exact: ArrayLike, H: ArrayLike, *, ridge: float = 0.0) -> Ratio:
    """‖X̂−X‖₁·rcond₁ over m·u·‖X‖₁, rcond₁ = 1/(‖H‖₁·‖X‖₁), ridge added to H; one entry per member of the batch."""
    X, inverse, info = _operands("inverse (forward)", computed, exact, H)
    A = _ridged(_wide(H), ridge)
    bound = _roundoff(info) * A.shape[-1] * _norm(inverse) * (_norm(A) * _norm(inverse))
    return _worst_norm("inverse (forward)", "X", X, inverse, bound)


@_quiet
def pseudoinverse(computed: ArrayLike, H: ArrayLike, *, ridge: float = 0.0) -> tuple[Ratio, Ratio, Ratio, Ratio]:
    """Penrose's four equations in the 1-norm, ridge added to H; one entry per member of the batch.

    ‖HX̂H−H‖ over m·u·‖H‖²‖X̂‖, ‖X̂HX̂−X̂‖ over m·u·‖H‖‖X̂‖², ‖HX̂−(HX̂)ᵀ‖ and ‖X̂H−(X̂H)ᵀ‖ over m·u·‖H‖‖X̂‖.
    """
    X, A, info = _operands("pseudoinverse", computed, H, H)
    A = _ridged(A, ridge)
    HX, XH = A @ X, X @ A
    bound = _roundoff(info) * A.shape[-1] * (_norm(A) * _norm(X))
    return (
        _worst_norm("pseudoinverse (HXH = H)", "H·X·H", HX @ A, A, bound * _norm(A)),
        _worst_norm("pseudoinverse (XHX = X)", "X·H·X", XH @ X, X, bound * _norm(X)),
        _worst_norm("pseudoinverse (HX symmetric)", "H·X", HX, HX.swapaxes(-1, -2), bound),
        _worst_norm("pseudoinverse (XH symmetric)", "X·H", XH, XH.swapaxes(-1, -2), bound),
    )


@_quiet
def loss(computed: ArrayLike, exact: ArrayLike, logits: ArrayLike, labels: ArrayLike) -> Ratio:
    """u·((m+2)·J + n_c + 3 + mean |f_y − max f|) + tiny."""
    Ĵ, J, info = _operands("loss", computed, exact, logits)
    below, chosen = _below_maximum(logits, labels)
    m, classes = below.shape
    bound = _roundoff(info) * ((m + 2) * J + classes + 3 + below[chosen].mean()) + _wide(info.tiny)
    return _worst("loss", Ĵ, J, bound)


@_quiet
def loss_gradient(computed: ArrayLike, exact: ArrayLike, logits: ArrayLike, labels: ArrayLike) -> Ratio:
    """u·(p·(n_c + 3 + |f − max f|) + [label])/m + tiny, p the softmax of the logits f."""
    Ĝ, G, info = _operands("gradient of the loss", computed, exact, logits)
    below, chosen = _below_maximum(logits, labels)
    m, classes = below.shape
    softmax = np.exp(-below) / np.exp(-below).sum(axis=1, keepdims=True)
    bound = _roundoff(info) * (softmax * (classes + 3 + below) + chosen) / m + _wide(info.tiny)
    return _worst("gradient of the loss", Ĝ, G, bound)


@_quiet
def weight_gradient(computed: ArrayLike, exact: ArrayLike, dlogits: ArrayLike, features: ArrayLike) -> Ratio:
    """u·(m+2)·|dlogits|ᵀ·|features| + m·σ."""
    Ĝ, G, info = _operands("weight gradient", computed, exact, dlogits, features)
    size = abs(_wide(dlogits)).T @ abs(_wide(features))
    m = len(_wide(dlogits))
    return _worst("weight gradient", Ĝ, G, _roundoff(info) * (m + 2) * size + m * _subnormal(info))


@_quiet
def step(computed: ArrayLike, exact: ArrayLike, W: ArrayLike, grad: ArrayLike, P: ArrayLike, lr: float) -> Ratio:
    """u·(d_in+2)·(|W| + η·|G|·|P|) + d_in·(1+η)·(1+‖P‖₁)·σ."""
    Ŵ, exact_step, info = _operands("step", computed, exact, W, grad, P)
    size = abs(_wide(W)) + _wide(lr) * (abs(_wide(grad)) @ abs(_wide(P)))
    d_in = size.shape[-1]
    absolute = d_in * (1 + _wide(lr)) * (1 + _norm(_wide(P))) * _subnormal(info)
    return _worst("step", Ŵ, exact_step, _roundoff(info) * (d_in + 2) * size + absolute)


@_quiet
def bounded(operation: str, computed: ArrayLike, exact: ArrayLike, bound: ArrayLike) -> Ratio:
    """The error of every entry over a bound of one's own."""
    found, expected = np.asarray(computed), np.asarray(exact)
    assert found.shape == expected.shape, f"{operation}: shape {found.shape}, expected {expected.shape}"
    return _worst(operation, _wide(found), _wide(expected), np.broadcast_to(_wide(bound), found.shape))


def identical(operation: str, computed: ArrayLike, exact: ArrayLike) -> Ratio:
    """0 where every entry is the exact one, infinite elsewhere: for what is copied, not computed."""
    return bounded(operation, computed, exact, 0)


def _operands(operation: str, computed: ArrayLike, exact: ArrayLike, *inputs: ArrayLike) -> tuple[Wide, Wide, np.finfo]:
    """The computed and the exact result, and what is known of the dtype in which the first was computed."""
    found, expected = np.asarray(computed), np.asarray(exact)
    dtypes = {np.asarray(array).dtype for array in inputs}
    assert (found.shape, {found.dtype}) == (expected.shape, dtypes), (
        f"{operation}: the result is {found.dtype} {found.shape}, "
        f"expected {' and '.join(map(str, dtypes))} {expected.shape}"
    )
    return _wide(found), _wide(expected), np.finfo(found.dtype)


def _worst(
    operation: str, computed: Wide, exact: Wide, bound: Wide, vacuous: NDArray[np.bool_] | bool = False
) -> Ratio:
    """The largest |computed − exact|/bound; 0/0 is 0, and a value that is not finite anywhere is an infinite ratio."""
    ratio, quotient = _largest(operation, abs(computed - exact), bound, vacuous)
    return replace(ratio, off=_off(computed, exact, quotient, THRESHOLD)) if ratio.value > THRESHOLD else ratio


def _worst_norm(operation: str, of: str, computed: Wide, exact: Wide, bound: Wide) -> Ratio:
    """The largest ‖computed − exact‖₁/bound, one entry per member of the batch."""
    error = computed - exact
    ratio, _ = _largest(operation, _norm(error), bound)
    if not ratio.value > THRESHOLD:
        return ratio
    worst = np.zeros(error.shape)
    worst[ratio.entry] = np.where(np.isfinite(error), abs(error), np.inf)[ratio.entry]
    return replace(ratio, of=of, off=_off(computed, exact, worst))


def _off(
    computed: Wide, exact: Wide, far: NDArray[Any], least: float = 0.0
) -> tuple[tuple[tuple[int, ...], float, float], ...]:
    """The five entries that are furthest off; fewer where fewer are further off than `least`."""
    furthest = [np.unravel_index(i, far.shape) for i in np.argsort(-far, axis=None, kind="stable")[:5]]
    return tuple((tuple(map(int, at)), float(computed[at]), float(exact[at])) for at in furthest if far[at] > least)


def _largest(
    operation: str, error: Wide, bound: Wide, vacuous: NDArray[np.bool_] | bool = False
) -> tuple[Ratio, NDArray[Any]]:
    """The largest error/bound and where it stands, and all of them."""
    finite = np.isfinite(error)
    without_bound = np.logical_and(vacuous | ~np.isfinite(bound), finite)
    quotient = np.where(without_bound | (error == 0), 0, error / bound)
    quotient = np.where(finite, quotient, np.inf)
    entry = tuple(int(i) for i in np.unravel_index(quotient.argmax(), quotient.shape))
    value, error_there, bound_there = (float(values[entry]) for values in (quotient, error, bound))
    ratio = Ratio(operation, value, entry, error_there, bound_there, quotient.size, int(without_bound.sum()))
    return ratio, quotient


def _wide(array: ArrayLike) -> Wide:
    return np.asarray(array, dtype=np.longdouble)


def _roundoff(info: np.finfo) -> np.longdouble:
    return np.longdouble(info.eps) / 2


def _subnormal(info: np.finfo) -> np.longdouble:
    return np.longdouble(info.smallest_subnormal)


def _sizes(X: ArrayLike) -> tuple[Wide, int]:
    """|X|·|X|ᵀ and d."""
    x = abs(_wide(X))
    return x @ x.swapaxes(-1, -2), x.shape[-1]


def _ridged(H: Wide, ridge: float) -> Wide:
    return H + _wide(ridge) * np.eye(H.shape[-1])


def _norm(A: Wide) -> Wide:
    """The 1-norm, the largest column sum, of every member."""
    return np.asarray(abs(A).sum(axis=-2).max(axis=-1))


def _below_maximum(logits: ArrayLike, labels: ArrayLike) -> tuple[Wide, NDArray[np.bool_]]:
    """|f − max f| of every row, and which entries are the labels'."""
    f = _wide(logits)
    chosen = np.asarray(labels)[:, None] == np.arange(f.shape[1])
    return f.max(axis=1, keepdims=True) - f, chosen
