"""Inequalities that are proved or raise: rationals and balls (python-flint), and softmax, loss and kernel in them.

A ball is a midpoint and a radius and provably contains the exact value; a comparison of balls answers True only where
it holds for all their points. So a strict inequality between balls is a proof, whatever the precision; where the balls
overlap nothing is known, and that raises too. Numbers come in as int, Fraction or a decimal string ("0.1" is 1/10, not
a float); floats are refused, so that no verdict starts from a rounded number by accident.
"""

from collections.abc import Sequence
from enum import Enum
from fractions import Fraction

from flint import arb, arb_mat, fmpq, fmpq_mat

Exact = int | str | Fraction | fmpq
Rows = Sequence[Sequence[Exact]]

PRECISION = 256  # bits, that of the ledger's runs
SHOWN_DIGITS = 12


class Proved(str):
    """A sentence that what returned it has proved; other lines of an argument are words between."""

    __slots__ = ()


class RefutedError(Exception):
    """What was to be proved is false."""


class UndecidedError(Exception):
    """The balls are too wide to tell."""


class Answer(Enum):
    """What LDLᵀ in balls says of a symmetric matrix."""

    DEFINITE = "positive definite"
    REFUTED = "not positive definite"
    UNDECIDED = "undecided"


def exact(value: Exact) -> fmpq:
    """The rational number itself. Raises TypeError for floats, bool and what is no number."""
    if isinstance(value, fmpq):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, str, Fraction)):
        raise TypeError(f"value: expected int, Fraction, fmpq or a decimal string, got {value!r}")
    fraction = Fraction(value)
    return fmpq(fraction.numerator, fraction.denominator)


def ball(value: Exact | arb) -> arb:
    """A ball around an exact number; a ball as it is."""
    return value if isinstance(value, arb) else arb(exact(value))


def rational_matrix(rows: Rows) -> fmpq_mat:
    """The matrix of exact numbers, (rows, columns)."""
    return fmpq_mat([[exact(value) for value in row] for row in rows])


def ball_matrix(rows: Sequence[Sequence[Exact | arb]]) -> arb_mat:
    """The matrix of balls, (rows, columns)."""
    return arb_mat([[ball(value) for value in row] for row in rows])


def less(left_name: str, left: Exact | arb, right_name: str, right: Exact | arb) -> Proved:
    """The strict inequality left < right, proved, as a sentence with both numbers.

    Raises RefutedError where left ≥ right is certain, UndecidedError where nothing is.
    """
    if not isinstance(left, arb) and not isinstance(right, arb):
        holds, fails = exact(left) < exact(right), exact(left) >= exact(right)
    else:
        holds, fails = bool(ball(left) < ball(right)), bool(ball(left) >= ball(right))
    if fails:
        raise RefutedError(f"{left_name} < {right_name}: {shown(left)} is not below {shown(right)}")
    if not holds:
        raise UndecidedError(f"{left_name} < {right_name}: {shown(left)} and {shown(right)} overlap")
    sides = ((left_name, left), (right_name, right))
    return Proved(" < ".join(name if name == shown(value) else f"{name} = {shown(value)}" for name, value in sides))


def equal(left_name: str, left: Exact, right_name: str, right: Exact) -> Proved:
    """The equation between exact numbers, as a sentence. Raises RefutedError."""
    if exact(left) != exact(right):
        raise RefutedError(f"{left_name} = {right_name}: {shown(left)} is not {shown(right)}")
    return Proved(f"{left_name} = {right_name} = {shown(left)}")


def require(statement: str, holds: bool) -> Proved:
    """A statement about exact numbers that has been decided, as a line. Raises RefutedError."""
    if not holds:
        raise RefutedError(statement)
    return Proved(statement)


def shown(value: Exact | arb) -> str:
    """A short exact number as it is, a long one or a ball in decimals, with its radius unless negligible."""
    if isinstance(value, arb):
        return str(value.str(SHOWN_DIGITS, radius=value.rel_accuracy_bits() < 4 * SHOWN_DIGITS))
    number = exact(value)
    if number.q != 1 and 100 % number.q == 0:
        return f"{float(Fraction(int(number.p), int(number.q))):.{1 if 10 % number.q == 0 else 2}f}"
    text = str(number)
    return text if len(text) <= SHOWN_DIGITS else str(arb(number).str(SHOWN_DIGITS, radius=False))


