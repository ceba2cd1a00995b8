"""Runs the evidence of claims and says what became of it. Nothing that did not run counts as checked.

Derivations and certificates run here, at one fixed precision of the balls; properties run in one pytest process for the
whole ledger, beside them; theorems are looked up in what `proofs.rocq` reports of one compilation.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

from flint import ctx

from proofs.certificates import PRECISION, Proved
from proofs.claim import Certificate, Claim, Derivation, Evidence, Line, Outcome, Property, Status, Theorem, Verdict
from proofs.claims.tables import sentences_of

ROOT = Path(__file__).parents[1]

OnStep = Callable[[str], None]


class TheoremResult(Protocol):
    """What `proofs.rocq` says of one theorem."""

    @property
    def status(self) -> str:
        """Checked, failed, or not checked here: a value of `Status`."""

    @property
    def reason(self) -> str:
        """Why it is not checked."""

    @property
    def axioms(self) -> Sequence[str]:
        """What it assumes, by name."""


@dataclass(frozen=True)
class Piece:
    """A piece of evidence of a claim, and what became of it."""

    claim: Claim
    evidence: Evidence
    outcome: Outcome


@dataclass(frozen=True)
class Entry:
    """A claim and the outcome of each piece of its evidence, in order."""

    claim: Claim
    outcomes: tuple[Outcome, ...]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The evidence with its outcomes, in order."""
        return tuple(Piece(self.claim, *each) for each in zip(self.claim.evidence, self.outcomes, strict=True))

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """{kind: (pieces checked, pieces in all)}."""
        counts: dict[str, tuple[int, int]] = {}
        for piece in self.pieces:
            done, all_ = counts.get(piece.evidence.kind, (0, 0))
            counts[piece.evidence.kind] = (done + (piece.outcome.status is Status.CHECKED), all_ + 1)
        return counts

    @property
    def status(self) -> Status:
        """The worst of its evidence."""
        return worst(outcome.status for outcome in self.outcomes)


def run(claims: Sequence[Claim], on_step: OnStep = lambda _: None) -> list[Entry]:
    """All evidence of the claims, re-run. `on_step` hears of every step before it is taken."""
    evidence = {piece: None for claim in claims for piece in claim.evidence}
    with _properties([piece.name for piece in evidence if isinstance(piece, Property)]) as properties:
        outcomes: dict[Evidence, Outcome] = {}
        for piece in evidence:
            if isinstance(piece, Derivation | Certificate):
                on_step(f"{piece.kind}: {piece.name}")
                outcomes[piece] = argue(piece)
        results = theorems([piece.name for piece in evidence if isinstance(piece, Theorem)], on_step)
        on_step("properties: pytest")
        sampled = properties()
    for piece in evidence:
        if isinstance(piece, Property):
            outcomes[piece] = sampled[piece.name]
        elif isinstance(piece, Theorem):
            outcomes[piece] = results[piece.name]
    return [Entry(claim, tuple(outcomes[piece] for piece in claim.evidence)) for claim in claims]


def argue(piece: Derivation | Certificate) -> Outcome:
    """Run a derivation or a certificate; whatever it raises makes it fail, with the lines up to there."""
    lines: list[Line] = []
    start = time.perf_counter()
    status, reason = Status.CHECKED, ""
    with ctx.workprec(PRECISION):
        try:
            lines.extend(piece.run())
        except Exception as error:  # evidence may fail in any way
            status, reason = Status.FAILED, f"{type(error).__name__}: {error}"
    if status is Status.CHECKED and not lines:
        status, reason = Status.FAILED, "it shows nothing"
    return Outcome(status, tuple(lines), reason, seconds=time.perf_counter() - start)


def theorems(names: Sequence[str], on_step: OnStep = lambda _: None) -> dict[str, Outcome]:
    """What `proofs.rocq` reports of these theorems, all compiled at once; an unknown name fails."""
    if not names:
        return {}
    # Imported here: tests replace it, and a ledger without theorems does not need it.
    checked: Mapping[str, TheoremResult] = import_module("proofs.rocq").check(on_step=on_step)
    unknown = Outcome(Status.FAILED, reason="no theorem of this name in proofs/rocq")
    return {
        name: unknown
        if name not in checked
        else Outcome(Status(checked[name].status), reason=checked[name].reason, axioms=tuple(checked[name].axioms))
        for name in names
    }


