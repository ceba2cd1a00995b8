"""Saddle points (abstract, sections 1, 3 and 4.2): "ability to escape", and Figure 1's two-weight slice."""

from collections.abc import Iterator

from flint import fmpq_mat

from proofs.certificates import equal, less, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.cross_entropy import hessian_is_diagonal_minus_rank_one
from proofs.claims.reshaping import columns_beyond_m_do_not_move
from proofs.claims.symbolic import identity, sp, vanishes, vanishes_at_sizes


def no_step_at_a_stationary_point() -> Iterator[Line]:
    """G = 0 gives G·P = 0; near it P^½·𝓗·P^½ decides, 𝓗 the Hessian: a congruence keeps its signs."""
    d, a, b, j = sp.symbols("d_in a b j", integer=True, positive=True)
    G, P = sp.IndexedBase("G"), sp.IndexedBase("P")
    move = sp.Sum(G[j, b] * P[b, a], (b, 1, d))
    yield "the step, over −η", move
    yield vanishes("0 where G = 0, for SGD and Kernel SGD alike", move.function.subs(G[j, b], 0))
    S, H, x = sp.symbols("P^½ 𝓗 x", commutative=False)
    yield vanishes("xᵀ(P^½·𝓗·P^½)x = (P^½x)ᵀ·𝓗·(P^½x)", sp.expand(x * (S * H * S) * x - (x * S) * H * (S * x)))
    yield "P ≻ 0: x ↦ P^½x is a bijection, so the directions of escape are as many as before (Sylvester)"
    yield "P singular: they are those of 𝓗 within the range of P: at most as many, and fewer where P kills one"


def the_last_layer_has_no_saddle() -> Iterator[Line]:
    """J is convex in W: f is linear in W and the Hessian in f is positive semi-definite."""
    yield from hessian_is_diagonal_minus_rank_one()
    yield "vᵀ(∂²J/∂W²)v = Var_p(z·v) ≥ 0: there is nothing to escape from in the layer that the kernel preconditions"


def a_saddle_that_both_stay_at() -> Iterator[Line]:
    """Margin 2wv of a two-layer network at w = v = 0: the gradient is 0, the Hessian [[0, −1], [−1, 0]] indefinite."""
    w, v = sp.symbols("w v", real=True)
    J = sp.log(1 + sp.exp(-2 * w * v))
    origin = {w: 0, v: 0}
    yield identity("J of margin 2wv", J, sp.log(1 + sp.exp(-2 * w * v)))
    gradient = [sp.diff(J, x).subs(origin) for x in (w, v)]
    hessian = sp.hessian(J, (w, v)).subs(origin)
    yield equal("gradient", int(sum(x**2 for x in gradient)), "0", 0)
    yield equal("det of the Hessian", int(hessian.det()), "−1: a saddle", -1)


def padding_removes_a_way_out() -> Iterator[Line]:
    """Hessian diag(1, −1) at a stationary point, P = diag(1, 0): one direction of escape before, none after."""
    hessian, P = fmpq_mat([[1, 0], [0, -1]]), fmpq_mat([[1, 0], [0, 0]])
    yield require("diag(1, −1) has a direction of escape", not semidefinite(hessian))
    yield require("P^½·diag(1, −1)·P^½ = diag(1, 0) has none", semidefinite(P * hessian * P))


def slices_of_one_layer_are_convex() -> Iterator[Line]:
    """Linear hidden layers: f is affine in the weights of any one layer, so J is convex in any two weights of it."""
    j, k, n = sp.symbols("j k n_c", integer=True, positive=True)
    u, H = sp.IndexedBase("u"), sp.IndexedBase("𝓗")
    x, y = sp.symbols("x y", real=True)
    v = sp.IndexedBase("v")
    form = sp.Sum((x * u[j] + y * v[j]) * H[j, k] * (x * u[k] + y * v[k]), (j, 1, n), (k, 1, n))
    yield "f = f₀ + w₀·u + w₁·v; second derivative along (x, y), 𝓗 = diag(p) − ppᵀ", form
    matrix = [[sp.Sum(s[j] * H[j, k] * t[k], (j, 1, n), (k, 1, n)) for t in (u, v)] for s in (u, v)]
    quadratic = sum(a * b * matrix[r][c] for r, a in enumerate((x, y)) for c, b in enumerate((x, y)))
    yield vanishes_at_sizes("it is the form of 𝓗 at xu + yv", form - quadratic, n)
    yield "𝓗 ⪰ 0, so the slice has neither a saddle point nor a local minimum that is not global"


def slices_across_two_layers_are_not() -> Iterator[Line]:
    """Two weights of different layers: f is bilinear, and the slice of `a saddle that both stay at` is one."""
    yield less("the Hessian's eigenvalue there", -1, "0", 0)
    yield require("[[0, −1], [−1, 0]] is indefinite", not semidefinite(fmpq_mat([[0, -1], [-1, 0]])))


CLAIMS = (
    Claim(
        name="escapes-saddle-points",
        where="abstract, 1, 3, 4.2",
        statement="Kernel SGD has the ability to escape saddle points, which first-order steps lack.",
        verdict=Verdict.FAILS,
        condition="at G = 0 it stays, as SGD does; P ≻ 0 keeps the number of escaping directions, padding may lower it",
        evidence=(
            Derivation(no_step_at_a_stationary_point),
            Derivation(the_last_layer_has_no_saddle),
            Certificate(a_saddle_that_both_stay_at),
            Certificate(padding_removes_a_way_out),
        ),
    ),
    Claim(
        name="figure-1",
        where="3.3, Figure 1",
        statement="On a slice of two weights others fell into a saddle point or local minimum, Kernel SGD did not.",
        verdict=Verdict.HOLDS_IF,
        condition="the weights are of two layers, one of the last layer's first m columns; else convex, or SGD itself",
        evidence=(
            Derivation(slices_of_one_layer_are_convex),
            Derivation(columns_beyond_m_do_not_move),
            Certificate(slices_across_two_layers_are_not),
            Certificate(a_saddle_that_both_stay_at),
        ),
    ),
)
