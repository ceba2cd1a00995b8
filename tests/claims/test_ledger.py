"""The ledger says what became of every piece of evidence, in its table, in JSON and in its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from proofs import claims, ledger
from proofs.__main__ import app
from proofs.certificates import less
from proofs.claim import (
    Argument,
    Certificate,
    Claim,
    Derivation,
    Evidence,
    Line,
    Outcome,
    Property,
    Status,
    Theorem,
    Verdict,
)
from proofs.claims.symbolic import identity, sp

ROOT = Path(__file__).parents[2]


def shows() -> Iterator[Line]:
    yield "1 < 2"


def breaks() -> Iterator[Line]:
    yield "first"
    raise ArithmeticError("second")


def nothing() -> Iterator[Line]:
    yield from ()


def claim(*evidence: Evidence, verdict: Verdict = Verdict.HOLDS, condition: str = "", name: str = "c") -> Claim:
    return Claim(name, "section 0", "1 < 2", verdict, condition, evidence)


def command(monkeypatch: pytest.MonkeyPatch, of: tuple[Claim, ...], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(claims, "load", lambda: of)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout


@pytest.mark.parametrize(
    ("evidence", "verdict", "condition"),
    [
        ((), Verdict.HOLDS, ""),
        ((Property("a::b"),), Verdict.HOLDS, ""),
        ((Derivation(shows),), Verdict.FAILS, ""),
        ((Derivation(shows), Theorem("t"), Property("a::b")), Verdict.FAILS, ""),
        ((Derivation(shows),), Verdict.HOLDS_IF, ""),
    ],
)
def test_evidence_that_cannot_carry_the_verdict_is_refused(
    evidence: tuple[Evidence, ...], verdict: Verdict, condition: str
) -> None:
    with pytest.raises(ValueError, match="expected"):
        claim(*evidence, verdict=verdict, condition=condition)


def test_a_failure_keeps_the_lines_up_to_it_and_says_why() -> None:
    outcome = ledger.argue(Derivation(breaks))
    assert (outcome.status, outcome.lines, outcome.reason) == (Status.FAILED, ("first",), "ArithmeticError: second")


def test_evidence_that_shows_nothing_fails() -> None:
    assert ledger.argue(Certificate(nothing)).status is Status.FAILED


@pytest.mark.parametrize(("run", "code"), [(shows, 0), (breaks, 1)])
def test_exit_status_is_zero_only_if_the_evidence_checks(
    monkeypatch: pytest.MonkeyPatch, run: Argument, code: int
) -> None:
    assert command(monkeypatch, (claim(Derivation(shows)), claim(Certificate(run), name="d")))[0] == code


def test_what_is_not_checked_here_is_neither_checked_nor_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "find_spec", {}.get)
    absent = Outcome(Status.NOT_HERE, reason="no coqc")
    monkeypatch.setattr(ledger, "theorems", lambda names, _: dict.fromkeys(names, absent))
    code, output = command(monkeypatch, (claim(Derivation(shows), Theorem("t"), Property("tests/a.py::b")),))
    assert code == 3
    assert "1 of 3 pieces of evidence checked" in output
    assert "theorem t: not checked here: no coqc" in output
    assert "pytest and hypothesis not installed" in output


def test_json_is_the_whole_ledger_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = command(monkeypatch, (claim(Derivation(shows), Certificate(breaks)),), "--json")
    assert code == 1
    (found,) = json.loads(output)["claims"]
    assert {key: found[key] for key in ("name", "where", "statement", "verdict", "condition")} == {
        "name": "c",
        "where": "section 0",
        "statement": "1 < 2",
        "verdict": "HOLDS",
        "condition": "",
    }
    assert [(e["kind"], e["checked"], e["lines"]) for e in found["evidence"]] == [
        ("derivation", True, [{"text": "1 < 2", "proved": False}]),
        ("certificate", False, [{"text": "first", "proved": False}]),
    ]
    assert found["evidence"][1]["reason"] == "ArithmeticError: second"


def test_lines_that_were_proved_are_told_from_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def argues() -> Iterator[Line]:
        yield "in words"
        yield less("a", 1, "b", 2)
        yield "a formula", sp.Symbol("x")
        yield identity("an identity", sp.Symbol("x") * 2, sp.Symbol("x") + sp.Symbol("x"))

    of = (claim(Derivation(argues)),)
    _, output = command(monkeypatch, of, "--json")
    lines = json.loads(output)["claims"][0]["evidence"][0]["lines"]
    assert [line["proved"] for line in lines] == [False, True, False, True]
    assert [line.get("formula") for line in lines] == [None, None, "x", "2*x"]
    _, output = command(monkeypatch, of, "--claim", "c")
    assert "\n✓ a = 1 < b = 2\n  a formula:\n      x\n✓ an identity:\n      2⋅x\n" in output


def test_the_ledger_ends_with_what_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    two = (claim(Derivation(shows)), claim(Certificate(shows), name="d"))
    _, output = command(monkeypatch, two)
    assert "- 1 rest on equations that SymPy checks and on the words between them" in output
    assert "- 1 are arithmetic on numbers, the paper's tables or one example: d" in output


def test_readings_are_told_from_what_the_paper_states(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = claim(Certificate(shows), verdict=Verdict.FAILS)
    two = (stated, replace(stated, name="d", reading=True))
    _, output = command(monkeypatch, two)
    assert "2 claims: 0 HOLDS, 0 HOLDS_IF, 2 FAILS (1 of readings); 2 of 2 pieces" in output
    assert output.count("(a reading)") == 1
    _, output = command(monkeypatch, two, "--json")
    assert [found["reading"] for found in json.loads(output)["claims"]] == [False, True]
    assert "the paper does not state it so" in command(monkeypatch, two, "--claim", "d")[1]
    assert "the paper does not state it so" not in command(monkeypatch, two, "--claim", "c")[1]


def test_one_claim_is_printed_in_full_and_an_unknown_one_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    two = (claim(Derivation(shows)), claim(Derivation(breaks), name="d"))
    code, output = command(monkeypatch, two, "--claim", "c")
    assert code == 0
    assert "statement: 1 < 2" in output
    assert "\n  1 < 2" in output
    assert command(monkeypatch, two, "--claim", "d")[0] == 1
    assert command(monkeypatch, two, "--claim", "e")[0] == 2


@pytest.mark.parametrize("package", ["sympy", "flint"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package: str) -> None:
    code = f"""
