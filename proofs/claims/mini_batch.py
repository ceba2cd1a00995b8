"""Convergence Theorem (Eq. 7) as Algorithm 1 uses it: the mean loss of a mini-batch of m instances, all labels at once.

With K = ZPZᵀ/m and R = softmax − one-hot, the step moves the logits by −η·KR. Taylor's formula, Popoviciu's bound on a
variance and the eigenvalues of K give η·λ_max(K) ≤ 4, and two equal instances with different labels show that no larger
constant will do.
"""

from collections.abc import Iterator
from itertools import product

from flint import arb, arb_mat, fmpq

from proofs.certificates import kernel_step, less, logits, mean_loss, reshaped_inverse, softmax
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Theorem, Verdict
from proofs.claims.symbolic import SIZES, at_entries, identity, nonnegative, sp, vanishes, vanishes_at_sizes

BOUND = 4
GRID = ("0.1", "0.01", "0.001", "0.0001")  # of η and of γ, section 4.1

n, m, d, j, k, h, a, b, r = sp.symbols("n_c m d_in j k l a b r", integer=True, positive=True)
eta, top = sp.symbols("η λ_max", positive=True)
t, mu, low, high = sp.symbols("t μ low high", real=True)
f, v, F, W, Z, P, R = (sp.IndexedBase(name) for name in ("f", "v", "F", "W", "Z", "P", "R"))
q, kappa, rho = (sp.IndexedBase(sp.Symbol(name, positive=True)) for name in ("q", "κ", "ρ"))
classes, instances = (j, 1, n), (r, 1, m)


def the_step_moves_the_logits_by_the_kernel() -> Iterator[Line]:
    """F' = F − η·KR with K = ZPZᵀ/m, for symbolic m, n_c, d_in and symmetric P."""
    gradient_ = sp.Sum(R[h, j] * Z[h, b], (h, 1, m)) / m
    moved = sp.Sum(Z[k, a] * (W[j, a] - eta * sp.Sum(gradient_ * P[b, a], (b, 1, d))), (a, 1, d))
    kernel = sp.Sum(Z[k, a] * P[b, a] * Z[h, b], (a, 1, d), (b, 1, d)) / m
    straight = sp.Sum(Z[k, a] * W[j, a], (a, 1, d)) - eta * sp.Sum(kernel * R[h, j], (h, 1, m))
    statement = "F'_kj = F_kj − η·Σ_l K_kl R_lj"
    yield "K_kl, symmetric with P", kernel
    yield vanishes_at_sizes(statement, moved - straight, (m, d), {k: 2, j: 1})


def the_second_derivative_is_a_variance() -> Iterator[Line]:
    """d²/dt² ln Σ_j exp(f_j + t·v_j) = Var_q(v), q = softmax(f + t·v), for symbolic n_c."""
    weight = sp.exp(f[j] + t * v[j])
    total, first, second = (sp.Sum(v[j] ** power * weight, classes) for power in range(3))
    curvature = sp.diff(sp.log(total), t, 2)
    variance = second / total - (first / total) ** 2
    yield identity(
        "Second derivative of log-sum-exp along v: E[v²] − E[v]² under softmax(f + t·v)", curvature, variance
    )


def a_variance_is_at_most_half_a_squared_norm() -> Iterator[Line]:
    """Popoviciu: Var_q(v) ≤ range(v)²/4, and range(v)² ≤ 2‖v‖²."""
    variance = sp.Sum(q[j] * v[j] ** 2, classes) - mu**2
    products = sp.Sum(sp.expand(q[j] * (high - v[j]) * (v[j] - low)), classes).expand()
    moments = {sp.Sum(q[j] * v[j], classes): mu, sp.Sum(q[j], classes): 1}
    yield vanishes(
        "(high − μ)(μ − low) − Var_q(v) = Σ_j q_j·(high − v_j)(v_j − low), which is ≥ 0 for low ≤ v ≤ high",
        (high - mu) * (mu - low) - variance - _moments(products, moments),
    )
    yield identity(
        "(high − low)²/4 − (high − μ)(μ − low) is a square",
        (high - low) ** 2 / 4 - (high - mu) * (mu - low),
        sp.expand((mu - (high + low) / 2) ** 2),
    )
    yield identity(
        "2(high² + low²) − (high − low)² is a square", 2 * (high**2 + low**2) - (high - low) ** 2, (high + low) ** 2
    )
    gaps = []
    for number in SIZES:
        weights, values = at_entries(q, number), at_entries(v, number, 1)
        weights = [weight / sum(weights) for weight in weights]
        mean = sum(w * x for w, x in zip(weights, values, strict=True))
        spread = (max(values) - min(values)) ** 2
        gaps.append(spread / 4 - sum(w * (x - mean) ** 2 for w, x in zip(weights, values, strict=True)))
        gaps.append(2 * sum(x**2 for x in values) - spread)
    yield nonnegative("So Var_q(v) ≤ range(v)²/4 ≤ ‖v‖²/2", gaps)


