"""The Rocq theorems compile from scratch and stand on the axioms of the real numbers alone; what would fake that fails.

The definitions that they speak of, at drawn inputs, enclose what `reference` returns to within its stated error.
"""

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import reference
from proofs import rocq
from proofs.rocq import compiler, enclosure, sources
from proofs.rocq.enclosure import Enclosure

Array = NDArray[np.float64]
U = 2.0**-53
THRESHOLD = 30


@pytest.fixture(scope="module")
def coqc() -> str:
    try:
        return compiler.coqc()
    except rocq.NotCheckedHereError as absent:
        return not_checked_here(absent)


def not_checked_here(absent: rocq.NotCheckedHereError) -> str:
    """Skip; where the machine is there to check, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"not checked here: {absent}")
    pytest.skip(f"not checked here: {absent}")


# The theorems


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_theorems_are_proved_on_the_axioms_of_the_real_numbers() -> None:
    checked = rocq.check()
    assert {theorem.name: (theorem.status, theorem.reason) for theorem in checked.values()} == {
        theorem.name: ("checked", "") for theorem in rocq.THEOREMS
    }
    for theorem in checked.values():
        assert theorem.axioms
        assert rocq.ALLOWED_AXIOMS.issuperset(theorem.axioms)
        assert theorem.statement.startswith(f"Theorem {theorem.name}")
    assert not [path for path in rocq.FOLDER.rglob("*") if path.suffix in (".vo", ".vok", ".vos", ".glob", ".aux")]


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_each_theorem_by_itself_names_its_axioms() -> None:
    two = [theorem for theorem in rocq.THEOREMS if theorem.name in ("rbf_trace", "proposition")]
    for axioms in rocq.assumptions(theorems=two).values():
        assert axioms
        assert rocq.ALLOWED_AXIOMS.issuperset(axioms)


def test_every_theorem_of_the_table_stands_in_its_file_and_every_file_in_the_table() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in rocq.FOLDER.glob("*.v")}
    listed = {(theorem.file, theorem.name) for theorem in rocq.THEOREMS}
    stated = {
        (file, words[1])
        for file, text in texts.items()
        for words in (line.split() for line in sources.without_comments(text).splitlines())
        if words[:1] == ["Theorem"]
    }
    assert listed == stated
    assert len({theorem.name for theorem in rocq.THEOREMS}) == len(rocq.THEOREMS)


def test_without_coqc_nothing_is_called_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    checked = rocq.check()
    assert {(theorem.status, theorem.reason) for theorem in checked.values()} == {("not checked here", "no coqc")}
    with pytest.raises(rocq.NotCheckedHereError, match="no coqc"):
        rocq.assumptions()
    with pytest.raises(rocq.NotCheckedHereError, match="no coqc"):
        enclosure.prove([])


# What would fake a proof


def planted(tmp_path: Path, text: str, header: str = "") -> dict[str, rocq.Checked]:
    """A folder with one file and one theorem, checked."""
    (tmp_path / "Planted.v").write_text(f"{header}\n{text}\n", encoding="utf-8")
    return rocq.check(tmp_path, [rocq.Theorem("planted", "Planted", "nowhere", "no words")])


WAYS_TO_ASSUME = {
    "Axiom": "Axiom easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Local Axiom": "Local Axiom easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Parameter": "Parameter easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Conjecture": "Conjecture easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Variable": "Variable easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Hypothesis": "Hypothesis easy : 0 = 1.\nTheorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Declare Module": "Module Type T. Parameter easy : 0 = 1. End T. Declare Module M : T.\n"
    "Theorem planted : 0 = 1.\nProof. exact M.easy. Qed.",
    "Admitted": "Theorem planted : 0 = 1.\nProof. Admitted.",
    "Admitted in a lemma": "Lemma easy : 0 = 1.\nProof. Admitted (* not *) .\n"
    "Theorem planted : 0 = 1.\nProof. exact easy. Qed.",
    "Unset Guard Checking": "Unset Guard Checking.\nFixpoint easy (n : nat) : 0 = 1 := easy n.\n"
    "Theorem planted : 0 = 1.\nProof. exact (easy 0). Qed.",
    "bypass_check": "#[bypass_check(guard)] Fixpoint easy (n : nat) : 0 = 1 := easy n.\n"
    "Theorem planted : 0 = 1.\nProof. exact (easy 0). Qed.",
}


@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize("way", WAYS_TO_ASSUME)
def test_source_that_assumes_is_refused(tmp_path: Path, way: str) -> None:
    result = planted(tmp_path, WAYS_TO_ASSUME[way])["planted"]
    assert result.status == "failed"
    assert "Planted.v contains the word " in result.reason


@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize("way", [way for way in WAYS_TO_ASSUME if way != "Admitted"])
def test_print_assumptions_sees_what_the_words_would_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(sources, "FORBIDDEN", frozenset())
    result = planted(tmp_path, WAYS_TO_ASSUME[way])["planted"]
    assert result.status == "failed"
    assert "easy" in result.reason


@pytest.mark.usefixtures("coqc")
def test_axiom_of_a_library_that_is_not_on_the_list_fails(tmp_path: Path) -> None:
    choice = (
        "Theorem planted (P : nat -> Prop) : (exists n, P n) -> {n : nat | P n}.\n"
        "Proof. apply constructive_indefinite_description. Qed."
    )
    result = planted(tmp_path, choice, "From Coq Require Import ClassicalEpsilon.")["planted"]
    assert result.status == "failed"
    assert "constructive_indefinite_description" in result.reason


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_only_the_theorem_that_assumes_too_much_fails(tmp_path: Path) -> None:
    (tmp_path / "Sound.v").write_text("Theorem sound : 1 = 1.\nProof. reflexivity. Qed.\n")
    choice = "Theorem planted (P : Prop) : {P} + {~ P}.\nProof. apply excluded_middle_informative. Qed.\n"
    (tmp_path / "Planted.v").write_text(f"From Coq Require Import ClassicalEpsilon.\n{choice}")
    table = [rocq.Theorem("sound", "Sound", "", ""), rocq.Theorem("planted", "Planted", "", "")]
    statuses = {name: theorem.status for name, theorem in rocq.check(tmp_path, table).items()}
    assert statuses == {"sound": "checked", "planted": "failed"}


@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Theorem planted : 0 = 1.\nProof. reflexivity. Qed.", "Unable to unify"),
        ("Theorem other : 1 = 1.\nProof. reflexivity. Qed.", "no Theorem of this name"),
        ("(* Theorem planted : 1 = 1.\nProof. reflexivity. Qed. *)", "no Theorem of this name"),
        ("Theorem planted : 1 = 1.\nProof. reflexivity. Qed.\nRequire Import Nowhere.", "a Require of Nowhere"),
        ("From KernelSGD Require Import Missing.", "Missing.v is not in the folder"),
        ("From KernelSGD Require Import Planted.", "Planted.v requires itself"),
    ],
)
def test_what_is_not_proved_fails_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    result = planted(tmp_path, text)["planted"]
    assert result.status == "failed"
    assert reason in result.reason


# The file, a theorem that it breaks, and what is put in place of what.
DAMAGE = {
    "4.01 for 4": ("MiniBatch", "mini_batch", "<= 4 * INR m *", "<= 401 / 100 * INR m *"),
    "8.1 for 8": ("MiniBatch", "mini_batch_of_these_residuals", "low k)) <= 8 *", "low k)) <= 81 / 10 *"),
    "above 3.9 for above 4": ("Sharpness", "four_cannot_be_raised", "4 < C", "39 / 10 < C"),
    "a fifth for a quarter": ("LogSumExp", "log_sum_exp_half_smooth", "/ 4 * square_norm n h", "/ 5 * square_norm n h"),
    "2 I for I": ("Proposition", "proposition", "v <= square_norm n v.", "v <= 2 * square_norm n v."),
    "trace 1 for n": ("Proposition", "rbf_trace", "(rbf_gram gamma d x) = INR n.", "(rbf_gram gamma d x) = 1."),
    "an unused axiom": ("Sums", "rbf_trace", "(** Sums are", "Axiom easy : 0 = 1.\n(** Sums are"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    file, name, old, new = DAMAGE[damage]
    for path in rocq.FOLDER.glob("*.v"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / f"{file}.v").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / f"{file}.v").write_text(text.replace(old, new), encoding="utf-8")
    result = rocq.check(tmp_path, [theorem for theorem in rocq.THEOREMS if theorem.name == name])[name]
    assert result.status == "failed"
    assert f"{file}.v" in result.reason


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a (* Axiom *) b", "a   b"),
        ("a (* (* Axiom *) Admitted *) b", "a    b"),
        ('a (* "*)" Axiom *) b', "a   b"),
        ('"(*" Axiom x. "*)"', '"" Axiom x. ""'),
        ('"say ""Axiom""" b', '"""""" b'),
    ],
)
def test_comments_and_strings_are_read_as_rocq_reads_them(text: str, code: str) -> None:
    assert sources.without_comments(text) == code


