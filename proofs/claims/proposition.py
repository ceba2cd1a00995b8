"""The Proposition (section 3.3, Eq. 8): ‖vec(Ŵ* − Ŵ)‖ ≤ ‖vec(W* − W)‖, the optimum is closer in the projected space."""

from collections.abc import Iterator

from flint import arb, fmpq, fmpq_mat

from proofs.certificates import Proved, less, rational_matrix, rbf, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Theorem, Verdict
from proofs.claims.mini_batch import GRID
from proofs.claims.symbolic import SIZES, at_entries, identity, nonnegative, sp, vanishes, vanishes_at_sizes

n, d, n_c, j, a, b, c, r = sp.symbols("n d_in n_c j a b c r", integer=True, positive=True)
delta, S = sp.IndexedBase("Δ"), sp.IndexedBase("S")
pi = sp.IndexedBase(sp.Symbol("π", positive=True))


def distance_in_the_projected_space() -> Iterator[Line]:
    """‖ΔH^½‖² = tr(ΔHΔᵀ), Δ = W* − W, for symbolic n_c and d_in."""
    moved = sp.Sum(sp.Sum(delta[j, b] * S[b, a], (b, 1, d)) ** 2, (j, 1, n_c), (a, 1, d))
    kernel = sp.Sum(S[b, a] * S[c, a], (a, 1, d))
    form = sp.Sum(delta[j, b] * kernel * delta[j, c], (j, 1, n_c), (b, 1, d), (c, 1, d))
    yield "‖vec(Ŵ* − Ŵ)‖² with Ŵ = W·S, H = S·Sᵀ", form
    yield vanishes_at_sizes("‖ΔS‖² = tr(ΔHΔᵀ)", moved - form, (d, n_c))
    for size in (2, 3):
        D = sp.Matrix(2, size, lambda row, column: sp.Symbol(f"d{row}{column}"))
        root = sp.Matrix(size, size, lambda row, column: sp.Symbol(f"s{min(row, column)}{max(row, column)}"))
        vec = sp.kronecker_product(root, sp.eye(2)) * D.vec()
        vanishes("vec(ΔS) = (S ⊗ I)·vec(Δ)", sum(sp.expand(x) ** 2 for x in vec - (D * root).vec()))
    yield Proved("vec(ΔH^½) = (H^½ ⊗ I)·vec(Δ), the published proof's Newton step, at 2 × 2 and 2 × 3")


def closer_for_all_just_where_no_eigenvalue_exceeds_one() -> Iterator[Line]:
    """Σ_r π_r·δ_r² ≤ Σ_r δ_r² for all δ just where all π_r ≤ 1."""
    x = sp.IndexedBase("δ")
    gap = sp.Sum((1 - pi[r]) * x[r] ** 2, (r, 1, n))
    yield "‖Δ‖² − ‖ΔH^½‖² in the eigenvectors of H", gap
    yield nonnegative(
        "each term is ≥ 0 where π_r ≤ 1",
        [(1 - sp.Rational(p, 9)) * value**2 for p in range(1, 10) for value in at_entries(x, 3)],
    )
    alone = (1 - pi[1]) * x[1] ** 2
    yield identity("and δ along one eigenvector leaves its term", gap.subs(n, 2).doit().subs(x[2], 0), alone)
    yield "negative for π_1 > 1: the Proposition holds for all W* just where λ_max(H) ≤ 1"


def the_published_bound_is_the_trace() -> Iterator[Line]:
    """‖H^½ ⊗ I‖_F² = n_c·Σπ_i ≤ 1: sufficient, and n_c·n times more than is needed."""
    for size in SIZES:
        eigenvalues = sp.symbols(f"π1:{size + 1}", positive=True)
        root = sp.diag(*map(sp.sqrt, eigenvalues))
        big = sp.kronecker_product(root, sp.eye(3))
        vanishes("‖H^½ ⊗ I‖_F² = n_c·Σπ", sum(entry**2 for entry in big) - 3 * sum(eigenvalues))
    yield Proved("‖H^½ ⊗ I‖_F² = n_c·Σπ_i, at n = 2, 3, 4 and n_c = 3")
    yield "Σπ_i ≤ 1/n_c gives λ_max ≤ 1/n_c ≤ 1, so Eq. 8 holds; I has Σπ_i = n and Eq. 8 as well: it is not necessary"