def _moments(expression: "sp.Expr", moments: "dict[sp.Sum, sp.Expr]") -> "sp.Expr":
    """The expression with constants out of its sums and moments of q in place of what they are."""
    return sum(
        sp.Mul(*(x for x in sp.Mul.make_args(part.function) if not x.has(j)))
        * _moment(sp.Mul(*(x for x in sp.Mul.make_args(part.function) if x.has(j))), factor, moments)
        for term in sp.Add.make_args(expression)
        for factor, part in [term.as_independent(sp.Sum)]
    )


def _moment(summand: "sp.Expr", factor: "sp.Expr", moments: "dict[sp.Sum, sp.Expr]") -> "sp.Expr":
    total = sp.Sum(summand, classes)
    return factor * moments.get(total, total)


def no_rise_up_to_four_over_the_largest_eigenvalue() -> Iterator[Line]:
    """J' − J ≤ −(η/m)·Σ_r κ_r(1 − η·κ_r/4)·ρ_r, over the eigenvalues κ_r of K, ρ_r = ‖u_rᵀR‖²."""
    slope = -(eta / m) * sp.Sum(kappa[r] * rho[r], instances)
    curvature = sp.Sum(kappa[r] ** 2 * rho[r], instances) / (2 * m)
    yield "Slope −(η/m)⟨R, KR⟩ in the eigenvectors of K", slope
    yield "Half the curvature: (η²/2m)·Σ_k Var ≤ (η²/2m)·‖KR‖²/2", eta**2 * curvature / 2
    together = -(eta / m) * sp.Sum(kappa[r] * (1 - eta * kappa[r] / BOUND) * rho[r], instances)
    statement = f"Together −(η/m)·Σ_r κ_r·(1 − η·κ_r/{BOUND})·ρ_r"
    yield statement, together
    yield vanishes_at_sizes(statement, slope + eta**2 * curvature / 2 - together, m)
    yield f"every factor is ≥ 0 for 0 ≤ κ_r ≤ {BOUND}/η, so J(W') ≤ J(W)"
    yield "a diagonal K moves every instance along its own residual, as if alone: then K ⪰ 0 is enough, at any η"


def four_is_reached_in_the_limit() -> Iterator[Line]:
    """Two equal instances, labels 0 and 1, λ_max(K) = 1: the margin x becomes x − 2η(σ(x) − ½)."""
    x = sp.Symbol("x", positive=True)
    sigma = 1 / (1 + sp.exp(-x))
    loss = (sp.log(1 + sp.exp(-x)) + sp.log(1 + sp.exp(x))) / 2
    yield identity("J as a function of the margin x is even", loss, loss.subs(x, -x))
    slope = sp.diff(loss, x)
    yield vanishes("dJ/dx = σ(x) − ½ > 0 for x > 0: J grows with |x|", slope - (sigma - sp.Rational(1, 2)))
    ratio = sp.limit((x - 2 * eta * (sigma - sp.Rational(1, 2))) / x, x, 0)
    yield "The step multiplies a small margin by", ratio
    yield vanishes(
        "It is −1 at the bound, and below −1 for every larger η: J rises for x small enough", ratio.subs(eta, BOUND) + 1
    )


