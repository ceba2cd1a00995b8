"""Saddle points (abstract, sections 1, 3 and 4.2): "ability to escape", and Figure 1's two-weight slice."""

from collections.abc import Iterator

from flint import arb

from proofs.certificates import ball, equal, less, require
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.cross_entropy import hessian_is_diagonal_minus_rank_one
from proofs.claims.reshaping import columns_beyond_m_do_not_move
from proofs.claims.symbolic import sp, vanishes, vanishes_at_sizes


def no_step_at_a_stationary_point() -> Iterator[Line]:
    """G = 0 gives G·P = 0; near it P^½·𝓗·P^½ decides, 𝓗 the Hessian: a congruence keeps its signs."""
    d, a, b, j = sp.symbols("d_in a b j", integer=True, positive=True)
    G, P = sp.IndexedBase("G"), sp.IndexedBase("P")
    move = sp.Sum(G[j, b] * P[b, a], (b, 1, d))
    yield "the step, over −η", move
    yield vanishes("0 where G = 0, for SGD and Kernel SGD alike", move.function.subs(G[j, b], 0))
    yield "the form of P^½·𝓗·P^½ at x is that of 𝓗 at P^½x, P the identity on the earlier layers"
    yield "P ≻ 0: x ↦ P^½x is a bijection, so the directions of escape are as many as before (Sylvester)"
    yield "P singular: they are those of 𝓗 within the range of P: at most as many, and fewer where P kills one"


def the_last_layer_has_no_saddle() -> Iterator[Line]:
    """J is convex in W: f is linear in W and the Hessian in f is positive semi-definite."""
    yield from hessian_is_diagonal_minus_rank_one()
    yield "vᵀ(∂²J/∂W²)v = Var_p(z·v) ≥ 0: there is nothing to escape from in the layer that the kernel preconditions"


def a_saddle_that_both_stay_at() -> Iterator[Line]:
    """Margin 2wv of a two-layer network at w = v = 0: the gradient is 0, the Hessian [[0, −1], [−1, 0]] indefinite."""
    w, v = sp.symbols("w v", real=True)
    gradient, hessian = _at_the_origin(2 * w * v, (w, v))
    yield equal("squared gradient", int(sum(x**2 for x in gradient)), "0", 0)
    yield require(
        "the Hessian is [[0, −1], [−1, 0]], with eigenvalues 1 and −1: a saddle", hessian.eigenvals() == {1: 1, -1: 1}
    )


def padding_removes_a_way_out() -> Iterator[Line]:
    """Two linear hidden units, x = 1, margin 2(w₁v₁ + w₂v₂) at 0, m = 1, so P = diag(1, 0): w₂ is frozen."""
    weights = sp.symbols("w1 v1 w2 v2", real=True)
    w1, v1, w2, v2 = weights
    gradient, hessian = _at_the_origin(2 * (w1 * v1 + w2 * v2), weights)
    S = sp.diag(1, 1, 0, 1)  # P on w₁ and w₂, and SGD on v₁ and v₂
    yield equal("squared gradient", int(sum(x**2 for x in gradient)), "0", 0)
    yield require("eigenvalues of 𝓗: −1, −1, 1, 1, two directions of escape", hessian.eigenvals() == {-1: 2, 1: 2})
    yield require(
        "of S𝓗S, S = diag(1, 1, 0, 1) in the order w₁, v₁, w₂, v₂: −1, 0, 0, 1, one of them left",
        (S * hessian * S).eigenvals() == {-1: 1, 0: 2, 1: 1},
    )


def _at_the_origin(margin: "sp.Expr", weights: "tuple[sp.Symbol, ...]") -> "tuple[list[sp.Expr], sp.Matrix]":
    """Gradient and Hessian of J = ln(1 + exp(−margin)) where all weights are 0."""
    J, origin = sp.log(1 + sp.exp(-margin)), dict.fromkeys(weights, 0)
    return [sp.diff(J, x).subs(origin) for x in weights], sp.hessian(J, weights).subs(origin)


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


def sgd_stays_on_a_line_through_the_saddle() -> Iterator[Line]:
    """Margin 2wv, w of the last layer: SGD from w = −v keeps w = −v, and goes to the saddle at 0 for every η < 1."""
    w, v, eta, c = sp.symbols("w v η c", real=True)
    after = {w: w + 2 * eta * c * v, v: v + 2 * eta * c * w}
    slope = -2 * v / (1 + sp.exp(2 * w * v))
    yield vanishes("∂J/∂w = −2cv, c = 1 − σ(2wv)", sp.diff(sp.log(1 + sp.exp(-2 * w * v)), w) - slope)
    yield vanishes("w' + v' = (1 + 2ηc)(w + v): 0 stays 0", after[w] + after[v] - (1 + 2 * eta * c) * (w + v))
    yield vanishes("and there w' = (1 − 2ηc)·w", (after[w] - (1 - 2 * eta * c) * w).subs(v, -w))
    yield "½ ≤ c < 1 on it, so |1 − 2ηc| ≤ max(1 − η, |1 − 2η|) < 1 for 0 < η < 1: w → 0, and J falls to ln 2, no lower"


def a_frozen_weight_passes_it_by() -> Iterator[Line]:
    """The same slice, w in a column beyond m: Kernel SGD holds w = 1 and moves v from −1, η = 0.1."""
    w, v, lr = arb(1), arb(-1), ball("0.1")
    for _ in range(20):
        v += 2 * lr * w / (1 + (2 * w * v).exp())
    yield "w = 1, v = −1, η = 0.1, 20 steps"
    yield less(
        "J under Kernel SGD", (1 + (-2 * w * v).exp()).log(), "ln 2, below which SGD does not come,", arb(2).log()
    )


CLAIMS = (
    Claim(
        name="escapes-saddle-points",
        where="abstract, 1, 3, 4.2",
        statement="The second-order information of the kernel machine gives the ability to escape saddle points.",
        verdict=Verdict.FAILS,
        condition=(
            "at G = 0 it stays, as SGD does; of the directions in which SGD escapes P ≻ 0 keeps the number, and "
            "padding may lower it"
        ),
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
        condition=(
            "possible only where the weights are of two layers, one of them the last: two of one layer make a convex "
            "slice, two of earlier layers SGD itself; a last-layer column beyond m is frozen, and even that can pass "
            "by a saddle where SGD ends"
        ),
        evidence=(
            Derivation(slices_of_one_layer_are_convex),
            Derivation(columns_beyond_m_do_not_move),
            Derivation(sgd_stays_on_a_line_through_the_saddle),
            Certificate(a_frozen_weight_passes_it_by),
            Certificate(a_saddle_that_both_stay_at),
        ),
    ),
)
