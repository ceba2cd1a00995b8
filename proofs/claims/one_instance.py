"""Convergence Theorem (section 3.3, Eq. 7): one instance a step, the other layers constant; J(W') ≤ J(W).

The step moves the logits along the residual, and the inner product of two residuals of one label is never negative: so
the loss falls along the whole line, at any length of the step, and the sign of zᵀPz decides.
"""

from collections.abc import Iterator

from flint import arb_mat

from proofs.certificates import kernel_step, less, mean_loss, rational_matrix, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Theorem, Verdict
from proofs.claims.symbolic import SIZES, at_entries, collapse, identity, nonnegative, sp, vanishes, vanishes_at_sizes

n, d, i, j, k, a, b = sp.symbols("n_c d_in i j k a b", integer=True, positive=True)
eta, s = sp.Symbol("η", positive=True), sp.Symbol("s", real=True)
f, g, z = sp.IndexedBase("f"), sp.IndexedBase("g"), sp.IndexedBase("z")
p, q = (sp.IndexedBase(sp.Symbol(name, positive=True)) for name in "pq")
W, P = sp.IndexedBase("W"), sp.IndexedBase("P")
classes, others, inputs = (j, 1, n), (k, 1, n), ((a, 1, d), (b, 1, d))
label = sp.KroneckerDelta(i, j)


def logits_move_along_the_residual() -> Iterator[Line]:
    """f(W') = f(W) − s·g with g = softmax(f) − e_i and s = η·zᵀPz."""
    weight = W[j, a] - eta * sp.Sum(g[j] * z[b] * P[b, a], inputs[1])
    form = sp.Sum(z[b] * P[b, a] * z[a], *inputs)
    moved = sp.Sum(weight * z[a], inputs[0])
    straight = sp.Sum(W[j, a] * z[a], inputs[0]) - eta * form * g[j]
    statement = "The step W' = W − η·g·zᵀ·P moves logit j by −η·(zᵀPz)·g_j"
    yield statement, sp.Eq(moved, straight, evaluate=False)
    yield vanishes_at_sizes(statement, moved - straight, d, {j: 1})


def slope_along_the_step() -> Iterator[Line]:
    """dJ/ds = −⟨softmax(f − s·g) − e_i, g⟩, for symbolic n_c."""
    weight = sp.exp(f[j] - s * g[j])
    total = sp.Sum(weight, classes)
    loss = -(f[i] - s * g[i]) + sp.log(total)
    yield "The loss (Eq. 6) of the logits f − s·g", loss
    slope = sp.diff(loss, s)
    inner = collapse(q[j] * g[j] - label * g[j], classes)
    yield "⟨q − e_i, g⟩ for any q", sp.Eq(sp.Sum((q[j] - label) * g[j], classes), inner, evaluate=False)
    S = sp.Symbol("S", positive=True)
    named = collapse((weight / S - label) * g[j], classes)
    yield vanishes("dJ/ds = −⟨q − e_i, g⟩ with q = softmax(f − s·g), S its denominator", slope.subs(total, S) + named)


def residuals_of_one_label_never_oppose() -> Iterator[Line]:
    """⟨q − e_i, p − e_i⟩ = Σ_{j≠i} q_j p_j + (1 − q_i)(1 − p_i), for symbolic n_c."""
    inner = collapse((q[j] - label) * (p[j] - label), classes)
    split = sp.Sum(q[j] * p[j], classes) - q[i] * p[i] + (1 - q[i]) * (1 - p[i])
    statement = "⟨q − e_i, p − e_i⟩ = Σ_{j≠i} q_j·p_j + (1 − q_i)(1 − p_i)"
    yield statement, sp.Eq(inner, split, evaluate=False)
    yield vanishes(statement, inner - split)
    explicit = sp.Sum((q[j] - label) * (p[j] - label), classes) - split
    yield vanishes_at_sizes(statement, explicit, n, {i: 1})
    # Probabilities in place of any numbers: the direction.
    values = []
    for size in SIZES:
        left, right = ([w / sum(ws) for w in ws] for ws in (at_entries(p, size), at_entries(q, size, 1)))
        values.append(
            sum((x - (r == 0) * 1) * (y - (r == 0) * 1) for r, (x, y) in enumerate(zip(left, right, strict=True)))
        )
    yield nonnegative("Every term is a product of probabilities: it is positive for n_c ≥ 2", values)
    yield "So dJ/ds < 0 at every s, of either sign: J falls strictly as s grows, J(W') ≤ J(W) just where s ≥ 0"


