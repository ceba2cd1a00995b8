"""Section 2: the kernel machine (Eq. 1 and 2), its minimiser, and its Hessian, "equal to the kernel matrix"."""

from collections.abc import Iterator

from flint import arb, fmpq, fmpq_mat

from proofs.certificates import Proved, ball, equal, less, positive_definite, rbf, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.symbolic import (
    SIZES,
    IdentityError,
    collapse,
    identity,
    sp,
    vanishes,
    vanishes_at_sizes,
)

n, i, j, p, q = sp.symbols("n i j p q", integer=True, positive=True)
lam = sp.Symbol("λ", positive=True)
u, y = sp.symbols("u y", real=True)
K, alpha, d1, d2 = (sp.IndexedBase(name) for name in ("K", "α", "l'", "l''"))


def hessian_for_any_loss() -> Iterator[Line]:
    """∂²L/∂α_p∂α_q = (1/n)·Σ_i l''(u_i)·K_ip·K_iq + λ·K_pq with u = Kα, for symbolic n."""
    inner = collapse(K[i, j] * sp.diff(alpha[j], alpha[p]), (j, 1, n))
    yield "∂u_i/∂α_p, u_i = Σ_j K_ij α_j", inner
    penalty = collapse(lam / 2 * sp.diff(alpha[i], alpha[p]) * K[i, j] * alpha[j], (i, 1, n)) + collapse(
        lam / 2 * alpha[i] * K[i, j] * sp.diff(alpha[j], alpha[p]), (j, 1, n)
    )
    yield "∂/∂α_p of λ/2·Σ_ij α_i K_ij α_j, to be summed over the other index; equal terms, K being symmetric", penalty
    hessian = sp.Sum(d2[i] * K[i, p] * K[i, q], (i, 1, n)) / n + lam * K[p, q]
    yield "Hessian, entry (p, q): (1/n)·K·diag(l'')·K + λK", hessian
    for size in SIZES:
        _require_hessian_at(size)
    yield Proved(
        "the same by differentiating Eq. 2 written out, with l(u) = u⁵ − u², sizes 2, 3 and 4, symbolic K and α"
    )


def _require_hessian_at(size: int) -> None:
    loss, x = sp.Function("l"), sp.Symbol("x")
    gram = sp.Matrix(size, size, lambda r, c: sp.Symbol(f"K{min(r, c)}{max(r, c)}"))
    a = sp.Matrix(sp.symbols(f"a0:{size}"))
    values = gram * a
    objective = sum(loss(value) for value in values) / size + lam / 2 * (a.T * gram * a)[0]
    curvature = sp.diag(*(sp.Subs(sp.diff(loss(x), x, 2), x, value) for value in values))
    expected = gram * curvature * gram / size + lam * gram
    # A loss whose curvature differs from instance to instance.
    for row in range(size):
        for column in range(row, size):
            residual = sp.diff(objective, a[row], a[column]) - expected[row, column]
            if sp.expand(residual.subs(loss, sp.Lambda(x, x**5 - x**2)).doit()) != 0:
                raise IdentityError(f"Hessian at size {size}, entry {row, column}")


def curvature_of_the_usual_losses() -> Iterator[Line]:
    """l'' of the affine, squared, logistic and hinge loss, at and off its kink."""
    c, d = sp.symbols("c d", real=True)
    yield identity("affine l(u) = cu + d: l''", sp.diff(c * u + d, u, 2), sp.Integer(0))
    yield identity("squared l(u) = (u − y)²/2: l''", sp.diff((u - y) ** 2 / 2, u, 2), sp.Integer(1))
    logistic = sp.diff(sp.log(1 + sp.exp(-y * u)), u, 2)
    sigma = 1 / (1 + sp.exp(-y * u))
    yield identity("logistic l(u) = ln(1 + exp(−yu)), y = ±1: l'' = y²·σ(1 − σ)", logistic, y**2 * sigma * (1 - sigma))
    hinge = 1 - u
    yield identity(
        "hinge max(0, 1 − u) off its kink, on either side: l''", sp.diff(hinge, u, 2), sp.diff(sp.Integer(0), u, 2)
    )
    yield identity(
        "at its kink the slopes of the two sides differ by 1: there is no Hessian",
        sp.diff(hinge, u) - 0,
        sp.Integer(-1),
    )


def equality_needs_affine_losses() -> Iterator[Line]:
    """(1/n)·K·D·K + λK = K for invertible K just where D·K = n(1 − λ)·I."""
    size = 3
    gram = sp.Matrix(size, size, lambda r, c: sp.Symbol(f"K{min(r, c)}{max(r, c)}"))
    D = sp.diag(*sp.symbols("l1:4"))
    difference = gram * D * gram / n + lam * gram - gram
    factored = gram * (D * gram - n * (1 - lam) * sp.eye(size)) / n
    yield vanishes("(1/n)KDK + λK − K = (1/n)·K·(DK − n(1 − λ)I)", sum(x**2 for x in sp.expand(difference - factored)))
    yield "so for invertible K the Hessian is K just where l''_i·K_ij = 0 for i ≠ j and l''_i·K_ii = n(1 − λ)"
    yield "K_ij ≠ 0 for some j ≠ i (always for RBF and n ≥ 2) forces l''_i = 0, hence λ = 1"


