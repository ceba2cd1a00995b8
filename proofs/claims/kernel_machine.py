"""Section 2: the kernel machine (Eq. 1 and 2), its minimiser, and its Hessian, "equal to the kernel matrix"."""

import itertools
import math
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
        _require_hessian_at(size, [1 / sp.Integer(size)] * size)
    yield Proved(
        "the same by differentiating Eq. 2 written out, with l(u) = u⁵ − u², sizes 2, 3 and 4, symbolic K and α"
    )


def constraints_with_multipliers() -> Iterator[Line]:
    """Lagrangian λ/2·αᵀKα + Σ_i μ_i·h_i(u_i), u = Kα: μ_i·h_i'' in place of l''_i/n (the published derivation)."""
    for size in SIZES:
        _require_hessian_at(size, list(sp.symbols(f"μ1:{size + 1}")))
    yield Proved("Hessian λK + K·diag(μ_i·h_i'')·K, with h(u) = u⁵ − u², sizes 2, 3 and 4, symbolic K, α and μ")
    yield "so for invertible K that is not diagonal it is K just where λ = 1 and every h_i with μ_i ≠ 0 is affine"


def _require_hessian_at(size: int, weights: "list[sp.Expr]") -> None:
    """K·diag(w_i·l''_i)·K + λK of Σ_i w_i·l(u_i) + λ/2·αᵀKα."""
    loss, x = sp.Function("l"), sp.Symbol("x")
    gram = sp.Matrix(size, size, lambda r, c: sp.Symbol(f"K{min(r, c)}{max(r, c)}"))
    a = sp.Matrix(sp.symbols(f"a0:{size}"))
    values = gram * a
    objective = sum(w * loss(u) for w, u in zip(weights, values, strict=True)) + lam / 2 * (a.T * gram * a)[0]
    curvature = sp.diag(
        *(w * sp.Subs(sp.diff(loss(x), x, 2), x, value) for w, value in zip(weights, values, strict=True))
    )
    expected = gram * curvature * gram + lam * gram
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
    yield "one K_ij ≠ 0 with i ≠ j (RBF and n ≥ 2: all of them) forces l''_i = 0, hence λ = 1, and then every l''_j = 0"


def other_losses_have_another_hessian() -> Iterator[Line]:
    """Two instances, RBF kernel, λ = 1: squared and logistic loss; and λ = 1/2 with an affine one."""
    H = rbf([[0], [1]], "0.1")
    yield "x = 0, 1, γ = 0.1, λ = 1"
    for name, curvature in (("squared", fmpq(1)), ("logistic at α = 0", fmpq(1, 4))):
        hessian = H * H * ball(curvature) / 2 + H
        yield less("K₁₁", H[0, 0], f"Hessian₁₁, {name} loss,", hessian[0, 0])
    yield less("Hessian₁₁, affine loss, λ = 1/2,", H[0, 0] / 2, "K₁₁", H[0, 0])


def duplicates_have_it_with_curved_losses() -> Iterator[Line]:
    """K = [[1, 1], [1, 1]], which is not invertible: K·K/2 = K."""
    K_ = fmpq_mat([[1, 1], [1, 1]])
    for curvature, penalty in ((fmpq(1), fmpq(0)), (fmpq(1, 2), fmpq(1, 2))):
        yield require(
            f"K = [[1, 1], [1, 1]], l'' = {curvature}, λ = {penalty}: the Hessian is K",
            K_ * K_ * (curvature / 2) + K_ * penalty == K_,
        )


def affine_loss_with_a_penalty() -> Iterator[Line]:
    """l_i(u) = c_i·u + d_i, λ > 0: the gradient K(c/n + λα) vanishes at α = −c/(nλ), the labels' slopes alone."""
    c = sp.IndexedBase("c")
    slope = sp.Sum(K[p, j] * (c[j] / n + lam * alpha[j]), (j, 1, n))
    yield "∂L/∂α_p", slope
    yield vanishes("at α = −c/(nλ)", (slope.function.subs(alpha[j], -c[j] / (n * lam))))
    yield "L is strictly convex on the span (its Hessian is λK): a unique minimiser there, without any kernel value"


