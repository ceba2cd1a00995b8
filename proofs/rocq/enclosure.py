"""The Rocq definitions at numbers: proofs that J, an entry of a step or of the RBF matrix lies between two rationals.

The inputs are exact; every float is a rational. Each function below writes the term of Definitions.v with its inputs
put in, and `prove` lets Rocq's `interval` tactic prove the bounds: what the theorems speak of is what was computed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from proofs.rocq import ALLOWED_AXIOMS, FOLDER, compiler, sources
from proofs.rocq.compiler import RefusedError

Rows = Sequence[Sequence[Fraction]]


@dataclass(frozen=True)
class Enclosure:
    """The claim low ≤ term ≤ high."""

    term: str
    low: Fraction
    high: Fraction


def batch_loss(W: Rows, Z: Rows, y: Sequence[int]) -> str:
    """The term J(W) for weights (n_c, d_in), features (m, d_in) and labels (m)."""
    return f"J_batch {len(W)} {len(W[0])} {len(Z)} {_matrix(Z)} {_labels(y)} {_matrix(W)}"


def batch_step_entry(W: Rows, Z: Rows, y: Sequence[int], P: Rows, eta: Fraction, row: int, column: int) -> str:
    """The term (W − η G P)_(row, column), G the gradient of `batch_loss`."""
    gradient = f"(gradient_batch {len(W)} {len(W[0])} {len(Z)} {_matrix(Z)} {_labels(y)} {_matrix(W)})"
    return f"step {len(W[0])} {_number(eta)} {_matrix(W)} {gradient} {_matrix(P)} {row}%nat {column}%nat"


def rbf_entry(gamma: Fraction, X: Rows, row: int, column: int) -> str:
    """The term exp(−γ‖x_row − x_column‖²) for raw inputs (m, d)."""
    return f"rbf_gram {_number(gamma)} {len(X[0])} {_matrix(X)} {row}%nat {column}%nat"


def source(enclosures: Sequence[Enclosure]) -> str:
    """The Rocq file that proves the enclosures, each on a line of its own."""
    head = (
        "From Coq Require Import Reals List. From KernelSGD Require Import Definitions Enclosure. "
        "Import ListNotations. Open Scope R_scope."
    )
    proofs = [
        f"Theorem enclosure_{k} : {_number(e.low)} <= {e.term} <= {_number(e.high)}. Proof. enclose. Qed."
        for k, e in enumerate(enclosures)
    ]
    return "\n".join([head, *proofs, ""])


def prove(enclosures: Sequence[Enclosure]) -> None:
    """Have Rocq prove all of them.

    Raises RefusedError, naming the first that it cannot prove; NotCheckedHereError without coqc or coq-interval. An
    enclosure within 2⁻¹⁰⁰ or so of the truth may be out of the tactic's reach.
    """
    with TemporaryDirectory(prefix="rocq") as scratch:
        _compile(Path(scratch), enclosures)


def axioms(enclosures: Sequence[Enclosure]) -> tuple[str, ...]:
    """What the proofs stand on: the axioms of the real numbers and of machine integers. Raises as `prove`."""
    with TemporaryDirectory(prefix="rocq") as scratch:
        _compile(Path(scratch), enclosures)
        names = [f"{sources.OWN}.Drawn.enclosure_{k}" for k in range(len(enclosures))]
        return compiler.assumptions(Path(scratch), names, ["Drawn"])


def is_allowed(axiom: str) -> bool:
    """Whether an axiom is one of the real numbers, or of the machine integers that `interval` computes with."""
    return axiom in ALLOWED_AXIOMS or re.fullmatch(r"(PrimInt63|Uint63)\.\w+", axiom) is not None


def _compile(scratch: Path, enclosures: Sequence[Enclosure]) -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (*FOLDER.glob("*.v"), *FOLDER.glob("check/*.v"))}
    texts["Drawn"] = source(enclosures)
    for name in sources.in_order(texts, ["Drawn"]):
        wrong = sources.faults(texts[name], ("Coq", "Interval", sources.OWN))
        if wrong:
            raise RefusedError(f"{name}.v contains {'; '.join(wrong)}")
        (scratch / f"{name}.v").write_text(texts[name], encoding="utf-8")
        try:
            compiler.compile_source(scratch, name)
        except RefusedError as refusal:
            line = re.search(r"Drawn\.v\", line (\d+)", str(refusal))
            if line is None:
                raise
            failed = enclosures[int(line.group(1)) - 2]
            raise RefusedError(f"not proved: {failed.low} ≤ {failed.term} ≤ {failed.high}") from refusal


def _number(value: Fraction) -> str:
    exact = Fraction(value)
    return f"({exact.numerator} / {exact.denominator})"


def _matrix(rows: Rows) -> str:
    return f"(of_rows [{'; '.join('[' + '; '.join(map(_number, row)) + ']' for row in rows)}])"


def _labels(labels: Sequence[int]) -> str:
    return f"(of_labels [{'; '.join(f'{label}%nat' for label in labels)}])"
