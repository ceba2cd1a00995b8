"""Reshaping H⁻¹ (section 3.1, i and ii): zeros added where m < d_in, rows and columns dropped where m > d_in."""

from collections.abc import Iterator

from flint import arb_mat, fmpq, fmpq_mat

from proofs.certificates import (
    Proved,
    equal,
    gradient,
    kernel_step,
    less,
    mean_loss,
    require,
    reshaped_inverse,
)
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Theorem, Verdict
from proofs.claims.symbolic import sp, vanishes

m, d, k, a, b, j = sp.symbols("m d_in k a b j", integer=True, positive=True)
M, v, G = (sp.IndexedBase(name) for name in ("M", "v", "G"))
MINI_BATCH, WIDTHS = 64, {"two linear layers of 100, LSTM": (100, "0.36"), "ResNet-18": (512, "0.875")}

RESHAPE = "tests/reference/test_reshape.py"


def the_form_of_the_reshaped_matrix() -> Iterator[Line]:
    """vᵀPv = uᵀH⁻¹u, u the first k = min(m, d_in) entries of v and zeros: for symbolic m and d_in."""
    leading = sp.Sum(v[a] * M[a, b] * v[b], (a, 1, k), (b, 1, k))
    yield "vᵀPv, k = min(m, d_in)", leading
    for rows, columns in ((2, 3), (3, 2), (4, 2), (2, 4)):
        kept = min(rows, columns)
        inverse = sp.Matrix(rows, rows, lambda r, c: sp.Symbol(f"M{min(r, c)}{max(r, c)}"))
        P = sp.Matrix(columns, columns, lambda r, c, M=inverse, k=kept: M[r, c] if max(r, c) < k else 0)
        x = sp.Matrix(sp.symbols(f"v1:{columns + 1}"))
        u = sp.Matrix([x[r] if r < kept else 0 for r in range(rows)])
        vanishes("vᵀPv = uᵀMu", ((x.T * P * x)[0] - (u.T * inverse * u)[0]))
    yield Proved("vᵀPv = uᵀMu, M = H⁻¹ or H⁺, for (m, d_in) = (2, 3), (3, 2), (4, 2), (2, 4), entry by entry")
    yield "so P ⪰ 0 where M ⪰ 0, and λ_max(P) ≤ λ_max(M)"


def the_truncated_inverse_inverts_a_schur_complement() -> Iterator[Line]:
    """H = [[A, B], [C, D]]: the leading block X of H⁻¹ solves (A − B·D⁻¹·C)·X = I, for blocks of any size."""
    A, B, C, D, E, X, Y = sp.symbols("A B C D D⁻¹ X Y", commutative=False)
    yield "the first block column (X, Y) of H⁻¹ solves AX + BY = I and CX + DY = 0, so Y = −D⁻¹CX"
    yield vanishes("CX + DY", (C * X + D * (-E * C * X)).expand().subs(D * E, 1))
    yield vanishes("AX + BY = (A − B·D⁻¹·C)·X", sp.expand(A * X + B * (-E * C * X) - (A - B * E * C) * X))
    del Y


def and_dominates_the_inverse_of_the_truncated_matrix() -> Iterator[Line]:
    """X = A⁻¹ + A⁻¹B·T·CA⁻¹ with T = (D − C·A⁻¹·B)⁻¹ ⪰ 0 and C = Bᵀ: X − A⁻¹ is a congruence of T."""
    A, B, C, D, F, T = sp.symbols("A B C D A⁻¹ T", commutative=False)
    X, Y = F + F * B * T * C * F, -T * C * F
    first = sp.expand(A * X + B * Y).subs(A * F, 1)
    yield vanishes("AX + BY = I", sp.expand(first) - 1)
    second = sp.expand(C * X + D * Y)
    # D = C·A⁻¹·B + T⁻¹, and T⁻¹·T = 1.
    S = sp.Symbol("T⁻¹", commutative=False)
    second = sp.expand(second.subs(D, C * F * B + S)).subs(S * T, 1)
    yield vanishes("CX + DY = 0", sp.expand(second))
    yield "vᵀ(X − A⁻¹)v = (CA⁻¹v)ᵀ·T·(CA⁻¹v) ≥ 0: η_max of the mini-batch is at most as large as with A⁻¹"