def other_losses_have_another_hessian() -> Iterator[Line]:
    """Two instances, RBF kernel, λ = 1: squared and logistic loss; and λ = 1/2 with an affine one."""
    H = rbf([[0], [1]], "0.1")
    yield "x = 0, 1, γ = 0.1, λ = 1"
    for name, curvature in (("squared", fmpq(1)), ("logistic at α = 0", fmpq(1, 4))):
        hessian = H * H * ball(curvature) / 2 + H
        yield less("K₁₁", H[0, 0], f"Hessian₁₁, {name} loss,", hessian[0, 0])
    yield less("Hessian₁₁, affine loss, λ = 1/2,", H[0, 0] / 2, "K₁₁", H[0, 0])


def affine_loss_with_a_penalty() -> Iterator[Line]:
    """l_i(u) = c_i·u + d_i, λ > 0: the gradient K(c/n + λα) vanishes at α = −c/(nλ), the labels' slopes alone."""
    c = sp.IndexedBase("c")
    slope = sp.Sum(K[p, j] * (c[j] / n + lam * alpha[j]), (j, 1, n))
    yield "∂L/∂α_p", slope
    yield vanishes("at α = −c/(nλ)", (slope.function.subs(alpha[j], -c[j] / (n * lam))))
    yield "L is strictly convex on the span (its Hessian is λK): a unique minimiser there, without any kernel value"


def affine_loss_without_a_penalty_has_no_minimiser() -> Iterator[Line]:
    """n = 1, k(x, x) = 1, l(u) = −u, λ = 0: L(α) = −α falls for ever; with λ > 0 it has a minimum."""
    yield from (less(f"L({2 * t})", -2 * t, f"L({t})", -t) for t in (1, 10, 100))
    yield equal("λ = 1/10: L(10) = −10 + 10²/20", fmpq(-10) + fmpq(100, 20), "the minimum −1/(2λ)", fmpq(-5))


def the_part_outside_the_span_only_costs() -> Iterator[Line]:
    """ω = ω_s + ω_⊥ with ⟨ω_⊥, φ(x_j)⟩ = 0: the predictions are those of ω_s, the penalty is larger by λ/2·‖ω_⊥‖²."""
    a, D = sp.symbols("a D", integer=True, positive=True)
    inside, outside = sp.IndexedBase("s"), sp.IndexedBase("t")
    both = sp.Sum((inside[a] + outside[a]) ** 2, (a, 1, D))
    cross = sp.Sum(inside[a] * outside[a], (a, 1, D))
    apart = sp.Sum(inside[a] ** 2, (a, 1, D)) + sp.Sum(outside[a] ** 2, (a, 1, D))
    yield "‖ω‖² in coordinates of the feature space", both
    yield vanishes_at_sizes("‖ω‖² = ‖ω_s‖² + ‖ω_⊥‖² + 2⟨ω_s, ω_⊥⟩", both - apart - 2 * cross, D)
    yield "⟨ω_s, ω_⊥⟩ = Σ_j α_j⟨φ(x_j), ω_⊥⟩ = 0, and f(x_i) = ⟨ω, φ(x_i)⟩ = ⟨ω_s, φ(x_i)⟩"
    yield "λ/2·‖ω_⊥‖² ≥ 0: replacing ω by ω_s never raises L, for any loss"


def logistic_hessian_moves_with_the_weights() -> Iterator[Line]:
    """One instance, k = 1: l'' is 1/4 at α = 0 and below 1/5 at α = 1."""
    sigma = 1 / (1 + arb(-1).exp())
    yield less("Hessian at α = 1 less λ", sigma * (1 - sigma), "1/5", fmpq(1, 5))
    yield less("1/5", fmpq(1, 5), "Hessian at α = 0 less λ", fmpq(1, 4))


def another_mini_batch_has_another_hessian() -> Iterator[Line]:
    """Line 3 of Algorithm 1 samples in every epoch: H of {0, 1} is not H of {0, 2}."""
    yield less("H₁₂ of x = 0, 2", rbf([[0], [2]], "0.1")[0, 1], "H₁₂ of x = 0, 1", rbf([[0], [1]], "0.1")[0, 1])