def margins_grow() -> Iterator[Line]:
    """f'_i − f'_j = f_i − f_j + s·(p_j + 1 − p_i): the published proof, term by term."""
    residual = p[j] - label
    margin = -s * (residual.subs(j, i).subs(label.subs(j, i), 1) - residual)
    yield identity(
        "The margin over class j ≠ i changes by s·(p_j + 1 − p_i)",
        margin.subs(label, 0),
        s * (p[j] + 1 - p[i]),
    )
    yield "p_j + 1 − p_i > 0, so for s ≥ 0 no term exp(f_j − f_i) of J = ln Σ_j exp(f_j − f_i) grows"


def negative_form_raises_the_loss() -> Iterator[Line]:
    """The condition cannot be dropped: P symmetric and indefinite, z on its wrong side."""
    P_ = rational_matrix([[1, 2], [2, 1]])
    yield require("P = [[1, 2], [2, 1]] is not positive semi-definite", not semidefinite(P_))
    W_, Z = arb_mat([[0, 0], [0, 0]]), arb_mat([[1, -1]])
    yield "z = (1, −1): zᵀPz = −2; W = 0, label 1, η = 1/10"
    after = kernel_step(W_, Z, [0], arb_mat(P_), "0.1")
    yield less("J(W)", mean_loss(W_, Z, [0]), "J(W')", mean_loss(after, Z, [0]))


CONDITIONS = "tests/reference/test_conditions.py"

CLAIMS = (
    Claim(
        name="convergence-theorem",
        where="3.3, Convergence Theorem, Eq. 7",
        statement="For one instance, its last layer moved by Eq. 5 and all else constant: J(W') ≤ J(W).",
        verdict=Verdict.HOLDS_IF,
        condition="zᵀPz ≥ 0, for any P and every η > 0, and only then (n_c ≥ 2); met by H ≻ 0, reshaped or not",
        evidence=(
            Derivation(logits_move_along_the_residual),
            Derivation(slope_along_the_step),
            Derivation(residuals_of_one_label_never_oppose),
            Certificate(negative_form_raises_the_loss),
            Theorem("convergence_theorem"),
            Theorem("one_instance"),
            Theorem("one_instance_any_step"),
            Theorem("one_instance_strict"),
            Property(f"{CONDITIONS}::test_loss_of_one_instance_never_rises_where_the_instance_form_is_not_negative"),
            Property(f"{CONDITIONS}::test_loss_of_one_instance_rises_where_the_instance_form_is_negative"),
            Property("tests/claims/test_properties.py::test_instance_form_of_the_reference_is_the_exact_one"),
        ),
    ),
    Claim(
        name="margins-grow",
        where="supplement, proof of the Convergence Theorem (published)",
        statement="The step lowers every term exp(f_j − f_i), because η·(a_i − a_j − y_i + y_j)·zᵀPz ≤ 0 for all j.",
        verdict=Verdict.HOLDS_IF,
        condition="zᵀPz ≥ 0: it needs nothing else, so P may be any positive semi-definite matrix, random ones too",
        evidence=(
            Derivation(logits_move_along_the_residual),
            Derivation(margins_grow),
            Theorem("margins_grow"),
            Property("tests/claims/test_properties.py::test_margins_of_one_instance_never_shrink"),
        ),
    ),
)
