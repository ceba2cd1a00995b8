"""Eq. 6: J = −y_i ln a_i of a softmax is −f_i + ln Σ_j exp f_j; its gradient and Hessian in the logits."""

from collections.abc import Iterator

from flint import arb_mat

from proofs.certificates import less, mean_loss
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Theorem, Verdict
from proofs.claims.symbolic import SIZES, at_entries, collapse, identity, nonnegative, sp, sum_derivative, vanishes

n, i, j, k, l_ = sp.symbols("n_c i j k l", integer=True, positive=True)
f, v = sp.IndexedBase("f"), sp.IndexedBase("v")
p = sp.IndexedBase(sp.Symbol("p", positive=True))
total = sp.Sum(sp.exp(f[j]), (j, 1, n))


def eq_6() -> Iterator[Line]:
    """−y_i ln(exp f_i / Σ_j exp f_j) with y_i = 1."""
    S = sp.Symbol("S", positive=True)
    x = sp.Symbol("f_i", real=True)
    loss = -sp.log(sp.exp(x) / S)
    yield identity("With S = Σ_j exp f_j", sp.expand_log(loss), -x + sp.log(S))


def gradient_is_softmax_minus_one_hot() -> Iterator[Line]:
    """∂J/∂f_k = exp f_k/Σ − δ_ik, for symbolic n_c."""
    slope = sum_derivative(sp.exp(f[j]), f[k], (j, 1, n)) / total - sp.diff(f[i], f[k])
    yield "∂J/∂f_k", slope
    yield vanishes("softmax(f)_k − δ_ik", slope - (sp.exp(f[k]) / total - sp.KroneckerDelta(i, k)))


def hessian_is_diagonal_minus_rank_one() -> Iterator[Line]:
    """∂²J/∂f_k∂f_l = p_k·δ_kl − p_k·p_l: vᵀHv = Var_p(v), from 0 (v constant) to ½‖v‖²."""
    S = sp.Symbol("S", positive=True)
    slope_of_total = sum_derivative(sp.exp(f[j]), f[l_], (j, 1, n))
    entry = sp.diff(sp.exp(f[k]), f[l_]) / S - sp.exp(f[k]) / S**2 * slope_of_total
    yield "∂(exp f_k / S)/∂f_l", entry
    q = sp.exp(f[k]) / S
    yield vanishes("p_k·δ_kl − p_k·p_l", entry - (q * sp.KroneckerDelta(k, l_) - q * sp.exp(f[l_]) / S))
    rows = collapse(p[k] * sp.KroneckerDelta(k, l_) - p[k] * p[l_], (l_, 1, n))
    yield vanishes("a row sums to p_k·(1 − Σ_l p_l) = 0", rows - p[k] * (1 - sp.Sum(p[l_], (l_, 1, n))))
    values: list[sp.Expr] = []
    for size in SIZES:
        weights, x = at_entries(p, size), at_entries(v, size, 1)
        weights = [w / sum(weights) for w in weights]
        mean = sum(w * a for w, a in zip(weights, x, strict=True))
        form = sum(w * a**2 for w, a in zip(weights, x, strict=True)) - mean**2
        values.extend((form, sum(a**2 for a in x) / 2 - form))
    yield nonnegative("0 ≤ Var_p(v) ≤ ½‖v‖²: J is convex in the logits, and in W", values)


def the_infimum_is_not_attained() -> Iterator[Line]:
    """The minimum 0 is not attained for n_c ≥ 2: J is above 0 even at a margin of 100."""
    yield less("0", 0, "J at a margin of 100", mean_loss(arb_mat([[50], [-50]]), arb_mat([[1]]), [0]))


CLAIMS = (
    Claim(
        name="eq-6",
        where="3.3, Eq. 6",
        statement="The cross-entropy of a softmax with label i is J = −f_i + ln Σ_j exp f_j.",
        verdict=Verdict.HOLDS,
        condition="gradient softmax(f) − e_i, Hessian diag(p) − ppᵀ with 0 ⪯ it ⪯ ½I; the infimum 0 is not attained",
        evidence=(
            Derivation(eq_6),
            Derivation(gradient_is_softmax_minus_one_hot),
            Derivation(hessian_is_diagonal_minus_rank_one),
            Certificate(the_infimum_is_not_attained),
            Theorem("gradient_is_derivative"),
            Theorem("log_sum_exp_half_smooth"),
            Property("tests/claims/test_properties.py::test_loss_and_gradient_enclose_eq_6"),
        ),
    ),
)