def above_four_the_loss_can_rise_for_every_number_of_classes() -> Iterator[Line]:
    """η·λ_max(K) = 4.01: two equal instances z = 1 with labels 0 and 1, and any number of further classes."""
    lr, margin = arb(fmpq(BOUND * 100 + 1, 100)), fmpq(1, 20)
    yield f"m = 2, Z = (1, 1)ᵀ, P = 1, so λ_max(K) = 1; η = {BOUND}.01; weights ±1/40 of classes 0 and 1"
    # N further classes share the weight −ln(N·10²⁰): together they weigh 10⁻²⁰ whatever N, and 0 for N = 0.
    rest = arb(fmpq(1, 2 * 10**20), fmpq(1, 2 * 10**20))
    yield "further classes, if any: N of weight −ln(N·10²⁰) each; the ball [0, 10⁻²⁰] of their sum covers all N"
    w = [arb(margin / 2), arb(-margin / 2)]
    weights = [x.exp() for x in w]
    total = weights[0] + weights[1] + rest
    moved = [x - lr * (e / total - fmpq(1, 2)) for x, e in zip(w, weights, strict=True)]
    # One of them falls by η·p with 0 ≤ p ≤ rest/total.
    rest_after = rest * (-lr * rest / total).exp().union(arb(1))
    before = total.log() - sum(w) / 2
    after = (moved[0].exp() + moved[1].exp() + rest_after).log() - sum(moved) / 2
    yield less("J(W)", before, "J(W')", after)


def the_whole_grid_of_the_paper_is_unsafe() -> Iterator[Line]:
    """For each of the 16 pairs (η, γ): two inputs 1/1000 apart with different labels, one linear layer."""
    X = [["1", "0"], ["1", "0.001"]]
    W_, Z_, labels = arb_mat([[1, 0], [0, 0]]), arb_mat([[1, 0], [1, fmpq(1, 1000)]]), [0, 1]
    yield "x₁ = (1, 0) of class 0, x₂ = (1, 1/1000) of class 1, features = inputs, W = [[1, 0], [0, 0]]"
    before = mean_loss(W_, Z_, labels)
    for gamma, lr in product(GRID, GRID):
        P_ = reshaped_inverse(X, gamma, 2)
        after = mean_loss(kernel_step(W_, Z_, labels, P_, lr), Z_, labels)
        yield less(f"η = {lr}, γ = {gamma}: J(W)", before, "J(W')", after)


def the_sharper_bound() -> Iterator[Line]:
    """J' − J ≤ −(η/m)⟨R, KR⟩ + (η²/8m)·Σ_k range((KR)_k)², before anything is known of K."""
    slope, spread = sp.Symbol("⟨R,KR⟩", positive=True), sp.Symbol("Σrange²", positive=True)
    rise = -(eta / m) * slope + eta**2 * spread / (8 * m)
    bound = 8 * slope / spread
    yield "Taylor and Popoviciu alone: J' − J is at most", rise
    yield identity("It is a product", rise, -eta / m * slope * (1 - eta / bound))
    yield "so J(W') ≤ J(W) up to", bound
    yield identity(
        "Σ range² ≤ 2‖KR‖² ≤ 2λ_max⟨R, KR⟩ make it at least", bound.subs(spread, 2 * top * slope), BOUND / top
    )


def the_sharper_bound_allows_more() -> Iterator[Line]:
    """Two instances of one class: 8⟨R, KR⟩/Σ range² is above 4/λ_max(K), here by a factor above 10."""
    W_, Z_ = arb_mat([[0, 0], [0, 0]]), arb_mat([[1, 0], [0, 1]])
    K = Z_ * reshaped_inverse([[1, 0], [0, 1]], "0.1", 2) * Z_.transpose() / 2
    yield "x₁ = (1, 0), x₂ = (0, 1), both of class 0, features = inputs, W = 0, γ = 0.1"
    mean, half = (K[0, 0] + K[1, 1]) / 2, (K[0, 0] - K[1, 1]) / 2
    largest = mean + (half * half + K[0, 1] * K[0, 1]).sqrt()
    yield less("10 · 4/λ_max(K)", 10 * BOUND / largest, "8⟨R, KR⟩/Σ range²", _sharper_bound(K, logits(W_, Z_)))


def an_indefinite_kernel_has_no_floor() -> Iterator[Line]:
    """Z = I, P = diag(1, −1), both of class 0: ⟨R, KR⟩ < 0, so no η > 0 meets the bound, and 4/λ_max(K) = 8."""
    W_, Z_, P_ = arb_mat([[1, 0], [0, 0]]), arb_mat([[1, 0], [0, 1]]), arb_mat([[1, 0], [0, -1]])
    K = Z_ * P_ * Z_.transpose() / 2
    yield "Z = I, P = diag(1, −1), W = [[1, 0], [0, 0]], labels 0 and 0"
    yield less("8⟨R, KR⟩/Σ range²", _sharper_bound(K, logits(W_, Z_)), "0", 0)
    after = kernel_step(W_, Z_, [0, 0], P_, 8)
    yield less("J(W)", mean_loss(W_, Z_, [0, 0]), "J(W'), η = 4/λ_max(K) = 8", mean_loss(after, Z_, [0, 0]))