def eq_8_fails_for_the_identity_times_two() -> Iterator[Line]:
    """H = [[2]]: Δ = 1 becomes √2."""
    H, delta_ = fmpq_mat([[2]]), fmpq_mat([[1]])
    form = (delta_ * H * delta_.transpose())[0, 0]
    yield less("‖W* − W‖² of Δ = 1", (delta_ * delta_.transpose())[0, 0], "‖Ŵ* − Ŵ‖², H = [[2]],", form)


def an_rbf_matrix_has_trace_n() -> Iterator[Line]:
    """k(x, x) = 1: Σπ_i = n ≥ 1 > 1/n_c; and λ_max ≥ 1ᵀH1/n = 1 + (1/n)Σ_{i≠j} k(x_i, x_j) > 1 for n ≥ 2."""
    size, gamma = sp.symbols("n γ", positive=True)
    yield identity("trace of an RBF matrix", sp.Sum(sp.exp(-gamma * 0), (r, 1, n)).doit().subs(n, size), size)
    k = sp.IndexedBase(sp.Symbol("k", positive=True))
    for number in SIZES:
        rows = range(number)
        H = sp.Matrix(number, number, lambda p, q: 1 if p == q else k[min(p, q), max(p, q)])
        quotient = sum(H) / sp.Integer(number)
        vanishes("", quotient - 1 - sum(2 * k[p, q] for p in rows for q in rows if p < q) / number)
    yield Proved("1ᵀH1/n = 1 + (2/n)·Σ_{i<j} k(x_i, x_j) > 1, at n = 2, 3, 4: k is positive at any finite distance")


def no_rbf_matrix_meets_the_assumption() -> Iterator[Line]:
    """Two inputs at distance 1, every γ of the grid: trace 2 > 1/2, and Δ = (1, 1) is moved away."""
    yield less("1/n_c for n_c = 2", fmpq(1, 2), "Σπ of two inputs", 2)
    for gamma in GRID:
        H = rbf([[0], [1]], gamma)
        form = sum((H[p, q] for p in range(2) for q in range(2)), arb(0))
        yield less(f"γ = {gamma}: ‖Δ‖² of Δ = (1, 1)", 2, "‖ΔH^½‖²", form)


def the_assumption_of_the_submission() -> Iterator[Line]:
    """Σπ_i = 2 is met by every RBF matrix of n = 2, and Eq. 8 fails for each: λ_max = 1 + k > 1."""
    k = sp.Symbol("k", positive=True)
    H = sp.Matrix([[1, k], [k, 1]])
    yield identity("trace", H.trace(), sp.Integer(2))
    yield vanishes(
        "its eigenvalues are 1 + k and 1 − k", H.charpoly(sp.Symbol("t")).as_expr() - ((sp.Symbol("t") - 1) ** 2 - k**2)
    )


def rescaling_changes_eq_8_and_nothing_else() -> Iterator[Line]:
    """H → cH and η → cη: the same W', while ‖ΔH^½‖² is multiplied by c."""
    eta, scale = sp.symbols("η c", positive=True)
    G, P = sp.symbols("G H⁻¹", commutative=False)
    yield vanishes("(cη)·G·(cH)⁻¹ = η·G·H⁻¹", eta * scale * G * P / scale - eta * G * P)
    x = sp.IndexedBase("δ")
    yield "‖Δ(cH)^½‖²", sp.Sum(scale * pi[r] * x[r] ** 2, (r, 1, n))
    yield "so any H ≻ 0 satisfies Eq. 8 after division by λ_max(H), and violates it when multiplied: one trajectory"


