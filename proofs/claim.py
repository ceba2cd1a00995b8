"""What a claim is: a statement of the paper, a verdict on it, and evidence that anybody can run again.

Four kinds of evidence: a `Derivation` in SymPy, a `Certificate` in exact or ball arithmetic, a `Theorem` that Rocq has
checked, a `Property` that Hypothesis samples. The first two are functions that yield what they have shown, line by
line, and raise where something does not hold; the other two are names of what is run elsewhere. This file knows no
claim, and neither SymPy nor python-flint.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

# A sentence, or a sentence with the SymPy expression that it is about.
Line = str | tuple[str, object]
Argument = Callable[[], Iterator[Line]]


class Verdict(Enum):
    """What the evidence says of the statement, by one rule.

    HOLDS: true of all that it speaks of. HOLDS_IF: true under a proved condition that can be arranged (a step size, a
    setting, distinct inputs), or in one sense of its words (means, units). FAILS: a case that it speaks of is proved
    against it, and what would save it is a special case or another method (P = I, one instance repeated); a statement
    about data sets fails with the first that contradicts it.
    """

    HOLDS = "HOLDS"
    HOLDS_IF = "HOLDS_IF"
    FAILS = "FAILS"


class Status(Enum):
    """What became of a piece of evidence. Only CHECKED counts as checked."""

    CHECKED = "checked"
    FAILED = "failed"
    NOT_HERE = "not checked here"


@dataclass(frozen=True)
class Outcome:
    """What running a piece of evidence gave: its lines up to the end or to the failure, and why it is not checked."""

    status: Status
    lines: tuple[Line, ...] = ()
    reason: str = ""
    axioms: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Derivation:
    """A SymPy derivation: yields its steps, raises where one does not hold."""

    run: Argument
    kind: ClassVar[str] = "derivation"

    @property
    def name(self) -> str:
        """The function's own."""
        return _words(self.run)


@dataclass(frozen=True)
class Certificate:
    """Concrete numbers, exact or in balls: yields the inequalities proved, raises where one is refuted or undecided."""

    run: Argument
    kind: ClassVar[str] = "certificate"

    @property
    def name(self) -> str:
        """The function's own."""
        return _words(self.run)


@dataclass(frozen=True)
class Theorem:
    """A theorem of `proofs/rocq`, by its name there."""

    name: str
    kind: ClassVar[str] = "theorem"


@dataclass(frozen=True)
class Property:
    """A property test, by its pytest node id, run as a process of its own: sampled, so no verdict rests on it alone."""

    name: str
    kind: ClassVar[str] = "property"


Evidence = Derivation | Certificate | Theorem | Property


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, where it stands, the verdict, and under which condition it holds.

    `condition` is the sharpest one known; for FAILS, what would be needed instead. `reading` marks a statement that the
    paper does not make: what a sentence of it would have to mean, or what extends it. Raises ValueError where the
    evidence cannot carry the verdict: none at all, properties alone, FAILS without a certificate, HOLDS_IF without a
    condition.
    """

    name: str
    where: str
    statement: str
    verdict: Verdict
    condition: str
    evidence: tuple[Evidence, ...]
    reading: bool = False

    def __post_init__(self) -> None:
        if all(isinstance(piece, Property) for piece in self.evidence):
            raise ValueError(f"{self.name}: expected evidence beside sampled properties, got {self.evidence}")
        if self.verdict is Verdict.FAILS and not any(isinstance(piece, Certificate) for piece in self.evidence):
            raise ValueError(f"{self.name}: expected a certificate for FAILS, got none")
        if self.verdict is Verdict.HOLDS_IF and not self.condition:
            raise ValueError(f"{self.name}: expected a condition for HOLDS_IF, got none")


def _words(function: Argument) -> str:
    return getattr(function, "__name__", "evidence").strip("_").replace("_", " ")