def axioms(names: Sequence[str], on_step: OnStep = lambda _: None) -> dict[str, Outcome]:
    """`theorems`, and where all are checked each with its own axioms: a second or two a theorem."""
    outcomes = theorems(names, on_step)
    if worst(outcome.status for outcome in outcomes.values()) is not Status.CHECKED:
        return outcomes
    rocq = import_module("proofs.rocq")
    own = rocq.assumptions(theorems=[each for each in rocq.THEOREMS if each.name in names], on_step=on_step)
    return {name: replace(outcome, axioms=tuple(own[name])) for name, outcome in outcomes.items()}


def worst(statuses: Iterable[Status]) -> Status:
    """FAILED before NOT_HERE before CHECKED."""
    order = (Status.CHECKED, Status.NOT_HERE, Status.FAILED)
    return max(statuses, key=order.index, default=Status.CHECKED)


def tally(entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
    """{verdict: (claims, how many of them are readings)}."""
    found = {verdict.value: [e.claim.reading for e in entries if e.claim.verdict is verdict] for verdict in Verdict}
    return {verdict: (len(readings), sum(readings)) for verdict, readings in found.items()}


def as_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """The ledger as plain data: {"claims": [{"name", "where", ..., "evidence": [{"kind", "checked", ...}]}]}."""
    return {
        "claims": [
            {
                "name": entry.claim.name,
                "where": entry.claim.where,
                "statement": entry.claim.statement,
                "verdict": entry.claim.verdict.value,
                "reading": entry.claim.reading,
                "condition": entry.claim.condition,
                "sentences": [
                    {"section": sentence.section, "words": sentence.words}
                    for sentence in sentences_of(entry.claim.name)
                ],
                "evidence": [_evidence_as_json(piece.evidence, piece.outcome) for piece in entry.pieces],
            }
            for entry in entries
        ]
    }


def _evidence_as_json(piece: Evidence, outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": piece.kind,
        "name": piece.name,
        "checked": outcome.status is Status.CHECKED,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "axioms": list(outcome.axioms),
        "lines": [_line_as_json(line) for line in outcome.lines],
        "seconds": round(outcome.seconds, 3),
    }


def _line_as_json(line: Line) -> dict[str, Any]:
    text, formula = (line, None) if isinstance(line, str) else line
    return {"text": text, "proved": is_proved(line)} | ({} if formula is None else {"formula": str(formula)})


def is_proved(line: Line) -> bool:
    """Whether a line of an argument has been proved as it ran, or is words between such lines."""
    return isinstance(line if isinstance(line, str) else line[0], Proved)


@contextmanager
def _properties(nodes: Sequence[str]) -> Iterator[Callable[[], dict[str, Outcome]]]:
    """Starts one pytest process for all nodes; what it yields waits for the process and gives their outcomes."""
    missing = _missing(nodes)
    if missing or not nodes:
        yield lambda: dict.fromkeys(nodes, Outcome(Status.NOT_HERE, reason=missing))
        return
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.xml", Path(folder) / "output"
        options = ("-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}")
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *nodes],
                cwd=ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

        def outcomes() -> dict[str, Outcome]:
            process.wait()
            said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return collected(report, nodes, said[-1] if said else "pytest said nothing")

        try:
            yield outcomes
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _missing(nodes: Sequence[str]) -> str:
    """What is not installed of what properties need."""
    absent = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    files = {node.partition("::")[0] for node in nodes}
    return "" if all((ROOT / file).exists() for file in files) else "the tests are not part of this installation"


def collected(report: Path, nodes: Sequence[str], otherwise: str) -> dict[str, Outcome]:
    """The outcomes of nodes in a JUnit report; checked is a node of which all cases ran and passed."""
    cases: dict[str, list[Outcome]] = {}
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            node = f"{case.get('file')}::{case.get('name', '').partition('[')[0]}"
            cases.setdefault(node, []).append(_outcome(case))
    never = Outcome(Status.FAILED, reason=f"pytest did not run it: {otherwise}")
    outcomes = {}
    for node in nodes:
        found = cases.get(node, [never])
        status = worst(case.status for case in found)
        reason = next((case.reason for case in found if case.status is status), "")
        outcomes[node] = replace(never, status=status, reason=reason, seconds=sum(case.seconds for case in found))
    return outcomes


def _outcome(case: ElementTree.Element) -> Outcome:
    seconds = float(case.get("time", "0"))
    for tag, status in (("failure", Status.FAILED), ("error", Status.FAILED), ("skipped", Status.NOT_HERE)):
        found = case.find(tag)
        if found is not None:
            return Outcome(status, reason=found.get("message", tag), seconds=seconds)
    return Outcome(Status.CHECKED, seconds=seconds)
