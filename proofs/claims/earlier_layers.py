"""Algorithm 1 moves all layers in one step; the Convergence Theorem (Eq. 7) holds the earlier ones constant."""

from collections.abc import Iterator

from flint import arb, fmpq

from proofs.certificates import ball, cross_entropy, less, softmax
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.symbolic import identity, sp, vanishes

PIXELS = 3 * 32 * 32


def moving_both_layers_adds_a_term_of_second_order() -> Iterator[Line]:
    """Two linear layers on one instance, margin 2wh: the product of the two moves has no sign of its own."""
    w, h, eta, c, N = sp.symbols("w h η c ‖x‖²", real=True)
    last, first = w + eta * c * h, h + 2 * eta * c * w * N
    margin = sp.expand(2 * last * first)
    alone = sp.expand(2 * last * h)
    yield identity("The last layer alone adds 2ηc·h² to the margin", alone - 2 * w * h, 2 * eta * c * h**2)
    yield identity(
        "Both together add also 4ηcN·w² and, of second order, 4η²c²N·wh",
        margin - alone,
        4 * eta * c * N * w**2 + 4 * eta**2 * c**2 * N * w * h,
    )
    yield "With wh < 0 the last term is negative and grows with η²N, the others with η or ηN·w²"


def two_linear_layers_have_a_sharp_bound() -> Iterator[Line]:
    """h² + 2N·w² + 2ηcN·wh is ≥ 0 for all w, h just where η²c²N ≤ 2; c < 1 comes as near to 1 as one likes."""
    w, h, eta, c, N = sp.symbols("w h η c N", positive=True)
    form = h**2 + 2 * N * w**2 + 2 * eta * c * N * w * h
    yield "The margin changes by 2ηc times, N = ‖x‖²", form
    square = (h + eta * c * N * w) ** 2 + N * w**2 * (2 - eta**2 * c**2 * N)
    yield identity("completed to a square", sp.expand(form), sp.expand(square))
    yield vanishes(
        "at h = −ηcNw it has the sign of 2 − η²c²N",
        square.subs(h, -eta * c * N * w) - N * w**2 * (2 - eta**2 * c**2 * N),
    )
    margin = sp.Symbol("x", positive=True)
    yield identity(
        "c = 1 − σ(−x) of a margin −x, as x grows", sp.limit(1 / (1 + sp.exp(-margin)), margin, sp.oo), sp.Integer(1)
    )
    yield "so J(W') ≤ J(W) for all w, h just where η·‖x‖ ≤ √2"


def a_white_image_gets_a_higher_loss() -> Iterator[Line]:
    """One 32 × 32 RGB image of ones, one hidden unit, Kernel SGD on the last layer and SGD on the first, η = 0.1."""
    w, h, lr = arb(fmpq(1, 30)), arb(-1), ball("0.1")
    yield f"x = (1, ..., 1), {PIXELS} pixels; hidden h = −1; W = (1/30, −1/30)ᵀ; label 0; m = 1, so H = 1 = P; η = 0.1"
    p = softmax([w * h, -w * h])
    residual = [p[0] - 1, p[1]]
    last = [w - lr * residual[0] * h, -w - lr * residual[1] * h]
    slope = residual[0] * w - residual[1] * w
    hidden = h - lr * slope * PIXELS
    before = cross_entropy([w * h, -w * h], 0)
    yield less("J(last layer moved)", cross_entropy([x * h for x in last], 0), "J(before)", before)
    yield less("J(before)", before, "J(both moved)", cross_entropy([x * hidden for x in last], 0))


CLAIMS = (
    Claim(
        name="earlier-layers-moving",
        where="3.2, Algorithm 1, lines 7 to 11, with 3.3, Eq. 7",
        statement="A step of Algorithm 1, which moves the earlier layers too, does not raise its instance's loss.",
        verdict=Verdict.FAILS,
        condition="to first order in η; two linear layers, one unit, two classes, P = 1: just where η·‖x‖ ≤ √2",
        evidence=(
            Derivation(moving_both_layers_adds_a_term_of_second_order),
            Derivation(two_linear_layers_have_a_sharp_bound),
            Certificate(a_white_image_gets_a_higher_loss),
        ),
    ),
)