# The definitions at numbers


def rows(A: Array) -> list[list[Fraction]]:
    return [[Fraction(x) for x in row] for row in np.atleast_2d(A).tolist()]


def around(term: str, value: float, error: float) -> Enclosure:
    """The claim that the exact value lies within the stated error of the computed one."""
    return Enclosure(term, Fraction(value) - Fraction(error), Fraction(value) + Fraction(error))


def last_layer(seed: int) -> tuple[Array, Array, NDArray[np.int64], Array, float]:
    """W, Z, y, P, η of a last layer. Entries are quarters, so that the logits are exact in float64."""
    rng = np.random.default_rng(seed)
    n_c, m, d = rng.integers(2, 4), rng.integers(1, 4), rng.integers(1, 4)
    W, Z, A = (rng.integers(-12, 13, (k, d)) / 4 for k in (n_c, m, d))
    return W, Z, rng.integers(0, n_c, m), A.T @ A, float(rng.choice([0.1, 0.01, 0.001]))


def enclosures(seed: int) -> list[Enclosure]:
    """The loss, one entry of the step, and one entry of the RBF matrix of the features."""
    W, Z, y, P, eta = last_layer(seed)
    m, n_c, d = len(Z), len(W), len(P)
    logits = Z @ W.T
    below = logits.max(axis=1, keepdims=True) - logits
    J, dlogits = reference.softmax_cross_entropy(logits, y)
    loss_error = U * ((m + 2) * J + n_c + 3 + below[range(m), y].mean())

    # Each operation's stated error, and those before it carried through the products.
    G = reference.weight_gradient(dlogits, Z)
    softmax = np.exp(-below) / np.exp(-below).sum(axis=1, keepdims=True)
    dlogits_error = U * (softmax * (n_c + 3 + below) + np.eye(n_c)[y]) / m
    G_error = U * (m + 2) * np.abs(dlogits).T @ np.abs(Z) + dlogits_error.T @ np.abs(Z)
    after = reference.kernel_sgd_step(W, G, P, eta)
    step_error = U * (d + 2) * (np.abs(W) + eta * np.abs(G) @ np.abs(P)) + eta * G_error @ np.abs(P)
    j, a = seed % n_c, seed % d

    K = reference.gram(Z, "rbf", gamma=eta)
    k = seed % m
    spread = np.linalg.norm(Z - Z.mean(axis=0), axis=1)
    K_error = U * (d + 2) * K[0, k] * (1 + eta * (spread[0] + spread[k]) ** 2)

    entry = enclosure.batch_step_entry(rows(W), rows(Z), y.tolist(), rows(P), Fraction(eta), j, a)
    return [
        around(enclosure.batch_loss(rows(W), rows(Z), y.tolist()), float(J), THRESHOLD * loss_error),
        around(entry, after[j, a], THRESHOLD * step_error[j, a]),
        around(enclosure.rbf_entry(Fraction(eta), rows(Z), 0, k), K[0, k], THRESHOLD * K_error),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_definitions_at_drawn_inputs_enclose_what_reference_returns() -> None:
    drawn = [claim for seed in range(4) for claim in enclosures(seed)]
    # Within 10⁻¹¹ of each other: to enclose is to say something.
    assert all(claim.high - claim.low < Fraction(1, 10**11) * (1 + abs(claim.high)) for claim in drawn)
    try:
        enclosure.prove(drawn)
    except rocq.NotCheckedHereError as absent:
        not_checked_here(absent)


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_enclosure_of_another_value_is_refused(which: int) -> None:
    true = enclosures(3)[which]
    shift = 2 * (true.high - true.low)
    try:
        with pytest.raises(rocq.RefusedError, match="not proved"):
            enclosure.prove([Enclosure(true.term, true.low + shift, true.high + shift)])
    except rocq.NotCheckedHereError as absent:
        not_checked_here(absent)


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_enclosures_stand_on_real_numbers_and_machine_integers() -> None:
    try:
        axioms = enclosure.axioms(enclosures(0))
    except rocq.NotCheckedHereError as absent:
        not_checked_here(absent)
    assert not [axiom for axiom in axioms if not enclosure.is_allowed(axiom)]
