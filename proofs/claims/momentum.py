"""Convergence Theorem (Eq. 7) with momentum on the preconditioned gradient: V' = μV + G·P, W' = W − η·V'."""

from collections.abc import Iterator

from flint import arb_mat

from proofs.certificates import ball, gradient, less, mean_loss
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.one_instance import residuals_of_one_label_never_oppose, slope_along_the_step
from proofs.claims.symbolic import SIZES, at_rationals, nonnegative, sp, vanishes

MOMENTUM, LR = "0.9", "0.1"


def one_instance_repeated_is_safe() -> Iterator[Line]:
    """The step is −η·zᵀPz·Σ_k μᵏ g_{t−k}, and all residuals of one instance have non-negative inner products."""
    mu, eta, form = sp.symbols("μ η zᵀPz", positive=True)
    inner = sp.IndexedBase(sp.Symbol("c", positive=True))
    k, t = sp.symbols("k t", integer=True, positive=True)
    slope = -eta * form * sp.Sum(mu**k * inner[k], (k, 0, t))
    yield "Slope of J along the step, c_k = ⟨softmax − e_i, g_{t−k}⟩ ≥ 0", slope
    yield nonnegative("negative", [-at_rationals(slope, {t: size}, size) for size in SIZES])
    buffer, gradients = sp.Integer(0), sp.symbols("g1:5")
    for residual in gradients:
        buffer = mu * buffer + residual
    unrolled = sum(mu ** (len(gradients) - 1 - place) * residual for place, residual in enumerate(gradients))
    yield vanishes("after four steps the buffer is Σ_k μᵏ g_{4−k}", sp.expand(buffer) - unrolled)


def the_next_instance_pays_for_the_last_one() -> Iterator[Line]:
    """Two instances in turn, equal but for their labels: the buffer of the first moves the second the wrong way."""
    W, Z, P = arb_mat([["-1.5"], ["1.5"]]), arb_mat([[1]]), arb_mat([[1]])
    yield "z = 1, P = 1 (m = 1, RBF), W = (−1.5, 1.5)ᵀ, η = 0.1, μ = 0.9; first label 0, then label 1"
    V = gradient(W, Z, [0]) * P
    W = W - V * ball(LR)
    after = W - (V * ball(MOMENTUM) + gradient(W, Z, [1]) * P) * ball(LR)
    yield less("J₂(W)", mean_loss(W, Z, [1]), "J₂(W')", mean_loss(after, Z, [1]))


def no_learning_rate_is_small_enough() -> Iterator[Line]:
    """Labels 0 and 1 in turn at a margin −x: ⟨g₂, μg₁ + g₂⟩ < 0 for x large, and J₂ is convex along the step."""
    x, mu, eta = sp.symbols("x μ η", positive=True)
    first = 1 / (1 + sp.exp(-x))  # 1 − σ(−x): label 0 is wrong
    second = 1 / (1 + sp.exp(x - 2 * eta * first))  # σ of the margin after the first step: label 1 is right
    slope = 2 * second * (second - mu * first)
    yield "z = 1 = P, W = (−x/2, x/2)ᵀ; ⟨g₂, μg₁ + g₂⟩", slope
    ratio = sp.limit((slope / second).subs(second, sp.exp(-x) * sp.Symbol("C", positive=True)), x, sp.oo)
    yield vanishes("over g₂ > 0 it tends to −2μ as x grows, whatever η", ratio + 2 * mu)
    yield "J₂ is convex, so it rises by at least η times that much: for every η there is such a W"


def a_repeated_mini_batch_overshoots() -> Iterator[Line]:
    """The same mini-batch at every step, η·λ_max(K) = 0.1, far below 4: its mean loss falls, and then rises."""
    W, Z, P, labels = arb_mat([["0.5"], ["-0.5"]]), arb_mat([[1], [1]]), arb_mat([[1]]), [0, 1]
    yield "Z = (1, 1)ᵀ, P = 1, labels 0 and 1, W = (0.5, −0.5)ᵀ, η = 0.1, μ = 0.9"
    V = W * 0
    losses = [mean_loss(W, Z, labels)]
    for _ in range(20):
        V = V * ball(MOMENTUM) + gradient(W, Z, labels) * P
        W = W - V * ball(LR)
        losses.append(mean_loss(W, Z, labels))
    yield less("J after 1 step", losses[1], "J before", losses[0])
    rises = [step for step in range(20) if losses[step] < losses[step + 1]]
    first = rises[0]
    yield less(f"J after {first} steps", losses[first], f"J after {first + 1} steps", losses[first + 1])


CLAIMS = (
    Claim(
        name="momentum",
        where="3.3, Eq. 7, with the momentum of the sanity check (0.9)",
        statement="With momentum, the step still does not raise the loss.",
        verdict=Verdict.FAILS,
        condition=(
            "zᵀPz ≥ 0, a buffer that starts at 0 and the same single instance at every step: any η, μ ≥ 0; two "
            "instances in turn: no η is small enough"
        ),
        evidence=(
            Derivation(slope_along_the_step),
            Derivation(residuals_of_one_label_never_oppose),
            Derivation(one_instance_repeated_is_safe),
            Derivation(no_learning_rate_is_small_enough),
            Certificate(the_next_instance_pays_for_the_last_one),
            Certificate(a_repeated_mini_batch_overshoots),
            Property("tests/claims/test_properties.py::test_momentum_is_safe_where_one_instance_is_repeated"),
        ),
        reading=True,
    ),
)