def distinct_inputs_give_a_definite_rbf_matrix() -> Iterator[Line]:
    """Two inputs: det = 1 − exp(−2γδ²) > 0. More: LDLᵀ in balls at every γ of the grid."""
    gamma, delta = sp.symbols("γ δ", positive=True)
    k = sp.exp(-gamma * delta**2)
    det = sp.Matrix([[1, k], [k, 1]]).det()
    yield identity("det H of two inputs at distance δ", det, 1 - sp.exp(-2 * gamma * delta**2))
    yield "exp(−γ‖x−y‖²) = e^{−γ‖x‖²}·e^{−γ‖y‖²}·Σ_r (2γ)ʳ⟨x, y⟩ʳ/r!: every power has a positive weight"
    term = sp.exp(-gamma * (u - y) ** 2) - sp.exp(-gamma * u**2) * sp.exp(-gamma * y**2) * sp.exp(2 * gamma * u * y)
    yield vanishes("the factorisation", term)


def definite_at_every_gamma() -> Iterator[Line]:
    """Five inputs, 0, 0.1, ..., 0.4, whose RBF matrix float64 calls singular at γ = 10⁻⁴."""
    for gamma in ("0.1", "0.01", "0.001", "0.0001"):
        yield positive_definite(
            f"H of x = 0, 0.1, ..., 0.4, γ = {gamma},", rbf([[fmpq(k, 10)] for k in range(5)], gamma)
        )


def no_inverse() -> Iterator[Line]:
    """Duplicates for any kernel; more instances than features for the linear one: H is singular."""
    yield equal("det H of a duplicate, RBF", fmpq_mat([[1, 1], [1, 1]]).det(), "0", 0)
    X = fmpq_mat([[1, 0], [0, 1], [1, 1]])
    H = X * X.transpose()
    yield equal("det H of three inputs in the plane, linear kernel", H.det(), "0", 0)
    yield require("it is positive semi-definite all the same", semidefinite(H))
    pseudo = fmpq_mat([[1, 1], [1, 1]]) / 4
    J = fmpq_mat([[1, 1], [1, 1]])
    yield require("the pseudoinverse of [[1, 1], [1, 1]] is [[1, 1], [1, 1]]/4", J * pseudo * J == J)
    yield require("and positive semi-definite, which is all that Eq. 7 needs", semidefinite(pseudo))


CLAIMS = (
    Claim(
        name="hessian-of-the-kernel-machine",
        where="2, after Eq. 2",
        statement="The Hessian of Eq. 2 in α is equal to the kernel matrix.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            "l'' = 0 and λ = 1 (affine loss; hinge off its kinks), just then if no row of K is diagonal; "
            "in general it is K·diag(l'')·K/n + λK"
        ),
        evidence=(
            Derivation(hessian_for_any_loss),
            Derivation(curvature_of_the_usual_losses),
            Derivation(equality_needs_affine_losses),
            Certificate(other_losses_have_another_hessian),
        ),
    ),
    Claim(
        name="affine-loss-has-a-minimiser",
        where="2, after Eq. 1",
        statement="With an affine loss, Problem (2) has a minimiser.",
        verdict=Verdict.HOLDS_IF,
        condition="λ > 0, and then α = −c/(nλ): the losses' slopes alone, nothing to optimise; λ = 0: unbounded",
        evidence=(
            Derivation(affine_loss_with_a_penalty),
            Certificate(affine_loss_without_a_penalty_has_no_minimiser),
        ),
    ),
    Claim(
        name="representer-theorem",
        where="2, between Eq. 1 and Eq. 2",
        statement="If Problem (1) has a minimiser, one lies in the span of the φ(x_j), whatever the loss.",
        verdict=Verdict.HOLDS,
        condition="with λ > 0 all of them do",
        evidence=(Derivation(the_part_outside_the_span_only_costs),),
    ),
    Claim(
        name="hessian-not-updated",
        where="1 and 3.2",
        statement="The Hessian does not need to be updated, because it is computed from the training instances.",
        verdict=Verdict.HOLDS_IF,
        condition="l'' does not depend on α (affine, squared) and the mini-batches are the same in every epoch",
        evidence=(
            Derivation(hessian_for_any_loss),
            Derivation(curvature_of_the_usual_losses),
            Certificate(logistic_hessian_moves_with_the_weights),
            Certificate(another_mini_batch_has_another_hessian),
        ),
    ),
    Claim(
        name="kernel-matrix-is-invertible",
        where="2 and 3.1, H⁻¹ in Eq. 5",
        statement="The kernel matrix of a mini-batch is positive definite, so that Eq. 5 has its inverse.",
        verdict=Verdict.HOLDS_IF,
        condition="RBF: no duplicates; linear: m ≤ d at least; otherwise the pseudoinverse, which Eq. 7 allows",
        evidence=(
            Derivation(distinct_inputs_give_a_definite_rbf_matrix),
            Certificate(definite_at_every_gamma),
            Certificate(no_inverse),
            Property("tests/claims/test_properties.py::test_gram_and_inverse_of_the_reference_enclose_the_exact_ones"),
        ),
    ),
)
