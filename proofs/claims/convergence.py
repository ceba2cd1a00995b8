"""What follows from the Convergence Theorem (section 3.3): "guaranteed to converge", "as the training progresses"."""

from collections.abc import Iterator

from flint import arb, arb_mat, fmpq

from proofs.certificates import ball, gradient, kernel_step, less, mean_loss, require
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.one_instance import residuals_of_one_label_never_oppose, slope_along_the_step
from proofs.claims.symbolic import identity, sp, vanishes

LR = "0.1"


def monotone_and_bounded() -> Iterator[Line]:
    """J_t falls and is ≥ 0: it has a limit, and its steps sum up to at most J_0. Nothing follows for W."""
    t, N, x, s = sp.symbols("t N x s", positive=True)
    J = sp.Function("J")
    steps = [J(k) - J(k + 1) for k in range(4)]
    yield vanishes(
        "Σ_{k<4} (J_k − J_{k+1}) = J_0 − J_4 ≤ J_0: the steps of a falling sequence ≥ 0 tend to 0",
        sum(steps) - (J(0) - J(4)),
    )
    yield "One instance, n_c = 2, margin x: x' = x + 2s·(1 − σ(x)), s = η·zᵀPz > 0", x + 2 * s / (1 + sp.exp(x))
    growth = sp.limit(sp.log(1 + sp.exp(-x)), x, sp.oo)
    yield identity("x grows without bound (a fixed point would need σ(x) = 1), and J tends to", growth, sp.Integer(0))
    yield "So J converges while W diverges: the infimum is not attained"
    del t, N


def two_instances_cycle() -> Iterator[Line]:
    """Two instances in turn, equal but for their labels, z = 1 = P, η = 0.1: the margin goes −c → c → −c for ever."""
    c, s = sp.symbols("c s", positive=True)
    sigma = 1 / (1 + sp.exp(-c))
    first = -c + 2 * s * (1 - 1 / (1 + sp.exp(c)))
    yield vanishes("label 0 at margin −c: −c + 2s(1 − σ(−c)) = c + 2(sσ(c) − c)", first - (c + 2 * (s * sigma - c)))
    second = c - 2 * s * sigma
    yield vanishes("label 1 at margin c: c − 2sσ(c) = −c − 2(sσ(c) − c)", second - (-c - 2 * (s * sigma - c)))
    yield "so s·σ(c) = c makes it a cycle; s·σ(0) − 0 > 0 > s·σ(s) − s gives such a c for every s > 0"


def the_cycle_is_real() -> Iterator[Line]:
    """s = η = 0.1: a root of sσ(c) − c lies between 0.0512 and 0.0513, and the mean loss there is above its minimum."""
    low, high = fmpq(512, 10000), fmpq(513, 10000)
    yield less("0", 0, "sσ(c) − c at c = 0.0512", _excess(arb(low)))
    yield less("sσ(c) − c at c = 0.0513", _excess(arb(high)), "0", 0)
    c = arb(low).union(arb(high))
    before, after = (1 + c.exp()).log(), (1 + (-c).exp()).log()
    yield less("each step lowers the loss of its instance, to ln(1 + e⁻ᶜ)", after, "from ln(1 + eᶜ)", before)
    yield less("while the mean loss of both stays above its minimum ln 2", arb(2).log(), "at", (before + after) / 2)


def a_stuck_network() -> Iterator[Line]:
    """m = 1 in d_in = 2: z = (0, 1), P = diag(1, 0). Every step leaves W where it is; the gradient is not 0."""
    W, Z, P = arb_mat(2, 2), arb_mat([[0, 1]]), arb_mat([[1, 0], [0, 0]])
    after = kernel_step(W, Z, [0], P, LR)
    yield require("z = (0, 1), P = diag(1, 0), W = 0: W' = W", all(x == 0 for row in after.tolist() for x in row))
    yield less("∂J/∂W₁₂, at every step,", gradient(W, Z, [0])[0, 1], "0", 0)
    plain = kernel_step(W, Z, [0], arb_mat([[1, 0], [0, 1]]), LR)
    yield less(
        "J after a step of SGD", mean_loss(plain, Z, [0]), "J under Kernel SGD, always,", mean_loss(after, Z, [0])
    )


def the_training_loss_rises() -> Iterator[Line]:
    """Two instances, the step of the first: its own loss falls, as Eq. 7 says, and the mean over both rises."""
    W, Z, P, labels = arb_mat(2, 1), arb_mat([[1], [1]]), arb_mat([[1]]), [0, 1]
    after = kernel_step(W, arb_mat([[1]]), [0], P, LR)
    yield "z = 1 for both, labels 0 and 1, P = 1 (m = 1, RBF), W = 0, η = 0.1"
    yield less("J₁(W')", mean_loss(after, arb_mat([[1]]), [0]), "J₁(W)", mean_loss(W, arb_mat([[1]]), [0]))
    yield less("mean of J₁ and J₂ at W", mean_loss(W, Z, labels), "at W'", mean_loss(after, Z, labels))


def _excess(c: arb) -> arb:
    return ball(LR) / (1 + (-c).exp()) - c


CLAIMS = (
    Claim(
        name="guaranteed-to-converge",
        where="abstract, 1, 3.3",
        statement="By the Convergence Theorem, the optimization using Kernel SGD converges.",
        verdict=Verdict.FAILS,
        condition=(
            "each step lowers another J: a cycle, at every η > 0; needs one function that falls at every step, and "
            "even then only J_t converges"
        ),
        evidence=(
            Derivation(slope_along_the_step),
            Derivation(residuals_of_one_label_never_oppose),
            Derivation(monotone_and_bounded),
            Derivation(two_instances_cycle),
            Certificate(the_cycle_is_real),
            Property("tests/claims/test_properties.py::test_training_on_two_instances_in_turn_runs_into_the_cycle"),
        ),
    ),
    Claim(
        name="limit-is-stationary",
        where='3.1 (reshaping "guarantees the training converged") and 3.3',
        statement="Where Kernel SGD converges, it has reached a stationary point.",
        verdict=Verdict.FAILS,
        condition="needs P ≻ 0 and one J; with padding, G·P = 0 is possible with G ≠ 0",
        evidence=(Derivation(monotone_and_bounded), Certificate(a_stuck_network)),
        reading=True,
    ),
    Claim(
        name="loss-decreases-as-training-progresses",
        where="3.3, after Eq. 7",
        statement="With one instance a step, the training loss decreases or stays unchanged as training progresses.",
        verdict=Verdict.FAILS,
        condition="only the loss of the instance that the step was taken for does",
        evidence=(Certificate(the_training_loss_rises),),
    ),
)
