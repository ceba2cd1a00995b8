"""The ledger as one HTML file that opens from disk: mathematics as MathML, plots as inline SVG, no script, no network.

What it says comes from the entries of a run; the section on what is not proved is derived from them as well. The file
is written whole or not at all. Needs Jinja2, and matplotlib for the plots of the claims that have some.
"""

import html
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sympy  # type: ignore[import-untyped]
from sympy.printing.mathml import MathMLPresentationPrinter  # type: ignore[import-untyped]

from proofs import plots
from proofs.claim import Line, Status
from proofs.claims.tables import sentences_of
from proofs.ledger import Entry, is_proved, tally
from proofs.limits import limits
from proofs.rocq import FOLDER, THEOREMS, sources

if TYPE_CHECKING:
    from jinja2 import Environment

EXTRAS = {"jinja2": "proofs", "matplotlib": "plots"}
# What `proofs.rocq` allows, in words.
AXIOMS = {
    "ClassicalDedekindReals.sig_forall_dec": "a property that is decided for every natural number holds for all, or a "
    "number is found for which it fails",
    "ClassicalDedekindReals.sig_not_dec": "of every A it can be told whether ¬A or ¬¬A",
    "Classical_Prop.classic": "excluded middle: A or ¬A",
    "FunctionalExtensionality.functional_extensionality_dep": "functions with equal values are equal",
}


class PageError(Exception):
    """The page cannot be written: what is missing, or what is wrong with its path."""


@dataclass(frozen=True)
class Step:
    """A line of an argument: its words, whether it was proved as it ran, its formula as MathML if it has one."""

    text: str
    proved: bool
    formula: str | None


def prepare(path: Path) -> None:
    """Raises PageError where the page could not be written: before anything is run that takes time."""
    for package, extra in EXTRAS.items():
        try:
            import_module(package)
        except ImportError as error:
            raise PageError(f"{package} is not installed (pip install 'kernel-sgd[{extra}]')") from error
    if path.exists() and not path.is_file():
        raise PageError(f"{path}: expected a file, got {'a directory' if path.is_dir() else 'something else'}")
    part = _part(path)
    try:
        part.write_bytes(b"")
        part.unlink()
    except (OSError, ValueError) as error:
        raise PageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def write(path: Path, entries: Sequence[Entry]) -> None:
    """The page, whole or not at all: what stood there stays until the new one is complete. Raises PageError."""
    text = render(entries)
    part = _part(path)
    try:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(part, path.resolve())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PageError(f"{path}: {error.strerror}") from error


def render(entries: Sequence[Entry]) -> str:
    """The page of these entries."""
    pieces = [piece for entry in entries for piece in entry.pieces]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            entries=entries,
            pieces=pieces,
            checked=sum(piece.outcome.status is Status.CHECKED for piece in pieces),
            verdicts=tally(entries),
            limits=limits(entries),
            meanings=AXIOMS,
            finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=_versions(),
        )
    )


class _Printer(MathMLPresentationPrinter):  # type: ignore[misc]
    """SymPy's, with indices, δ and ln as a paper writes them, and with all sums of a double sum: SymPy prints one."""

    def _print_Sum(self, expression: Any) -> Any:  # noqa: N802
        signs = []
        for index, low, high in reversed(expression.limits):
            below = self._element("mrow", self._print(index), self._element("mo", "="), self._print(low))
            signs.append(self._element("munderover", self._element("mo", "∑"), below, self._print(high)))
        summand = self._print(expression.function)
        if expression.function.is_Add:
            summand = self._fenced(summand)
        return self._element("mrow", *signs, summand)

    def _print_Indexed(self, expression: Any) -> Any:  # noqa: N802
        return self._element("msub", self._print(expression.base), self._listed(expression.indices))

    def _print_KroneckerDelta(self, expression: Any) -> Any:  # noqa: N802
        return self._element("msub", self._element("mi", "δ"), self._listed(expression.args))

    def _print_log(self, expression: Any) -> Any:
        return self._element("mrow", self._element("mi", "ln"), self._fenced(self._print(expression.args[0])))

    def _fenced(self, inner: Any) -> Any:
        return self._element("mrow", self._element("mo", "("), inner, self._element("mo", ")"))

    def _listed(self, indices: Sequence[Any]) -> Any:
        parts = [part for index in indices for part in (self._element("mo", ","), self._print(index))]
        return self._element("mrow", *parts[1:])

    def _element(self, tag: str, *children: Any) -> Any:
        node = self.dom.createElement(tag)
        for child in children:
            node.appendChild(self.dom.createTextNode(child) if isinstance(child, str) else child)
        return node


def mathml(expression: object) -> str:
    """An expression as a <math> element, well-formed XML without entities that only some readers know."""
    body = _Printer({"mul_symbol": "dot"}).doprint(sympy.sympify(expression))
    # SymPy names operators by entities, and e by one whose letter few fonts have.
    body = re.sub(r"&(?!lt;|gt;|amp;|quot;|apos;|#)\w+;", lambda found: html.unescape(found[0]), body)
    body = body.replace("ⅇ", "e").replace("<mo>-</mo>", "<mo>−</mo>").replace("<mn>-", "<mn>−")
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">{body}</math>'


def _step(line: Line) -> Step:
    if isinstance(line, str):
        return Step(line, is_proved(line), None)
    return Step(line[0], is_proved(line), mathml(line[1]))


def _theorem(name: str) -> dict[str, str]:
    """What a theorem says in words, its statement in Rocq and its file; empty for a name that is not in the table."""
    for theorem in THEOREMS:
        if theorem.name == name:
            text = (FOLDER / f"{theorem.file}.v").read_text(encoding="utf-8")
            return {
                "words": theorem.words,
                "file": f"proofs/rocq/{theorem.file}.v",
                "statement": sources.statement(text, name) or "",
            }
    return {}


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "step": _step,
        "theorem": _theorem,
        "markup": Markup,  # MathML and SVG are made here, out of expressions and numbers
        "plots": plots.of,
        "sentences": sentences_of,
    }
    return environment


def _versions() -> dict[str, str]:
    found = {"Python": sys.version.partition(" ")[0]}
    for package in ("kernel-sgd", "sympy", "python-flint", "hypothesis"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _part(path: Path) -> Path:
    """Beside the file that is to be replaced: a rename across file systems is none."""
    target = path.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}.part")
