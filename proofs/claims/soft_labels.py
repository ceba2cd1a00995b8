"""Convergence Theorem (Eq. 7) with soft labels y (smoothing, mixup, distillation): J = −Σ_j y_j ln a_j, Σ_j y_j = 1."""

from collections.abc import Iterator

from flint import arb

from proofs.certificates import ball, cross_entropy, less
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.mini_batch import (
    BOUND,
    a_variance_is_at_most_half_a_squared_norm,
    four_is_reached_in_the_limit,
    no_rise_up_to_four_over_the_largest_eigenvalue,
    the_second_derivative_is_a_variance,
)
from proofs.claims.symbolic import sp, sum_derivative, vanishes


def soft_labels_change_the_gradient_alone() -> Iterator[Line]:
    """J = ln Σ exp f_j − Σ y_j f_j: gradient softmax(f) − y, the Hessian without y, for symbolic n_c."""
    n, j, k = sp.symbols("n_c j k", integer=True, positive=True)
    f, y = sp.IndexedBase("f"), sp.IndexedBase("y")
    total = sp.Sum(sp.exp(f[j]), (j, 1, n))
    loss = sp.log(total) - sp.Sum(y[j] * f[j], (j, 1, n))
    yield "With Σ y_j = 1", loss
    slope = sum_derivative(sp.exp(f[j]), f[k], (j, 1, n)) / total - sum_derivative(y[j] * f[j], f[k], (j, 1, n))
    yield "∂J/∂f_k = softmax(f)_k − y_k", slope
    yield vanishes("term by term", slope - (sp.exp(f[k]) / total - y[k]))
    yield "The bound of the mini-batch used of the residual only that it is the gradient: it holds with R = softmax − y"


def one_instance_with_a_soft_label_can_rise() -> Iterator[Line]:
    """One instance, label (½, ½), zᵀPz = 49, η = 0.1: above the bound, and the loss rises."""
    z, lr, half = 7, ball("0.1"), arb(1) / 2
    w = [arb(1) / 14, arb(-1) / 14]
    yield f"z = 7, P = 1 (m = 1, RBF), W = (1/14, −1/14)ᵀ, y = (½, ½), η = 0.1: η·zᵀPz = 4.9 > {BOUND}"
    p = 1 / (1 + (-(w[0] - w[1]) * z).exp())
    after = [w[0] - lr * (p - half) * z, w[1] - lr * (half - p) * z]
    yield less("J(W)", _soft_loss(w, z), "J(W')", _soft_loss(after, z))


def _soft_loss(w: "list[arb]", z: int) -> arb:
    logits = [x * z for x in w]
    return (cross_entropy(logits, 0) + cross_entropy(logits, 1)) / 2


CLAIMS = (
    Claim(
        name="soft-labels",
        where="3.3, Eq. 6 and 7, with labels that are no unit vectors",
        statement="For one instance with a soft label, J(W') ≤ J(W).",
        verdict=Verdict.HOLDS_IF,
        condition=f"0 ≤ η·zᵀPz ≤ {BOUND}, sharp for y = (½, ½); the theorem's freedom of η is due to hard labels",
        evidence=(
            Derivation(soft_labels_change_the_gradient_alone),
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_variance_is_at_most_half_a_squared_norm),
            Derivation(no_rise_up_to_four_over_the_largest_eigenvalue),
            Derivation(four_is_reached_in_the_limit),
            Certificate(one_instance_with_a_soft_label_can_rise),
            Property("tests/claims/test_properties.py::test_soft_labels_do_not_raise_the_loss_up_to_four"),
        ),
        reading=True,
    ),
)