def strictly_so_for_two_inputs() -> Iterator[Line]:
    """x = 0, 1, d_in = 1, γ = 0.1: P = 1/(1 − e^{−0.2}), against 1 of the truncated kernel matrix."""
    yield less("(H truncated)⁻¹", 1, "H⁻¹ truncated", reshaped_inverse([[0], [1]], "0.1", 1)[0, 0])


def columns_beyond_m_do_not_move() -> Iterator[Line]:
    """(G·P)_ja = Σ_b G_jb·P_ba = 0 for a > m, and nothing of G's columns beyond m enters, for any m < d_in."""
    for rows, columns in ((1, 2), (2, 3), (2, 4), (3, 4)):
        P = sp.Matrix(columns, columns, lambda r, c, size=rows: M[r, c] if max(r, c) < size else 0)
        move = sp.Matrix(2, columns, lambda r, c: G[r, c]) * P
        vanishes("columns of G·P beyond m", sum(x**2 for x in move[:, rows:]))
        vanishes(
            "columns of G beyond m",
            sum(sp.diff(x, G[r, c]) ** 2 for x in move for r in range(2) for c in range(rows, columns)),
        )
    yield "P_ba = 0 for a > m or b > m: (G·P)_ja, a ≤ m", sp.Sum(G[j, b] * M[b, a], (b, 1, m))
    yield Proved(
        "(G·P)_ja = 0 for a > m, and ∂(G·P)/∂G_jb = 0 for b > m, at (m, d_in) = (1, 2), (2, 3), (2, 4), (3, 4)"
    )
    yield "Every mini-batch has at most m instances: with m < d_in the columns beyond never move"


def most_of_the_last_layer_is_frozen_in_the_paper() -> Iterator[Line]:
    """m = 64 against the widths of the last layers of section 4.1 (512 and 100 as published)."""
    for name, (width, share) in WIDTHS.items():
        frozen = fmpq(width - MINI_BATCH, width)
        yield equal(f"share of the last layer's columns that never move, {name} ({width}),", frozen, share, share)
    W, Z, P = arb_mat([[0, 0], [0, 0]]), arb_mat([[0, 1]]), arb_mat([[1, 0], [0, 0]])
    G = gradient(W, Z, [0])
    yield "m = 1, d_in = 2, z = (0, 1), W = 0: only the second column has a gradient"
    yield less("∂J/∂W₁₂", G[0, 1], "0", 0)
    after = kernel_step(W, Z, [0], P, "0.1")
    yield require("and W' = W", all(x == 0 for row in after.tolist() for x in row))


def a_bias_appended_last() -> Iterator[Line]:
    """The bias as column d_in + 1, its feature 1: it moves where d_in + 1 ≤ m alone."""
    yield "inputs 0, ..., m − 1, γ = 0.1, features 0 but for the bias's 1, all labels 0, W = 0, η = 0.1"
    for size, width in ((2, 1), (3, 1), (3, 2), (2, 2), (3, 3), (2, 4)):
        P = reshaped_inverse([[row] for row in range(size)], "0.1", width + 1)
        W, Z, labels = arb_mat(2, width + 1), arb_mat([[0] * width + [1]] * size), [0] * size
        less("its gradient", gradient(W, Z, labels)[0, width], "0", 0)
        case, bias = f"m = {size}, d_in = {width}: the bias", kernel_step(W, Z, labels, P, "0.1")[0, width]
        if width + 1 <= size:
            yield less("0", 0, f"{case} after a step", bias)
        else:
            yield require(f"{case} is 0 after a step, though its gradient is not", bias == 0)
    yield f"section 4: m = {MINI_BATCH}, and the bias is column 101 or 513"


def the_order_of_instances_matters() -> Iterator[Line]:
    """d_in = 1: P is the first entry of H⁻¹; the same inputs in one order and another."""
    one, other = reshaped_inverse([[0], [1], [3]], "0.1", 1)[0, 0], reshaped_inverse([[1], [0], [3]], "0.1", 1)[0, 0]
    yield "RBF, the smallest case: for m ≤ 2 its inverse has equal diagonals, and any order gives the same P"
    yield less("P of x = 0, 1, 3", one, "P of x = 1, 0, 3", other)
    yield "a polynomial kernel has other diagonals, and m = 2 will do: (xy + 1)² of x = 0, 1"
    entries = [fmpq_mat([[(x * y + 1) ** 2 for y in order] for x in order]).inv()[0, 0] for order in ((0, 1), (1, 0))]
    yield equal("P of x = 0, 1", entries[0], "4/3", fmpq(4, 3))
    yield equal("P of x = 1, 0", entries[1], "1/3", fmpq(1, 3))


