"""What section 3.3 leaves open: a separate bias that moves by SGD, and a ridge that makes a given η safe."""

from collections.abc import Iterator

from flint import arb, arb_mat, fmpq, fmpq_mat

from proofs.certificates import ball, equal, gradient, less, logits, mean_loss, require, semidefinite, softmax
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.mini_batch import (
    BOUND,
    a_variance_is_at_most_half_a_squared_norm,
    four_is_reached_in_the_limit,
    no_rise_up_to_four_over_the_largest_eigenvalue,
    the_second_derivative_is_a_variance,
)
from proofs.claims.symbolic import identity, sp, vanishes, vanishes_at_sizes

CONDITIONS = "tests/reference/test_conditions.py"


def a_bias_adds_ones_to_the_kernel() -> Iterator[Line]:
    """b' = b − η·Σ_l R_l/m moves every logit by −η·Σ_l R_lj/m: K becomes (ZPZᵀ + 11ᵀ)/m."""
    m, j, k, r = sp.symbols("m j k l", integer=True, positive=True)
    R, K = sp.IndexedBase("R"), sp.IndexedBase("K")
    eta = sp.Symbol("η", positive=True)
    moved = -eta * sp.Sum(K[k, r] * R[r, j], (r, 1, m)) - eta * sp.Sum(R[r, j] / m, (r, 1, m))
    together = -eta * sp.Sum((K[k, r] + 1 / m) * R[r, j], (r, 1, m))
    yield "F'_kj − F_kj", together
    yield vanishes_at_sizes("weights and bias together", moved - together, m, {k: 1, j: 1})
    yield "one instance: its logits move along the residual by s = η(zᵀPz + 1), and the sign of s decides, as without"


def a_bias_lowers_the_bound() -> Iterator[Line]:
    """η = 3.9, zᵀPz = 1: below 4 without a bias, above it with one, and the loss rises."""
    W, Z, labels, lr = arb_mat([["0.1"], ["-0.1"]]), arb_mat([[1], [1]]), [0, 1], ball("3.9")
    yield "Z = (1, 1)ᵀ, labels 0 and 1, P = 1, W = (0.1, −0.1)ᵀ, b = 0, η = 3.9: λ_max is 1 without a bias, 2 with one"
    weights = W - gradient(W, Z, labels) * lr
    bias = [arb(0), arb(0)]
    for row, label in zip(logits(W, Z).tolist(), labels, strict=True):
        bias = [b - lr * (p - (c == label)) / 2 for c, (b, p) in enumerate(zip(bias, softmax(row), strict=True))]
    both = arb_mat([[w[0], b] for w, b in zip(weights.tolist(), bias, strict=True)])
    before = mean_loss(W, Z, labels)
    yield less("J with W alone moved", mean_loss(weights, Z, labels), "J(W)", before)
    yield less("J(W)", before, "J with the bias moved too", mean_loss(both, arb_mat([[1, 1], [1, 1]]), labels))


def a_ridge_bounds_the_inverse() -> Iterator[Line]:
    """(H + ρI)⁻¹ has eigenvalues 1/(π + ρ) ≤ 1/ρ, padded or truncated: λ_max(ZPZᵀ/m) ≤ λ_max(ZᵀZ/m)/ρ."""
    eta, rho, top, pi = sp.symbols("η ρ λ π", positive=True)
    yield identity("1/ρ − 1/(π + ρ), positive", 1 / rho - 1 / (pi + rho), pi / (rho * (pi + rho)))
    ridge = eta * top / BOUND
    yield vanishes(f"η·(λ/ρ) = {BOUND} at ρ = ηλ/{BOUND}", eta * top / ridge - BOUND)
    with_bias = eta * top / (BOUND - eta)
    yield vanishes(f"with a bias η·(λ/ρ + 1) = {BOUND} at ρ = ηλ/({BOUND} − η)", eta * (top / with_bias + 1) - BOUND)
    yield "a bias has no ρ for η ≥ 4: 11ᵀ/m alone has the eigenvalue 1"