def without_a_penalty_only_where_the_slopes_cancel() -> Iterator[Line]:
    """λ = 0: L(α) = (Kc)ᵀα/n + const; along α = −t·Kc it falls for ever unless Kc = 0, and then it is constant."""
    t = sp.Symbol("t", positive=True)
    for size in SIZES:
        gram = sp.Matrix(size, size, lambda r, c: sp.Symbol(f"K{min(r, c)}{max(r, c)}"))
        slopes = sp.Matrix(sp.symbols(f"c1:{size + 1}"))
        moved = -t * gram * slopes
        vanishes("L(−t·Kc)", slopes.dot(gram * moved) / size + t * sum(x**2 for x in gram * slopes) / size)
    yield Proved("L(−t·Kc) = L(0) − (t/n)·‖Kc‖², at n = 2, 3, 4, symbolic K and c")


def affine_losses_without_a_penalty() -> Iterator[Line]:
    """n = 1, k(x, x) = 1, l(u) = −u: L(α) = −α falls for ever. Duplicates with slopes 1 and −1: L is constant."""
    yield from (
        less(f"L({2 * t})", _affine([[1]], [-1], [2 * t]), f"L({t})", _affine([[1]], [-1], [t])) for t in (1, 10)
    )
    slopes = fmpq_mat([[1], [-1]])
    yield require("K = [[1, 1], [1, 1]], c = (1, −1): Kc = 0", fmpq_mat([[1, 1], [1, 1]]) * slopes == slopes * 0)


def _affine(gram: list[list[int]], c: list[int], a: list[int]) -> fmpq:
    """cᵀKα/n."""
    return (fmpq_mat([c]) * fmpq_mat(gram) * fmpq_mat([a]).transpose())[0, 0] / len(c)


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
    """aᵀHa = Σ_r (2γ)ʳ/r!·‖Σ_i b_i·x_i^{⊗r}‖², b_i = a_i·e^{−γ‖x_i‖²}: it is 0 for a = 0 alone, for any m and d."""
    gamma = sp.Symbol("γ", positive=True)
    yield "exp(−γ‖x−y‖²) = e^{−γ‖x‖²}·e^{−γ‖y‖²}·Σ_r (2γ)ʳ⟨x, y⟩ʳ/r!: every power has a positive weight"
    term = sp.exp(-gamma * (u - y) ** 2) - sp.exp(-gamma * u**2) * sp.exp(-gamma * y**2) * sp.exp(2 * gamma * u * y)
    yield vanishes("the factorisation", term)
    yield from monomials_tell_inputs_apart()
    yield "so aᵀHa = 0 makes Σ_i b_i·q(x_i) = 0 for every polynomial q; with q = q_k it says b_k = 0: H ≻ 0"


def monomials_tell_inputs_apart() -> Iterator[Line]:
    """⟨x, z⟩ʳ = ⟨x^{⊗r}, z^{⊗r}⟩; and q_k(x) = Π_{l≠k} ⟨x − x_l, x_k − x_l⟩/‖x_k − x_l‖² is 1 at x_k, 0 at x_l."""
    x, z = sp.symbols("x1:4"), sp.symbols("z1:4")
    inner = sum(a * b for a, b in zip(x, z, strict=True))
    for r in (2, 3):
        tensor = sum(math.prod(x[a] * z[a] for a in place) for place in itertools.product(range(3), repeat=r))
        vanishes("⟨x, z⟩ʳ", inner**r - tensor)
    yield Proved("⟨x, z⟩ʳ = ⟨x^{⊗r}, z^{⊗r}⟩, at r = 2, 3 and d = 3")
    inputs = [sp.Matrix(sp.symbols(f"x{row}_1:3", real=True)) for row in range(3)]
    for k, at in itertools.product(range(3), repeat=2):
        others = [each for row, each in enumerate(inputs) if row != k]
        q = math.prod((inputs[at] - o).dot(inputs[k] - o) / (inputs[k] - o).dot(inputs[k] - o) for o in others)
        vanishes("q_k(x_l) = δ_kl", sp.simplify(q) - (at == k))
    yield Proved("q_k(x_l) = δ_kl for distinct inputs, at m = 3 and d = 2; q_k has degree m − 1")