def definiteness(A: arb_mat) -> Answer:
    """Whether a symmetric matrix is positive definite, by LDLᵀ without pivoting in balls; the lower triangle counts.

    The pivots of a positive definite matrix are positive, and positive pivots prove it. A pivot certainly ≤ 0 after
    certainly positive ones refutes it: it is vᵀAv for a v ≠ 0. Raises ValueError where A is not square.
    """
    if A.nrows() != A.ncols():
        raise ValueError(f"A: expected a square matrix, got {A.nrows()} × {A.ncols()}")
    rows = A.tolist()
    size = len(rows)
    for k in range(size):
        pivot = rows[k][k]
        if pivot <= 0:
            return Answer.REFUTED
        if not pivot > 0:
            return Answer.UNDECIDED
        for i in range(k + 1, size):
            for j in range(k + 1, i + 1):
                rows[i][j] -= rows[i][k] * rows[j][k] / pivot
    return Answer.DEFINITE


def positive_definite(name: str, A: arb_mat) -> Proved:
    """A ≻ 0, proved, as a sentence. Raises RefutedError, or UndecidedError."""
    answer = definiteness(A)
    if answer is Answer.DEFINITE:
        return Proved(f"{name} is positive definite (LDLᵀ)")
    raise (RefutedError if answer is Answer.REFUTED else UndecidedError)(f"{name}: {answer.value}")


def semidefinite(A: fmpq_mat) -> bool:
    """Whether a symmetric rational matrix is positive semi-definite: LDLᵀ, where a pivot of 0 needs a row of 0."""
    rows = A.tolist()
    size = len(rows)
    for k in range(size):
        pivot = rows[k][k]
        below = range(k + 1, size)
        if pivot < 0 or (pivot == 0 and any(rows[i][k] != 0 for i in below)):
            return False
        for i in below:
            for j in below if pivot else ():
                rows[i][j] -= rows[i][k] * rows[k][j] / pivot
    return True


def softmax(logits: Sequence[arb]) -> list[arb]:
    """p_j = exp f_j / Σ_k exp f_k, (n_c,)."""
    largest = max(value.mid() for value in logits)
    exponentials = [(value - largest).exp() for value in logits]
    total = sum(exponentials, arb(0))
    return [value / total for value in exponentials]


def cross_entropy(logits: Sequence[arb], label: int) -> arb:
    """−f_i + ln Σ_j exp f_j (Eq. 6)."""
    largest = max(value.mid() for value in logits)
    return sum(((value - largest).exp() for value in logits), arb(0)).log() + largest - logits[label]


def logits(W: arb_mat, Z: arb_mat) -> arb_mat:
    """F = ZWᵀ, (n_c, d_in), (m, d_in) → (m, n_c)."""
    return Z * W.transpose()


def instance_losses(W: arb_mat, Z: arb_mat, labels: Sequence[int]) -> list[arb]:
    """The cross-entropy of every instance, (m,)."""
    return [cross_entropy(row, label) for row, label in zip(logits(W, Z).tolist(), labels, strict=True)]


def mean_loss(W: arb_mat, Z: arb_mat, labels: Sequence[int]) -> arb:
    """J = (1/m) Σ_k [ln Σ_j exp f_kj − f_k,y_k]."""
    return sum(instance_losses(W, Z, labels), arb(0)) / len(labels)


def gradient(W: arb_mat, Z: arb_mat, labels: Sequence[int]) -> arb_mat:
    """∂J/∂W = Rᵀ·Z/m with R = softmax − one-hot, (n_c, d_in)."""
    residual = [
        [p - (j == label) for j, p in enumerate(softmax(row))]
        for row, label in zip(logits(W, Z).tolist(), labels, strict=True)
    ]
    return arb_mat(residual).transpose() * Z / len(labels)


def kernel_step(W: arb_mat, Z: arb_mat, labels: Sequence[int], P: arb_mat, lr: Exact | arb) -> arb_mat:
    """W' = W − η·∂J/∂W·P (Eq. 5)."""
    return W - gradient(W, Z, labels) * P * ball(lr)


def rbf(X: Rows, gamma: Exact) -> arb_mat:
    """H_ij = exp(−γ‖x_i − x_j‖²), (m, d) → (m, m)."""
    points = [[exact(value) for value in row] for row in X]
    distances = [[sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), fmpq(0)) for y in points] for x in points]
    return arb_mat([[(-arb(exact(gamma) * distance)).exp() for distance in row] for row in distances])


def reshape(inverse: arb_mat, d_in: int) -> arb_mat:
    """P[:k, :k] = inverse[:k, :k], k = min(m, d_in), all else 0 (section 3.1, i and ii)."""
    rows = inverse.tolist()
    k = min(len(rows), d_in)
    return arb_mat([[rows[i][j] if max(i, j) < k else arb(0) for j in range(d_in)] for i in range(d_in)])


def reshaped_inverse(X: Rows, gamma: Exact, d_in: int) -> arb_mat:
    """P of Eq. 5 for the RBF kernel of a mini-batch X (m, d). Raises ZeroDivisionError where H may be singular."""
    return reshape(rbf(X, gamma).inv(), d_in)