def the_order_of_hidden_units_matters() -> Iterator[Line]:
    """m = 1, d_in = 2: only the first hidden unit learns, so swapping the two changes the loss after the step."""
    P = arb_mat([[1, 0], [0, 0]])
    W, labels = arb_mat(2, 2), [0]
    yield "P = diag(1, 0), W = 0, label 0, η = 0.1"
    losses = [mean_loss(kernel_step(W, Z, labels, P, "0.1"), Z, labels) for Z in (arb_mat([[2, 1]]), arb_mat([[1, 2]]))]
    yield less("J(W') with z = (2, 1)", losses[0], "J(W') with z = (1, 2)", losses[1])


CLAIMS = (
    Claim(
        name="reshaping-keeps-semidefiniteness",
        where="3.1, i and ii",
        statement="Padding and truncating the inverse keep what the Convergence Theorem needs of it.",
        verdict=Verdict.HOLDS,
        condition="for any positive semi-definite inverse or pseudoinverse",
        evidence=(
            Derivation(the_form_of_the_reshaped_matrix),
            Theorem("reshape_symmetric"),
            Theorem("reshape_keeps_psd"),
            Theorem("inverse_keeps_psd"),
            Theorem("reshaped_inverse_one_instance"),
            Property(f"{RESHAPE}::test_reshaping_keeps_a_matrix_positive_semidefinite"),
        ),
    ),
    Claim(
        name="truncated-inverse",
        where="3.1, ii",
        statement=(
            "Removing the last m − d_in rows and columns of H⁻¹ gives the inverse of the kernel matrix "
            "of the first d_in instances."
        ),
        verdict=Verdict.FAILS,
        condition="it inverts a Schur complement of all m instances, and dominates that inverse; equal just if H₁₂ = 0",
        evidence=(
            Derivation(the_truncated_inverse_inverts_a_schur_complement),
            Derivation(and_dominates_the_inverse_of_the_truncated_matrix),
            Certificate(strictly_so_for_two_inputs),
            Theorem("truncated_inverse_is_of_schur_complement"),
            Theorem("truncated_inverse_dominates"),
            Property(f"{RESHAPE}::test_leading_block_of_the_inverse_is_at_least_the_inverse_of_the_leading_block"),
            Property(f"{RESHAPE}::test_inverse_of_the_leading_block_of_the_inverse_is_the_schur_complement"),
        ),
        reading=True,
    ),
    Claim(
        name="padding-trains-the-layer",
        where="3.1, i, and supplement",
        statement="Padding only makes the product possible: the whole last layer is still trained.",
        verdict=Verdict.FAILS,
        condition="needs m ≥ d_in in some mini-batch; with m = 64, 36 % (width 100) or 87.5 % (512) never move",
        evidence=(
            Derivation(columns_beyond_m_do_not_move),
            Certificate(most_of_the_last_layer_is_frozen_in_the_paper),
            Theorem("frozen_column"),
            Theorem("frozen_forever"),
            Property("tests/claims/test_properties.py::test_columns_beyond_m_never_move"),
        ),
        reading=True,
    ),
    Claim(
        name="bias-as-an-element-of-w",
        where="3.3, after Eq. 6",
        statement="The bias can be left out, since it can be written as an element of W_i.",
        verdict=Verdict.HOLDS_IF,
        condition="its column is among the first m: appended last, it never moves for d_in ≥ m, as in section 4",
        evidence=(Derivation(columns_beyond_m_do_not_move), Certificate(a_bias_appended_last)),
    ),
    Claim(
        name="order-independence",
        where="3.1, i and ii, with Algorithm 1, line 3",
        statement=(
            "The step depends on the mini-batch as a set and on the network as a function, "
            "not on the order of instances or hidden units."
        ),
        verdict=Verdict.FAILS,
        condition=(
            "row a of H⁻¹ meets hidden unit a by position; smallest cases: m = 3, d_in = 1 for RBF; m = 2, d_in = 1 "
            "for a polynomial kernel; m = 1, d_in = 2 for hidden units"
        ),
        evidence=(
            Certificate(the_order_of_instances_matters),
            Certificate(the_order_of_hidden_units_matters),
            Property("tests/reference/test_symmetries.py::test_permuting_the_instances_alone_changes_the_step"),
        ),
        reading=True,
    ),
)