def the_rank_of_a_polynomial_kernel() -> Iterator[Line]:
    """(γ⟨x, y⟩ + c₀)^p, c₀ > 0: H is a Gram matrix of the monomials up to degree p, each with a positive weight."""
    gamma, c0 = sp.symbols("γ c₀", positive=True)
    expanded = sp.Poly(sp.expand((gamma * (u * y + sp.Symbol("v") * sp.Symbol("w")) + c0) ** 3), u, sp.Symbol("v"))
    yield equal("d = 2, p = 3: monomials", len(expanded.monoms()), "C(d + p, p)", math.comb(5, 3))
    yield require("all their weights are positive", all(c.as_coeff_Mul()[0] > 0 for c in expanded.coeffs()))
    yield from monomials_tell_inputs_apart()
    yield "so the rank is at most C(d + p, p), and distinct inputs with m − 1 ≤ p give H ≻ 0"


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
    points = (0, 1, 2)
    affine = fmpq_mat([[x * y + 1 for y in points] for x in points])
    yield equal("det H of x = 0, 1, 2 under ⟨x, y⟩ + 1, d = 1 and degree 1", affine.det(), "0", 0)
    pseudo = fmpq_mat([[1, 1], [1, 1]]) / 4
    J = fmpq_mat([[1, 1], [1, 1]])
    yield require(
        "the pseudoinverse J⁺ of J = [[1, 1], [1, 1]] is J/4: JJ⁺J = J, J⁺JJ⁺ = J⁺, JJ⁺ and J⁺J are symmetric",
        J * pseudo * J == J
        and pseudo * J * pseudo == pseudo
        and all(product == product.transpose() for product in (J * pseudo, pseudo * J)),
    )
    yield require("and positive semi-definite, which is all that Eq. 7 needs", semidefinite(pseudo))


CLAIMS = (
    Claim(
        name="hessian-of-the-kernel-machine",
        where="2, after Eq. 2",
        statement="The Hessian of Eq. 2 in α is equal to the kernel matrix.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            "l'' = 0 and λ = 1 (affine loss; hinge off its kinks), just then for invertible K that is not diagonal; "
            "two duplicates with l'' = 1 and λ = 0 have it too; in general it is K·diag(l'')·K/n + λK, and as "
            "published, with constraints h_i of multipliers μ_i, λK + K·diag(μ_i·h_i'')·K"
        ),
        evidence=(
            Derivation(hessian_for_any_loss),
            Derivation(curvature_of_the_usual_losses),
            Derivation(equality_needs_affine_losses),
            Derivation(constraints_with_multipliers),
            Certificate(other_losses_have_another_hessian),
            Certificate(duplicates_have_it_with_curved_losses),
        ),
    ),
    Claim(
        name="affine-loss-has-a-minimiser",
        where="2, after Eq. 1",
        statement="With an affine loss, Problem (2) has a minimiser.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            "λ > 0 (then α = −c/(nλ): the losses' slopes alone, nothing to optimise), or Kc = 0 (L is constant); "
            "otherwise unbounded for λ = 0"
        ),
        evidence=(
            Derivation(affine_loss_with_a_penalty),
            Derivation(without_a_penalty_only_where_the_slopes_cancel),
            Certificate(affine_losses_without_a_penalty),
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
        condition=(
            "RBF: just for distinct inputs; linear: just for linearly independent ones (so m ≤ d); polynomial of "
            "degree p, c₀ > 0: m ≤ C(d + p, p) at least, and distinct inputs do for m ≤ p + 1; otherwise the "
            "pseudoinverse, which Eq. 7 allows"
        ),
        evidence=(
            Derivation(distinct_inputs_give_a_definite_rbf_matrix),
            Derivation(the_rank_of_a_polynomial_kernel),
            Certificate(definite_at_every_gamma),
            Certificate(no_inverse),
            Property("tests/claims/test_properties.py::test_gram_and_inverse_of_the_reference_enclose_the_exact_ones"),
        ),
    ),
)