import runpy, sys
sys.modules[{package!r}] = None
sys.argv = ["proofs"]
runpy.run_module("proofs", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert f"{package} is not installed" in run.stderr
    assert "kernel-sgd[proofs]" in run.stderr


def test_two_claims_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FILES", ("one_instance", "one_instance"))
    with pytest.raises(ValueError, match="twice"):
        claims.load()


def test_a_property_is_checked_where_it_ran_and_passed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase file="t.py" name="a[1]" time="1"/>'
        '<testcase file="t.py" name="a[2]" time="2"/>'
        '<testcase file="t.py" name="b[1]"/><testcase file="t.py" name="b[2]"><failure message="no"/></testcase>'
        '<testcase file="t.py" name="c"><skipped message="no GPU"/></testcase></testsuite></testsuites>'
    )
    outcomes = ledger.collected(report, ["t.py::a", "t.py::b", "t.py::c", "t.py::d"], "said")
    assert [(o.status, o.reason) for o in outcomes.values()] == [
        (Status.CHECKED, ""),
        (Status.FAILED, "no"),
        (Status.NOT_HERE, "no GPU"),
        (Status.FAILED, "pytest did not run it: said"),
    ]
    assert outcomes["t.py::a"].seconds == 3


def test_axioms_are_listed_theorem_by_theorem(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {
        "t": Outcome(Status.CHECKED, axioms=("classic",)),
        "u": Outcome(Status.CHECKED),
        "v": Outcome(Status.FAILED, reason="planted"),
    }
    monkeypatch.setattr(ledger, "theorems", lambda names, _: {name: results[name] for name in names})
    own = {"t": ("own axiom",), "u": ()}
    monkeypatch.setattr("proofs.rocq.THEOREMS", [SimpleNamespace(name=name) for name in results])
    monkeypatch.setattr(
        "proofs.rocq.assumptions", lambda theorems, **_: {each.name: own[each.name] for each in theorems}
    )
    of = (claim(Derivation(breaks), Theorem("t"), Theorem("u")), claim(Derivation(shows), Theorem("v"), name="d"))
    code, output = command(monkeypatch, of[:1], "--axioms")
    assert code == 0
    assert "own axiom" in output
    assert "classic" not in output  # of all theorems together
    assert "nothing" in output
    code, output = command(monkeypatch, of, "--axioms")
    assert code == 1
    assert "failed: planted" in output


def test_what_was_not_checked_here_is_not_said_to_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(Status.NOT_HERE, reason="no coqc")
    monkeypatch.setattr(ledger, "theorems", lambda names, _: dict.fromkeys(names, outcome))
    of = (
        claim(Derivation(shows), Theorem("t"), name="argued"),
        claim(Certificate(shows), Theorem("t"), name="counted"),
    )
    code, output = command(monkeypatch, (*of, claim(Theorem("t"), name="bare")))
    assert code == 3
    lines = [line for line in output.splitlines() if line.startswith("- ")]
    assert lines[0].startswith("- Rocq proves theorems for 0 claims")
    assert [line.rpartition(": ")[2] for line in lines[1:4]] == ["argued", "counted", "bare"]


@pytest.mark.slow
def test_all_properties_run_in_one_process_and_unknown_nodes_fail() -> None:
    known = Property("tests/reference/test_conditions.py::test_an_indefinite_p_has_no_safe_learning_rate")
    (entry,) = ledger.run([claim(Derivation(shows), known)])
    assert [outcome.status for outcome in entry.outcomes] == [Status.CHECKED, Status.CHECKED]
    (entry,) = ledger.run([claim(Derivation(shows), Property("tests/reference/test_conditions.py::test_of_nobody"))])
    assert entry.outcomes[1].status is Status.FAILED


@pytest.mark.slow
def test_the_command_prints_the_ledger() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "proofs", "--claim", "each-instance-of-a-mini-batch"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "FAILS" in run.stdout
    assert "2⋅uₖ⋅(Kₖₖ⋅uₖ + Kₖₗ⋅uₗ)" in run.stdout
