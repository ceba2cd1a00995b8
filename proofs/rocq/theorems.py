"""The theorems that count, one a line: where each is proved, which place of the paper it belongs to, and its words.

A new theorem is a file in this folder (or a part of one) and a line here; what has no line is a lemma.
"""

from dataclasses import dataclass

CONVERGENCE = "Section 3.3, Convergence Theorem, Eq. 7"
RESHAPING = "Section 3.1, reshaping"
PROPOSITION = "Section 3.3, Proposition, Eq. 8"
ALGORITHM = "Section 3.3 for the mini-batches of Algorithm 1"


@dataclass(frozen=True)
class Theorem:
    """A theorem's name in Rocq, the file that proves it (without .v), its place in the paper, and its words."""

    name: str
    file: str
    where: str
    words: str


THEOREMS = (
    Theorem(
        "gradient_is_derivative",
        "Gradient",
        "Section 3.3, Eq. 6",
        "J's derivative in any direction D is ⟨(p − e_i)zᵀ, D⟩",
    ),
    Theorem("margins_grow", "OneInstance", CONVERGENCE, "where η ≥ 0 and zᵀPz ≥ 0, no margin f_i − f_j shrinks"),
    Theorem("one_instance_any_step", "OneInstance", CONVERGENCE, "zᵀPz ≥ 0 gives J(W') ≤ J(W) for every η ≥ 0"),
    Theorem("one_instance", "OneInstance", CONVERGENCE, "for η > 0 and n_c ≥ 2, J(W') ≤ J(W) exactly where zᵀPz ≥ 0"),
    Theorem("one_instance_strict", "OneInstance", CONVERGENCE, "… and J(W') < J(W) exactly where zᵀPz > 0"),
    Theorem("convergence_theorem", "OneInstance", CONVERGENCE, "J(W') ≤ J(W) for all W, labels and η, iff zᵀPz ≥ 0"),
    Theorem("reshape_symmetric", "Reshape", RESHAPING, "padding and truncation keep symmetry"),
    Theorem("reshape_keeps_psd", "Reshape", RESHAPING, "padding and truncation keep positive semi-definiteness"),
    Theorem("inverse_keeps_psd", "Reshape", RESHAPING, "the inverse of a positive semi-definite H is so, too"),
    Theorem(
        "reshaped_inverse_one_instance", "Reshape", CONVERGENCE, "J(W') ≤ J(W) for P the reshaped inverse of any PSD H"
    ),
    Theorem(
        "frozen_column", "FrozenColumns", RESHAPING, "a column of W moves by η·G times P's column: not where that is 0"
    ),
    Theorem(
        "frozen_forever", "FrozenColumns", RESHAPING, "columns of W beyond m never move, whatever G, η and the inverses"
    ),
    Theorem(
        "log_sum_exp_half_smooth", "LogSumExp", ALGORITHM, "ln Σ exp(f + h) ≤ ln Σ exp f + ⟨softmax(f), h⟩ + ¼‖h‖²"
    ),
    Theorem("mini_batch", "MiniBatch", ALGORITHM, "for P PSD and η·λ_max(ZPZᵀ/m) ≤ 4, the mean loss does not rise"),
    Theorem("mini_batch_feature_gram", "MiniBatch", ALGORITHM, "… and ZPZᵀ PSD is enough, whatever P is"),
    Theorem(
        "four_cannot_be_raised", "Counterexample", ALGORITHM, "for every C > 4, η·λ_max ≤ C lets the mean loss rise"
    ),
    Theorem(
        "loss_rises_on_the_whole_grid",
        "Counterexample",
        ALGORITHM,
        "the mean loss rises for all η and γ in {0.1, 0.01, 0.001, 0.0001}, at one W and one batch of two",
    ),
    Theorem("proposition", "Proposition", PROPOSITION, "‖Ŵ* − Ŵ‖ ≤ ‖W* − W‖ for all W*, W if and only if H ≤ I"),
    Theorem(
        "proposition_under_the_trace_assumption",
        "Proposition",
        PROPOSITION,
        "trace H = Σπ ≤ 1/n_c is sufficient for Eq. 8",
    ),
    Theorem("rbf_trace", "Proposition", PROPOSITION, "the trace of an n × n RBF matrix is n"),
    Theorem(
        "rbf_never_meets_the_trace_assumption",
        "Proposition",
        PROPOSITION,
        "an RBF matrix never has Σπ ≤ 1/n_c for n_c ≥ 2",
    ),
    Theorem(
        "rbf_never_at_most_identity", "Proposition", PROPOSITION, "an RBF matrix of n ≥ 2 instances never has H ≤ I"
    ),
)

# What the real numbers of the standard library stand on: excluded middle, two forms of it for sets of numbers, and the
# equality of functions that agree everywhere.
ALLOWED_AXIOMS = frozenset(
    {
        "ClassicalDedekindReals.sig_forall_dec",
        "ClassicalDedekindReals.sig_not_dec",
        "Classical_Prop.classic",
        "FunctionalExtensionality.functional_extensionality_dep",
    }
)
