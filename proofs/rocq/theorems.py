"""The theorems that count, one a line: where each is proved, which place of the paper it belongs to, and its words.

A new theorem is a file in this folder (or a part of one) and a line here; what has no line is a lemma.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theorem:
    """A theorem's name in Rocq, the file that proves it (without .v), its place in the paper, and its words."""

    name: str
    file: str
    where: str
    words: str


# File, its place in the paper, and its theorems in the order of the file.
_TABLE = (
    ("Gradient", "Section 3.3, Eq. 6", {
        "gradient_is_derivative": "J's derivative in any direction D is ⟨G, D⟩, G = (softmax(f) − e_i)zᵀ",
    }),
    ("LogSumExp", "Section 3.3 for mini-batches", {
        "log_sum_exp_half_smooth": "ln Σ exp(f + h) ≤ ln Σ exp f + ⟨softmax(f), h⟩ + ¼‖h‖²",
        "log_sum_exp_range": "ln Σ exp(f + h) ≤ ln Σ exp f + ⟨softmax(f), h⟩ + ⅛(b − a)² where all h_j are in [a, b]",
    }),
    ("OneInstance", "Section 3.3, Convergence Theorem, Eq. 7", {
        "margins_grow": "where η ≥ 0 and zᵀPz ≥ 0, no margin f_i − f_j of the label shrinks",
        "one_instance_any_step": "where zᵀPz ≥ 0, J(W') ≤ J(W) for every η ≥ 0",
        "one_instance": "for η > 0 and n_c ≥ 2, J(W') ≤ J(W) exactly where zᵀPz ≥ 0",
        "one_instance_strict": "for η > 0 and n_c ≥ 2, J(W') < J(W) exactly where zᵀPz > 0",
        "convergence_theorem": "for n_c ≥ 2, J(W') ≤ J(W) for all W, labels and η ≥ 0 if and only if zᵀPz ≥ 0",
    }),
    ("Reshape", "Section 3.1, reshaping", {
        "reshape_symmetric": "padding and truncation keep symmetry",
        "reshape_keeps_psd": "padding and truncation keep positive semi-definiteness",
        "inverse_keeps_psd": "the inverse of a positive semi-definite matrix is positive semi-definite",
        "reshaped_inverse_one_instance": "J(W') ≤ J(W) for every η ≥ 0 and P the reshaped inverse of any PSD H",
    }),
    ("Schur", "Section 3.1, truncation", {
        "truncated_inverse_is_of_schur_complement": "the leading block of [A B; C D]⁻¹ is the inverse of A − B·D⁻¹·C",
        "truncated_inverse_dominates": "for symmetric PSD H with leading block A, vᵀA⁻¹v ≤ vᵀ(H⁻¹)₁₁v for all v",
    }),
    ("FrozenColumns", "Section 3.1, padding", {
        "frozen_column": "a column of W does not move where the same column of P is 0, whatever G is",
        "frozen_forever": "columns of W beyond m never move, in any number of steps with any G, η and inverses",
    }),
    ("MiniBatch", "Section 3.3 for mini-batches", {
        "mini_batch_feature_gram": "for ZPZᵀ symmetric and PSD and η·λ_max(ZPZᵀ/m) ≤ 4, the mean loss does not rise",
        "mini_batch": "for P symmetric and PSD and η·λ_max(ZPZᵀ/m) ≤ 4, the mean loss does not rise",
        "mini_batch_of_these_residuals": "where η·Σ_k range((KR)_k)² ≤ 8⟨R, KR⟩, K = ZPZᵀ/m, it does not rise",
    }),
    ("Counterexample", "Section 3.3 for mini-batches", {
        "loss_rises_on_the_whole_grid": "one W and batch of two where it rises for all η, γ in {0.1, …, 0.0001}",
    }),
    ("Sharpness", "Section 3.3 for mini-batches", {
        "four_cannot_be_raised": "for all C > 4 and n_c ≥ 2, the mean loss can rise with η·λ_max(ZPZᵀ/m) ≤ C and P = I",
    }),
    ("Proposition", "Section 3.3, Proposition, Eq. 8", {
        "proposition": "‖Ŵ* − Ŵ‖ ≤ ‖W* − W‖ for all W* and W if and only if H ≤ I",
        "proposition_under_the_trace_assumption": "trace H = Σπ ≤ 1/n_c is sufficient for Eq. 8",
        "rbf_trace": "the trace of an n × n RBF matrix is n",
        "rbf_never_meets_the_trace_assumption": "for n_c ≥ 2 no RBF matrix has Σπ ≤ 1/n_c",
        "rbf_never_at_most_identity": "no RBF matrix of two or more instances has H ≤ I",
    }),
)  # fmt: skip

THEOREMS = tuple(
    Theorem(name, file, where, words) for file, where, theorems in _TABLE for name, words in theorems.items()
)

# What the standard library's real numbers stand on: excluded middle, the two forms of it that decide (for statements
# about all natural numbers, and for negations), and that functions with equal values are equal.
ALLOWED_AXIOMS = frozenset(
    {
        "ClassicalDedekindReals.sig_forall_dec",
        "ClassicalDedekindReals.sig_not_dec",
        "Classical_Prop.classic",
        "FunctionalExtensionality.functional_extensionality_dep",
    }
)