def _sharper_bound(K: arb_mat, F: arb_mat) -> arb:
    """8⟨R, KR⟩/Σ range((KR)_k)² of two classes, all labels 0."""
    residual = arb_mat([[p - (c == 0) for c, p in enumerate(softmax(row))] for row in F.tolist()])
    change = (K * residual).tolist()
    pairs = zip(residual.tolist(), change, strict=True)
    slope = sum((x * y for xs, ys in pairs for x, y in zip(xs, ys, strict=True)), arb(0))
    return 8 * slope / sum(((x - y) ** 2 for x, y in change), arb(0))


CONDITIONS = "tests/reference/test_conditions.py"

CLAIMS = (
    Claim(
        name="mini-batch-mean",
        where="3.3, Eq. 7, with Algorithm 1",
        statement="The step of the last layer does not raise the mean loss of its mini-batch.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            f"ZPZᵀ ⪰ 0 and η·λ_max(ZPZᵀ/m) ≤ {BOUND}, whatever W, labels and n_c, sharp as a function of λ_max (any η "
            "does where ZPZᵀ is diagonal, as for m = 1); "
            "for every η and γ of the paper's grid there are mini-batches for which it fails"
        ),
        evidence=(
            Derivation(the_step_moves_the_logits_by_the_kernel),
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_variance_is_at_most_half_a_squared_norm),
            Derivation(no_rise_up_to_four_over_the_largest_eigenvalue),
            Certificate(the_whole_grid_of_the_paper_is_unsafe),
            Theorem("mini_batch"),
            Theorem("mini_batch_feature_gram"),
            Theorem("loss_rises_on_the_whole_grid"),
            Property("tests/claims/test_properties.py::test_the_counterexample_of_the_grid_raises_the_computed_loss"),
            Property(f"{CONDITIONS}::test_loss_does_not_rise_up_to_four_over_the_largest_eigenvalue"),
            Property(
                "tests/claims/test_properties.py::test_max_learning_rate_of_the_reference_is_four_over_the_exact_eigenvalue"
            ),
            Property(
                "tests/claims/test_properties.py::test_mini_batch_step_of_torch_does_not_raise_the_loss_up_to_the_bound"
            ),
            Property("tests/claims/test_properties.py::test_the_step_of_reference_encloses_eq_5"),
        ),
    ),
    Claim(
        name="mini-batch-constant",
        where="3.3, Eq. 7, with Algorithm 1",
        statement=f"In η·λ_max(ZPZᵀ/m) ≤ {BOUND} no larger constant will do, for any number of classes n_c ≥ 2.",
        verdict=Verdict.HOLDS,
        condition="",
        evidence=(
            Derivation(four_is_reached_in_the_limit),
            Certificate(above_four_the_loss_can_rise_for_every_number_of_classes),
            Theorem("four_cannot_be_raised"),
            Property(f"{CONDITIONS}::test_four_cannot_be_replaced_by_a_larger_number"),
        ),
        reading=True,
    ),
    Claim(
        name="mini-batch-data-dependent",
        where="3.3, Eq. 7, with Algorithm 1",
        statement="For given W and labels the step does not raise the mean loss.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            "η·Σ_k range((KR)_k)² ≤ 8⟨R, KR⟩, K = ZPZᵀ/m, P symmetric; for K ⪰ 0 never below 4/λ_max(K); K may be "
            "indefinite, then without that floor"
        ),
        evidence=(
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_variance_is_at_most_half_a_squared_norm),
            Derivation(the_sharper_bound),
            Certificate(the_sharper_bound_allows_more),
            Certificate(an_indefinite_kernel_has_no_floor),
            Theorem("log_sum_exp_range"),
            Theorem("mini_batch_of_these_residuals"),
            Property(f"{CONDITIONS}::test_loss_does_not_rise_up_to_the_sharp_learning_rate"),
            Property("tests/claims/test_properties.py::test_sharp_learning_rate_of_the_reference_is_the_exact_formula"),
            Property(f"{CONDITIONS}::test_sharp_learning_rate_is_never_below_the_one_for_all_labels"),
            Property("tests/gpu/test_monotone.py::test_a_monotone_step_of_the_last_layer_does_not_raise_the_loss"),
        ),
        reading=True,
    ),
)
