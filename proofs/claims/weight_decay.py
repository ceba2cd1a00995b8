"""The L2 term (section 4.1, coefficient 10⁻⁴) and the Convergence Theorem (Eq. 7), preconditioned with J or not.

Φ(W) = J(W) + λ/2·‖W‖². Preconditioned, the step is W' = W − η·(G + λW)·P; decoupled, W' = W − η·G·P − η·λ·W.
"""

from collections.abc import Iterator

from flint import arb, arb_mat, fmpq

from proofs.certificates import ball, gradient, less, mean_loss
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.mini_batch import (
    GRID,
    a_variance_is_at_most_half_a_squared_norm,
    the_second_derivative_is_a_variance,
)
from proofs.claims.symbolic import identity, sp, vanishes, vanishes_at_sizes

BOUND = 4
DECAY = "0.0001"

eta, lam, m = sp.symbols("η λ m", positive=True)


def preconditioned_decay_curves_the_objective_by_two_lambda() -> Iterator[Line]:
    """Φ(W − η·A·P) ≤ Φ − η·⟨A, AP⟩ + (η²/4)·tr(AP·(ZᵀZ/m + 2λI)·PAᵀ), A = G + λW."""
    yield "The data term curves by at most ½·‖Z(AP)ᵀ‖²/m along AP, the L2 term by λ‖AP‖²"
    a, b, c, j, size, classes, instances = sp.symbols("a b c j d_in n_c m", integer=True, positive=True)
    k = sp.Symbol("k", integer=True, positive=True)
    D, Z = sp.IndexedBase("D"), sp.IndexedBase("Z")
    change = sp.Sum(Z[k, a] * D[j, a], (a, 1, size))
    data = sp.Sum(change**2, (k, 1, instances), (j, 1, classes)) / (2 * instances)
    decay = lam * sp.Sum(D[j, a] ** 2, (a, 1, size), (j, 1, classes))
    inner = sp.Sum(Z[k, a] * Z[k, b], (k, 1, instances)) / instances + 2 * lam * sp.KroneckerDelta(a, b)
    form = sp.Sum(D[j, a] * inner * D[j, b], (a, 1, size), (b, 1, size), (j, 1, classes)) / 2
    yield "As one quadratic form in D = AP", form
    yield vanishes_at_sizes("½‖ZDᵀ‖²/m + λ‖D‖²", data + decay - form, (size, classes, instances))
    del c
    kappa = sp.Symbol("κ", positive=True)
    yield identity(
        "Eigenvectors of P^½(ZᵀZ/m + 2λI)P^½ with eigenvalue κ: slope and curvature together are proportional to",
        -eta + eta**2 * kappa / BOUND,
        -eta * (1 - eta * kappa / BOUND),
    )
    yield f"so Φ(W') ≤ Φ(W) where η·λ_max(P^½(ZᵀZ/m + 2λI)P^½) ≤ {BOUND}; with λ = 0 the bound of the mini-batch"


def without_data_the_bound_is_sharp() -> Iterator[Line]:
    """Z = 0: Φ = λ/2·w², P = p, and W' = (1 − ηλp)·w; |1 − ηλp| > 1 beyond ηλp = 2."""
    p, w = sp.symbols("p w", positive=True)
    after = lam / 2 * ((1 - eta * lam * p) * w) ** 2
    at_bound = sp.Rational(BOUND, 2) / (lam * p)
    yield identity("Φ(W') = Φ(W) at η·2λp = 4", after.subs(eta, at_bound), lam / 2 * w**2)
    slope = sp.diff(after, eta).subs(eta, at_bound)
    yield identity("and the slope in η there is positive", sp.simplify(slope), lam**2 * p * w**2)


def the_data_term_alone_rises_at_one_instance() -> Iterator[Line]:
    """One instance, well classified: the L2 term pulls the margin back, and the J of Eq. 6 rises."""
    W, Z, labels = arb_mat([[10], [-10]]), arb_mat([[1]]), [0]
    after = _preconditioned(W, Z, labels, arb_mat([[1]]), "0.1")
    yield "z = 1, P = 1 (m = 1, RBF), W = (10, −10)ᵀ, label 0, η = 0.1, λ = 10⁻⁴"
    yield less("J(W)", mean_loss(W, Z, labels), "J(W')", mean_loss(after, Z, labels))


