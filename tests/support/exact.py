"""What the formulas of the operations give exactly, rounded once to the widest float: the oracle of every oracle.

Each formula is evaluated in ball arithmetic (python-flint): a ball is a midpoint and a radius, and provably contains
the exact value. Where cancellation or an ill-conditioned matrix leaves a ball too wide, the precision is doubled and
the formula evaluated again, so it can stand here as it is written, without care for rounding. Sums and products of
floats become exact at some precision, and so a sum that cancels to 0 is found to be 0.

Arrays are taken exactly as they are. So are γ, c₀, the ridge and η: the Python floats given, whatever the dtype of the
arrays; an implementation that first rounds them to its dtype makes one rounding, which the bounds of `ratios` allow.

An entry of a result is the exact value, rounded to nearest, up to an error of 2^-126 of itself (of the largest entry of
its inverse) or 2^-1200, whichever is larger: nothing beside a rounding of the widest float, or a subnormal of float64.

This file knows NumPy and python-flint, and no implementation. Only arguments that the operations accept have a meaning.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat, fmpq_poly
from numpy.typing import ArrayLike, DTypeLike, NDArray

Real = NDArray[np.floating] | NDArray[np.integer]
Wide = NDArray[np.longdouble]

SMALLEST_PRECISION, LARGEST_PRECISION = 2**8, 2**16  # bits
RELATIVE_ACCURACY = 128  # bits; flint rounds this measure down
FLOOR = arb(2) ** -1200


def gram(X: ArrayLike, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0) -> Wide:
    """H_ij = k(x_i, x_j), (..., m, d) → (..., m, m): exp(−γ‖x−y‖²), ⟨x,y⟩ or (γ⟨x,y⟩ + c₀)^degree.

    Raises TypeError (X not real), ValueError (non-finite X, unknown kernel), ArithmeticError (see `certified`).
    """
    if kernel not in ("rbf", "linear", "polynomial"):
        raise ValueError(f"kernel: expected 'rbf', 'linear' or 'polynomial', got {kernel!r}")

    def entry(x: list[arb], y: list[arb]) -> arb:
        if kernel == "rbf":
            return (-arb(gamma) * sum((a - b) ** 2 for a, b in zip(x, y, strict=True))).exp()
        product = sum(a * b for a, b in zip(x, y, strict=True))
        return product if kernel == "linear" else (arb(gamma) * product + coef0) ** int(degree)

    def of(member: Real) -> Wide:
        rows = _balls(member)
        m = range(len(rows))
        lower = certified(lambda: arb_mat([[entry(rows[i], rows[j]) if j <= i else 0 for j in m] for i in m]))
        return lower + np.tril(lower, -1).T

    return _stack(of, _real("X", X))


def inverse_gram(H: ArrayLike, *, ridge: float = 0.0, singular: str = "raise") -> Wide:
    """(H + ridge·I)⁻¹ of every member, (..., m, m) → (..., m, m); the lower triangle of H counts.

    Singular is what is exactly so; with `singular="pinv"` it gets its Moore-Penrose pseudoinverse. Raises TypeError (H
    not real), ValueError (non-finite H), numpy.linalg.LinAlgError (a singular member with "raise"), ArithmeticError
    (see `certified`).
    """

    def of(member: Real) -> Wide:
        A = _shifted(member, ridge)
        if A.det() != 0:
            return certified(lambda: arb_mat(A).inv(), normwise=True)
        if singular == "raise":
            raise np.linalg.LinAlgError("H: expected nonsingular members, got one with H + ridge·I exactly singular")
        return certified(lambda: arb_mat(_pseudoinverse(A)), normwise=True)

    return _stack(of, _real("H", H))


def extreme_eigenvalues(H: ArrayLike, *, ridge: float = 0.0) -> Wide:
    """λ_min and λ_max of H + ridge·I, (..., m, m) → (..., 2); the lower triangle of H counts.

    Both are accurate relative to themselves, however far apart, so that λ_min = 0 means singular (unless the widest
    float underflows). Raises TypeError (H not real), ValueError (non-finite H), FloatingPointError (see `nearest`).
    """

    def of(member: Real) -> Wide:
        A = _shifted(member, ridge)
        return np.array([-nearest(_largest_root((-A).charpoly())), nearest(_largest_root(A.charpoly()))])

    return _stack(of, _real("H", H))


def reshape_inverse(Hinv: ArrayLike, d_in: int) -> Wide:
    """P[:k, :k] = Hinv[:k, :k] with k = min(m, d_in), all else 0, (..., m, m) → (..., d_in, d_in)."""
    inverse = np.asarray(Hinv)
    k = min(inverse.shape[-1], int(d_in))
    P = np.zeros((*inverse.shape[:-2], int(d_in), int(d_in)), np.longdouble)
    P[..., :k, :k] = inverse[..., :k, :k]
    return P


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[np.longdouble, Wide]:
    """J = (1/m) Σ_k [ln Σ_j exp f_kj − f_k,y_k] and ∂J/∂f = (softmax(f) − one-hot)/m, (m, n_c).

    Raises TypeError (logits not real), ValueError (non-finite logits), ArithmeticError (see `certified`).
    """
    entries, y = _real("logits", logits), np.asarray(labels).tolist()
    f, m = _balls(entries), len(entries)
    largest = [arb(value) for value in entries.max(axis=1).tolist()]

    def exponentials() -> list[list[arb]]:  # exp(f − max f): neither value changes, and exp 1e300 has no exponent
        return [[(value - top).exp() for value in row] for row, top in zip(f, largest, strict=True)]

    def loss() -> arb_mat:
        rows = zip(exponentials(), largest, f, y, strict=True)
        return arb_mat([[sum(sum(e).log() + top - row[label] for e, top, row, label in rows) / m]])

    def gradient() -> arb_mat:
        rows = zip(exponentials(), y, strict=True)
        return arb_mat([[(e / sum(row) - (j == label)) / m for j, e in enumerate(row)] for row, label in rows])

    return certified(loss)[0, 0], certified(gradient)


def weight_gradient(dlogits: ArrayLike, features: ArrayLike) -> Wide:
    """G = dlogitsᵀ · features, (m, n_c), (m, d_in) → (n_c, d_in).

    Raises TypeError (not real), ValueError (non-finite, shapes), ArithmeticError (see `certified`).
    """
    d, z = arb_mat(_balls(_real("dlogits", dlogits))), arb_mat(_balls(_real("features", features)))
    return certified(lambda: d.transpose() * z)


def kernel_sgd_step(W: ArrayLike, grad: ArrayLike, P: ArrayLike, lr: float) -> Wide:
    """W − lr · grad · P, (n_c, d_in), (n_c, d_in), (d_in, d_in) → (n_c, d_in).

    Raises TypeError (not real), ValueError (non-finite, shapes), ArithmeticError (see `certified`).
    """
    w, G, p = (arb_mat(_balls(_real(name, value))) for name, value in (("W", W), ("grad", grad), ("P", P)))
    return certified(lambda: w - G * p * arb(lr))


def certified(formula: Callable[[], arb_mat], *, normwise: bool = False) -> Wide:
    """The balls of `formula` at the first precision at which all are tight, rounded to the widest float.

    `formula` reads the precision from flint's context; where it divides by a ball that contains 0, that is not tight.
    `normwise`: tight relative to the largest entry. Raises ArithmeticError where LARGEST_PRECISION bits do not suffice,
    FloatingPointError, which is one, where a value is beyond the widest float.
    """
    precision = SMALLEST_PRECISION
    while precision <= LARGEST_PRECISION:
        with ctx.workprec(precision):
            try:
                balls = formula().tolist()
            except ZeroDivisionError:
                balls = [[arb.nan()]]
            if _tight([ball for row in balls for ball in row], normwise):
                return np.array([[nearest(ball) for ball in row] for row in balls])
        precision *= 2
    raise ArithmeticError(f"no tight enclosure with up to {LARGEST_PRECISION} bits")


def nearest(ball: arb, dtype: DTypeLike = np.longdouble) -> np.floating:
    """The midpoint of a ball rounded once, to nearest, ties to even, subnormal numbers included.

    Raises FloatingPointError where it is beyond the range of the dtype.
    """
    info = np.finfo(dtype)
    significand, exponent = (int(part) for part in ball.mid().man_exp())
    top = exponent + significand.bit_length()
    last = max(top - info.nmant - 1, info.minexp - info.nmant)  # the exponent of the last bit that the dtype keeps
    if top < last:
        return info.dtype.type(0)
    if last > exponent:
        significand, exponent = round(Fraction(significand, 1 << (last - exponent))), last
    if exponent + significand.bit_length() > info.maxexp:
        raise FloatingPointError(f"{ball.str(5)} is beyond the range of {info.dtype}")
    return np.ldexp(info.dtype.type(significand), exponent)


def _tight(balls: list[arb], normwise: bool) -> bool:
    floor = FLOOR
    if normwise:
        floor = max(floor, *(ball.abs_lower() for ball in balls)) * arb(2) ** -RELATIVE_ACCURACY
    return all(ball.rel_accuracy_bits() >= RELATIVE_ACCURACY or ball.rad() <= floor for ball in balls)


def _real(name: str, value: ArrayLike) -> Real:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected integers or floats of at most 64 bits, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite entries")
    return array


def _balls(member: Real) -> list[list[arb]]:
    """The entries of one matrix, each an exact ball."""
    return [[arb(value) for value in row] for row in member.tolist()]


def _shifted(member: Real, ridge: float) -> fmpq_mat:
    """H + ridge·I of one member in rational numbers, from its lower triangle."""
    entries = [[fmpq(*value.as_integer_ratio()) for value in row] for row in member.tolist()]
    shift = fmpq(*float(ridge).as_integer_ratio())
    m = range(len(entries))
    return fmpq_mat([[entries[max(i, j)][min(i, j)] + (shift if i == j else 0) for j in m] for i in m])


def _pseudoinverse(A: fmpq_mat) -> fmpq_mat:
    """CᵀC and FFᵀ are regular in the full-rank factorisation A = CF: A⁺ = Fᵀ(FFᵀ)⁻¹(CᵀC)⁻¹Cᵀ, in rational numbers."""
    echelon, rank = A.rref()
    if rank == 0:
        return A
    F = fmpq_mat(echelon.tolist()[:rank])
    pivots = [next(j for j, entry in enumerate(row) if entry != 0) for row in F.tolist()]
    C = fmpq_mat([[row[j] for j in pivots] for row in A.tolist()])
    return F.transpose() * (F * F.transpose()).inv() * (C.transpose() * C).inv() * C.transpose()


def _largest_root(polynomial: fmpq_poly) -> arb:
    """The largest root of a polynomial that has real roots only, rounded up to RELATIVE_ACCURACY + 1 bits.

    By bisection: p has a root above t just where the coefficients of p(x + t) have both signs (Descartes), however
    close or equal its roots. Bisected are not the reals but the floats of that many bits which Cauchy's bounds leave
    for 0 and the roots, in their order, so that a root is as sharp near 0 as elsewhere.
    """
    reach = 1 + max(int(abs(coefficient)).bit_length() for coefficient in polynomial.numer().coeffs())
    one = 1 << RELATIVE_ACCURACY

    def number(k: int) -> tuple[int, int]:
        exponent, fraction = divmod(abs(k), one)
        significand = one + fraction if k else 0
        return significand if k > 0 else -significand, exponent - reach - RELATIVE_ACCURACY

    low, high = -2 * reach * one, 2 * reach * one
    while high - low > 1:
        middle = (low + high) // 2
        significand, exponent = number(middle)
        shifted = polynomial(fmpq_poly([significand * fmpq(2) ** exponent, 1]))
        if len({coefficient > 0 for coefficient in shifted.coeffs() if coefficient != 0}) == 2:
            low = middle
        else:
            high = middle
    return arb(number(high))


def _stack(operation: Callable[[Real], Wide], members: Real) -> Wide:
    """The operation on every matrix of a stack."""
    results = [operation(members[index]) for index in np.ndindex(members.shape[:-2])]
    return np.reshape(results, (*members.shape[:-2], *results[0].shape))