def one_trajectory_two_answers() -> Iterator[Line]:
    """H = [[2, 1], [1, 2]] and H/4, η = 1/10 and 1/40: the same step; Eq. 8 false for one, true for the other."""
    H = rational_matrix([[2, 1], [1, 2]])
    G = rational_matrix([[1, -3]])
    steps = [G * H.inv() * fmpq(1, 10), G * (H / 4).inv() * fmpq(1, 40)]
    yield require("G = (1, −3): η·G·H⁻¹ = (η/4)·G·(H/4)⁻¹", steps[0] == steps[1])
    ones = fmpq_mat([[1, 1]])
    form = (ones * H * ones.transpose())[0, 0]
    yield less("‖Δ‖² of Δ = (1, 1)", 2, "‖ΔH^½‖²", form)
    yield less("‖Δ(H/4)^½‖²", form / 4, "‖Δ‖²", 2)
    identity_ = rational_matrix([[1, 0], [0, 1]])
    yield require("3/4·I − H/4 ⪰ 0, so Eq. 8 holds for all Δ", semidefinite(identity_ * fmpq(3, 4) - H / 4))


PROPERTIES = "tests/claims/test_properties.py"

CLAIMS = (
    Claim(
        name="proposition",
        where="3.3, Proposition, Eq. 8",
        statement="For every W*, the optimum of the projected loss is no farther from Ŵ than W* from W.",
        verdict=Verdict.HOLDS_IF,
        condition="λ_max(H) ≤ 1, necessary and sufficient (H of size d_in); fails for every RBF matrix of n ≥ 2 inputs",
        evidence=(
            Derivation(distance_in_the_projected_space),
            Derivation(closer_for_all_just_where_no_eigenvalue_exceeds_one),
            Derivation(an_rbf_matrix_has_trace_n),
            Theorem("proposition"),
            Theorem("rbf_never_at_most_identity"),
            Certificate(eq_8_fails_for_the_identity_times_two),
            Certificate(no_rbf_matrix_meets_the_assumption),
            Property(
                f"{PROPERTIES}::test_eq_8_holds_where_no_eigenvalue_exceeds_one_and_fails_along_the_largest_otherwise"
            ),
        ),
    ),
    Claim(
        name="proposition-assumption-published",
        where="Proposition (published): sup Σπ_i = 1/n_c",
        statement="Kernel SGD's matrices meet the assumption under which Eq. 8 is proved.",
        verdict=Verdict.FAILS,
        condition="Σπ_i ≤ 1/n_c suffices for Eq. 8, but an RBF matrix has Σπ_i = n: none ever meets it",
        evidence=(
            Derivation(the_published_bound_is_the_trace),
            Derivation(an_rbf_matrix_has_trace_n),
            Theorem("proposition_under_the_trace_assumption"),
            Theorem("rbf_trace"),
            Theorem("rbf_never_meets_the_trace_assumption"),
            Certificate(no_rbf_matrix_meets_the_assumption),
        ),
    ),
    Claim(
        name="proposition-assumption-submission",
        where="3.3, Proposition, as the extracted text has it, sup Σπ_i = 2 (damaged; published: 1/n_c)",
        statement="With Σπ_i = 2, Eq. 8 holds.",
        verdict=Verdict.FAILS,
        condition="it allows λ_max = 2; every RBF matrix of two inputs meets it, and Eq. 8 fails for each",
        evidence=(
            Derivation(closer_for_all_just_where_no_eigenvalue_exceeds_one),
            Derivation(the_assumption_of_the_submission),
            Certificate(eq_8_fails_for_the_identity_times_two),
            Certificate(no_rbf_matrix_meets_the_assumption),
        ),
    ),
    Claim(
        name="closer-optimum-better-solution",
        where="1, 3, 3.3",
        statement="The optimum is closer in the projected space, so a better solution is more likely to be found.",
        verdict=Verdict.FAILS,
        condition="the distance is a matter of units: H → cH with η → cη gives the same iterates and any distance",
        evidence=(
            Derivation(rescaling_changes_eq_8_and_nothing_else),
            Certificate(one_trajectory_two_answers),
            Property("tests/claims/test_properties.py::test_rescaling_kernel_and_learning_rate_leaves_the_step"),
        ),
    ),
)
