"""Eq. 4 from Eq. 3: SGD in the projected space, Ŵ = W·P^½, and back."""

from collections.abc import Iterator

from flint import fmpq, fmpq_mat

from proofs.certificates import equal, less, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.symbolic import collapse, sp, vanishes, vanishes_at_sizes

d, a, b, c, j, k = sp.symbols("d_in a b c j k", integer=True, positive=True)
eta = sp.Symbol("η", positive=True)
G, W, A, B = (sp.IndexedBase(name) for name in ("G", "W", "A", "B"))


def any_invertible_factor_will_do() -> Iterator[Line]:
    """Ŵ = WA, Ĵ(Ŵ) = J(ŴA⁻¹): one step of Eq. 3 is W' = W − η·∇J·(AAᵀ)⁻¹, for any invertible A, B = A⁻¹."""
    inner = collapse(sp.diff(sp.IndexedBase("Ŵ")[j, c] * B[c, a], sp.IndexedBase("Ŵ")[j, b]), (c, 1, d))
    yield "∂W_ja/∂Ŵ_jb, W = Ŵ·B", inner
    projected_gradient = sp.Sum(G[j, a] * inner, (a, 1, d))
    yield "∂Ĵ/∂Ŵ_jb = (∇J·Bᵀ)_jb", projected_gradient
    # W' = Ŵ'·B = W − η·(∇J·Bᵀ)·B
    back = sp.Sum(projected_gradient * B[b, k], (b, 1, d))
    product = sp.Sum(G[j, a] * sp.Sum(B[b, a] * B[b, k], (b, 1, d)), (a, 1, d))
    yield "(W − W')/η, with BᵀB = (AAᵀ)⁻¹", product
    yield vanishes_at_sizes("∇J·Bᵀ·B", back - product, d, {j: 1, k: 2})
    x, z = sp.symbols("A B", commutative=False)
    yield vanishes("BᵀB·AAᵀ = I where B = A⁻¹ (BA = I and its transpose)", _reduced(x, z))
    yield "so Eq. 4 needs AAᵀ = P: the root P^½ for symmetric positive definite P, or its Cholesky factor"


def _reduced(x: "sp.Symbol", z: "sp.Symbol") -> "sp.Expr":
    """BᵀBAAᵀ − I with BA = 1, then BᵀAᵀ = (AB)ᵀ = 1."""
    xt, zt = sp.symbols("Aᵀ Bᵀ", commutative=False)
    return (zt * z * x * xt).subs(z * x, 1).subs(zt * xt, 1) - 1


def root_and_cholesky_factor_take_the_same_step() -> Iterator[Line]:
    """P = [[17, 8], [8, 17]]/9 has a rational root and a rational Cholesky factor's square: both give P⁻¹."""
    root = fmpq_mat([[4, 1], [1, 4]]) / 3
    P = root * root
    yield require("A = [[4, 1], [1, 4]]/3 is a root of P = [[17, 8], [8, 17]]/9", fmpq_mat([[17, 8], [8, 17]]) / 9 == P)
    # LDLᵀ keeps it rational: L·D^½ is the Cholesky factor.
    lower, D = fmpq_mat([[1, 0], [fmpq(8, 17), 1]]), fmpq_mat([[fmpq(17, 9), 0], [0, fmpq(25, 17)]])
    yield require("L·D·Lᵀ = P, so L·D^½ is its Cholesky factor", lower * D * lower.transpose() == P)
    inverse = lower.inv()
    yield require("A⁻ᵀA⁻¹ = L⁻ᵀD⁻¹L⁻¹", root.inv().transpose() * root.inv() == inverse.transpose() * D.inv() * inverse)


def symmetric_is_not_enough() -> Iterator[Line]:
    """P = diag(1, −1): no real A has AAᵀ = P, because (AAᵀ)₂₂ is a sum of squares."""
    P, w = fmpq_mat([[1, 0], [0, -1]]), fmpq_mat([[0, 1]])
    yield require("P = diag(1, −1) is not positive semi-definite, as every AAᵀ is", not semidefinite(P))
    yield "Eq. 4 with this P ascends: J(w) = ‖w‖²/2, ∇J = w, w = (0, 1), η = 0.1"
    after = w - w * P.inv() * fmpq(1, 10)
    yield less("J(w)", (w * w.transpose())[0, 0] / 2, "J(w')", (after * after.transpose())[0, 0] / 2)


def a_padded_inverse_is_no_inverse() -> Iterator[Line]:
    """diag(1, 0) is singular: no P has it as P⁻¹; on the columns that move, Eq. 3 holds all the same."""
    yield equal("det diag(1, 0)", fmpq_mat([[1, 0], [0, 0]]).det(), "0, of no inverse", 0)


CLAIMS = (
    Claim(
        name="eq-4-from-eq-3",
        where="3.1, Eq. 3 and 4",
        statement="For a symmetric P, W' = W − η·∇J·P⁻¹ is SGD on the projected loss, mapped back.",
        verdict=Verdict.HOLDS_IF,
        condition="P = AAᵀ with A real and invertible, P symmetric positive definite; a Cholesky factor will do",
        evidence=(
            Derivation(any_invertible_factor_will_do),
            Certificate(root_and_cholesky_factor_take_the_same_step),
            Certificate(symmetric_is_not_enough),
            Property("tests/reference/test_projection.py::test_sgd_on_the_projected_loss_is_preconditioned_sgd"),
        ),
    ),
    Claim(
        name="padded-inverse-is-a-projection",
        where="3.1, i, with Eq. 3",
        statement="With a padded inverse, the step is still SGD on a projected loss over all of W.",
        verdict=Verdict.FAILS,
        condition="holds on the first m columns alone, the others held constant; the padded matrix is no P⁻¹",
        evidence=(Derivation(any_invertible_factor_will_do), Certificate(a_padded_inverse_is_no_inverse)),
        reading=True,
    ),
)
