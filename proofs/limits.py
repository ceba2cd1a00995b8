"""What the verdicts of a run stand on, and what is not proved: derived from what became of the evidence, not from what
was meant to run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proofs.claim import Line, Status
from proofs.claims.tables import Sentence, sentences
from proofs.ledger import Entry, Piece, is_proved


@dataclass(frozen=True)
class Limits:
    """What the verdicts of a run stand on, and what it has not checked.

    Every claim is in one of `proved` (theorems that Rocq has checked, by claim), `derived` (SymPy without Rocq: lines
    proved and lines in all, by claim), `computed` (certificates alone) and `open` (nothing of these was checked).
    """

    proved: Mapping[str, tuple[str, ...]]
    derived: Mapping[str, tuple[int, int]]
    computed: tuple[str, ...]
    open: tuple[str, ...]
    axioms: tuple[str, ...]
    sampled: Mapping[str, tuple[str, ...]]
    unsampled: tuple[str, ...]
    unchecked: tuple[Piece, ...]
    without_numbers: tuple[Sentence, ...]


def limits(entries: Sequence[Entry]) -> Limits:
    """What is not proved, from the outcomes alone."""
    done = {entry.claim.name: entry.pieces for entry in entries}
    checked = {name: [piece for piece in all_ if piece.outcome.status is Status.CHECKED] for name, all_ in done.items()}
    kinds = {name: {piece.evidence.kind for piece in found} for name, found in checked.items()}
    proved = {name: _names(found, "theorem") for name, found in checked.items() if "theorem" in kinds[name]}
    derived = {
        name: _counted(piece.outcome.lines for piece in found if piece.evidence.kind == "derivation")
        for name, found in checked.items()
        if "theorem" not in kinds[name] and "derivation" in kinds[name]
    }
    rest = [name for name in done if name not in proved and name not in derived]
    all_pieces = [piece for entry in entries for piece in entry.pieces]
    sampled: dict[str, tuple[str, ...]] = {}
    for piece in all_pieces:
        if piece.evidence.kind == "property":
            sampled[piece.evidence.name] = (*sampled.get(piece.evidence.name, ()), piece.claim.name)
    return Limits(
        proved=proved,
        derived=derived,
        computed=tuple(name for name in rest if "certificate" in kinds[name]),
        open=tuple(name for name in rest if "certificate" not in kinds[name]),
        axioms=tuple(sorted({axiom for piece in all_pieces for axiom in piece.outcome.axioms})),
        sampled=sampled,
        unsampled=tuple(name for name, found in done.items() if not _names(found, "property")),
        unchecked=tuple(piece for piece in all_pieces if piece.outcome.status is not Status.CHECKED),
        without_numbers=tuple(sentence for sentence in sentences() if not sentence.claims),
    )


def _names(pieces: Iterable[Piece], kind: str) -> tuple[str, ...]:
    return tuple(piece.evidence.name for piece in pieces if piece.evidence.kind == kind)


def _counted(arguments: Iterable[Sequence[Line]]) -> tuple[int, int]:
    """How many lines were proved as they ran, of how many."""
    marks = [is_proved(line) for lines in arguments for line in lines]
    return sum(marks), len(marks)