def the_whole_objective_rises_at_one_instance() -> Iterator[Line]:
    """One instance with a large feature: a step that the theorem allows for any η overshoots the L2 term."""
    W, Z, labels = arb_mat([[0], [0]]), arb_mat([[2000]]), [0]
    after = _preconditioned(W, Z, labels, arb_mat([[1]]), "0.1")
    yield "z = 2000, P = 1 (m = 1, RBF), W = 0, η = 0.1, λ = 10⁻⁴"
    yield less("Φ(W)", _objective(W, Z, labels), "Φ(W')", _objective(after, Z, labels))


def decoupled_decay_descends_for_the_identity_alone() -> Iterator[Line]:
    """⟨G + λW, GP + λW⟩ as a form in (G, λW): its Schur complement is −(P − 1)²/4 in every eigendirection of P."""
    p, g, w = sp.symbols("p g w", real=True)
    slope = (g + w) * (p * g + w)
    yield "The slope of Φ against the step, in an eigendirection of P with eigenvalue p, w for λW", sp.expand(slope)
    half = sp.Matrix([[p, (1 + p) / 2], [(1 + p) / 2, 1]])
    yield vanishes("its matrix", (sp.Matrix([[g, w]]) * half * sp.Matrix([g, w]))[0] - slope)
    yield identity("has the determinant", half.det(), -((p - 1) ** 2) / 4)
    yield "negative for p ≠ 1: some G and W make Φ rise to first order, for every η > 0 small enough"


def decoupled_decay_raises_the_objective() -> Iterator[Line]:
    """m = 1 in d_in = 2: the second feature is frozen for G, and decays all the same."""
    W, Z, labels = arb_mat([[0, 1], [0, 0]]), arb_mat([[0, 1]]), [0]
    P = arb_mat([[1, 0], [0, 0]])
    yield "z = (0, 1), P = diag(1, 0), W = [[0, 1], [0, 0]], label 0, λ = 10⁻⁴"
    for lr in GRID:
        after = W - gradient(W, Z, labels) * P * ball(lr) - W * ball(lr) * ball(DECAY)
        yield less(f"η = {lr}: Φ(W)", _objective(W, Z, labels), "Φ(W')", _objective(after, Z, labels))


def _preconditioned(W: arb_mat, Z: arb_mat, labels: list[int], P: arb_mat, lr: str) -> arb_mat:
    return W - (gradient(W, Z, labels) + W * ball(DECAY)) * P * ball(lr)


def _objective(W: arb_mat, Z: arb_mat, labels: list[int]) -> arb:
    square = sum((x * x for row in W.tolist() for x in row), arb(0))
    return mean_loss(W, Z, labels) + square * ball(DECAY) * fmpq(1, 2)


PROPERTIES = "tests/claims/test_properties.py"

CLAIMS = (
    Claim(
        name="weight-decay-preconditioned",
        where="3.3, Eq. 7, with the L2 term of 4.1",
        statement="With the L2 term in J, the step of one instance or a mini-batch does not raise J + λ/2·‖W‖².",
        verdict=Verdict.HOLDS_IF,
        condition=(
            f"P ⪰ 0 and η·λ_max(P^½(ZᵀZ/m + 2λI)P^½) ≤ {BOUND}, for one instance too: sufficient, sharp where Z = 0, "
            "not sharp for one instance; J alone may rise"
        ),
        evidence=(
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_variance_is_at_most_half_a_squared_norm),
            Derivation(preconditioned_decay_curves_the_objective_by_two_lambda),
            Derivation(without_data_the_bound_is_sharp),
            Certificate(the_whole_objective_rises_at_one_instance),
            Certificate(the_data_term_alone_rises_at_one_instance),
            Property(f"{PROPERTIES}::test_objective_with_weight_decay_does_not_rise_up_to_its_bound"),
        ),
        reading=True,
    ),
    Claim(
        name="weight-decay-decoupled",
        where="3.3, Eq. 7, with the L2 term of 4.1",
        statement="With the L2 term outside H⁻¹, a small enough step does not raise J + λ/2·‖W‖².",
        verdict=Verdict.FAILS,
        condition="needs ⟨G + λW, GP + λW⟩ ≥ 0; for all G and W that means P = I",
        evidence=(
            Derivation(decoupled_decay_descends_for_the_identity_alone),
            Certificate(decoupled_decay_raises_the_objective),
        ),
        reading=True,
    ),
)
