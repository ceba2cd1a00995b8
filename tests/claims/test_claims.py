"""Every claim's derivations and certificates check; the properties and theorems that claims name exist."""

import ast
from pathlib import Path

import pytest

from proofs import ledger, rocq
from proofs.claim import Certificate, Claim, Derivation, Property, Status, Theorem
from proofs.claims import FILES, load
from proofs.claims.tables import sentences

ROOT = Path(__file__).parents[2]
CLAIMS = load()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_derivations_and_certificates_check(claim: Claim) -> None:
    pieces = [piece for piece in claim.evidence if isinstance(piece, Derivation | Certificate)]
    failed = {
        piece.name: outcome.reason for piece in pieces if (outcome := ledger.argue(piece)).status is Status.FAILED
    }
    assert pieces
    assert failed == {}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_claims_say_what_where_and_under_which_condition(claim: Claim) -> None:
    assert claim.statement.endswith(".")
    assert claim.where
    assert claim.name == claim.name.lower().replace(" ", "-")


def test_every_file_of_claims_stands_in_the_table() -> None:
    shared = {"__init__", "symbolic", "tables"}
    assert {path.stem for path in (ROOT / "proofs" / "claims").glob("*.py")} - shared == set(FILES)


def test_every_claim_answers_a_sentence_of_the_paper_and_every_answer_exists() -> None:
    answered = {name for sentence in sentences() for name in sentence.claims}
    assert answered == {claim.name for claim in CLAIMS}


def test_sentences_are_quoted_by_a_few_words_only() -> None:
    assert max(len(sentence.words.split()) for sentence in sentences()) <= 12


def test_properties_named_as_evidence_exist() -> None:
    nodes = {piece.name for claim in CLAIMS for piece in claim.evidence if isinstance(piece, Property)}
    for node in nodes:
        file, _, name = node.partition("::")
        functions = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        assert name in {function.name for function in functions if isinstance(function, ast.FunctionDef)}, node


def test_theorems_named_as_evidence_are_those_of_rocq() -> None:
    named = {piece.name for claim in CLAIMS for piece in claim.evidence if isinstance(piece, Theorem)}
    assert named <= {theorem.name for theorem in rocq.THEOREMS}