def a_smaller_ridge_may_not_do() -> Iterator[Line]:
    """H = 0, equal instances with different labels: 9/10 of the ridge lets the loss rise."""
    W, Z, labels = arb_mat([["0.1"], ["-0.1"]]), arb_mat([[2], [2]]), [0, 1]
    yield "Z = (2, 2)ᵀ, labels 0 and 1, λ_max(ZᵀZ/m) = 4, η = 1: the ridge is 1; W = (0.1, −0.1)ᵀ, H = 0"
    before = mean_loss(W, Z, labels)
    enough, short = (mean_loss(W - gradient(W, Z, labels) * (1 / ball(ridge)), Z, labels) for ridge in (1, fmpq(9, 10)))
    yield less("J with ridge 1", enough, "J(W)", before)
    yield less("J(W)", before, "J with ridge 9/10", short)


def for_given_features_less_may_do() -> Iterator[Line]:
    """Z = (1, −1)ᵀ and a bias, η = 3.9: K = (pZZᵀ + 11ᵀ)/2 has the eigenvalues p ≤ 1/ρ and 1."""
    Z, ones, lr, ridge = fmpq_mat([[1], [-1]]), fmpq_mat([[1], [1]]), fmpq(39, 10), fmpq(39, 40)
    K = (Z * Z.transpose() / ridge + ones * ones.transpose()) / 2
    bound = fmpq_mat([[1, 0], [0, 1]]) * (BOUND / lr)
    yield require("ρ = 0.975: η·λ_max(K) ≤ 4 at p = 1/ρ, and so for every H ⪰ 0", semidefinite(bound - K))
    yield equal("by the rule, λ = 1", lr / (BOUND - lr), "39", 39)


CLAIMS = (
    Claim(
        name="separate-bias",
        where="3.3, Eq. 7, with a bias of its own",
        statement="With a bias that moves by SGD, the step of a mini-batch does not raise its mean loss.",
        verdict=Verdict.HOLDS_IF,
        condition=f"ZPZᵀ + 11ᵀ ⪰ 0 and η·λ_max((ZPZᵀ + 11ᵀ)/m) ≤ {BOUND}; for one instance zᵀPz ≥ −1, at any η",
        evidence=(
            Derivation(a_bias_adds_ones_to_the_kernel),
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_variance_is_at_most_half_a_squared_norm),
            Derivation(no_rise_up_to_four_over_the_largest_eigenvalue),
            Certificate(a_bias_lowers_the_bound),
            Property(f"{CONDITIONS}::test_loss_does_not_rise_up_to_four_over_the_largest_eigenvalue"),
        ),
        reading=True,
    ),
    Claim(
        name="guaranteeing-ridge",
        where="3.1, Eq. 5, with H + ρI in place of H",
        statement="A ridge makes a given learning rate safe, whatever the kernel matrix, W and labels.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            f"ρ ≥ ηλ/{BOUND}, λ = λ_max(ZᵀZ/m); with a separate bias ρ ≥ ηλ/({BOUND} − η) and η < {BOUND}; "
            "as a function of λ alone no smaller one will do (equal instances, H = 0); for given features less may do, "
            "for m = 1 any ρ > 0"
        ),
        evidence=(
            Derivation(a_ridge_bounds_the_inverse),
            Derivation(no_rise_up_to_four_over_the_largest_eigenvalue),
            Derivation(four_is_reached_in_the_limit),
            Certificate(a_smaller_ridge_may_not_do),
            Certificate(for_given_features_less_may_do),
            Property(f"{CONDITIONS}::test_guaranteeing_ridge_keeps_the_loss_from_rising_whatever_the_kernel_matrix"),
            Property(f"{CONDITIONS}::test_guaranteeing_ridge_is_the_smallest"),
        ),
        reading=True,
    ),
)
