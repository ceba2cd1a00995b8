"""The machine-checked proofs: theorems in Rocq (Coq) on its standard library, and what checks them from scratch.

`check()` compiles the sources in a temporary folder, so that no compiled file is ever trusted; refuses sources that
assume or skip anything (`sources`); asks Rocq what the theorems of the table (`theorems`) stand on, and compares that
with the axioms of the real numbers. `enclosure` ties the definitions to numbers. Needs `coqc` 8.16; without it nothing
is checked, and the results say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from proofs.rocq import compiler, sources
from proofs.rocq.compiler import NotCheckedHereError, RefusedError
from proofs.rocq.theorems import ALLOWED_AXIOMS, THEOREMS, Theorem

__all__ = [
    "ALLOWED_AXIOMS",
    "FOLDER",
    "THEOREMS",
    "Checked",
    "NotCheckedHereError",
    "RefusedError",
    "Theorem",
    "assumptions",
    "check",
]

FOLDER = Path(__file__).parent
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """What became of one theorem.

    `status` is "checked", "failed" or "not checked here", `reason` says why it is not the first. `statement` is the
    source's. `axioms` are those of all theorems that were checked with it: it stands on these and no others.
    """

    name: str
    file: str
    where: str
    words: str
    statement: str
    status: str
    reason: str = ""
    axioms: tuple[str, ...] = ()


def check(
    folder: Path = FOLDER, theorems: Sequence[Theorem] = THEOREMS, on_step: OnStep = lambda _: None
) -> dict[str, Checked]:
    """Compile what the theorems need, ask what they stand on, and say of each, by name, whether it is proved.

    `on_step` hears of every file before it is compiled. Ten seconds or so for all.
    """
    texts = _texts(folder)
    with TemporaryDirectory(prefix="rocq") as scratch:
        try:
            reasons = _compile(Path(scratch), texts, theorems, on_step)
            sound = [theorem for theorem in theorems if theorem.name not in reasons]
            on_step("Print Assumptions")
            axioms = _ask(Path(scratch), sound)
            if not ALLOWED_AXIOMS.issuperset(axioms):
                # Together they assume too much: which of them does?
                for theorem in sound:
                    extra = set(_ask(Path(scratch), [theorem])) - ALLOWED_AXIOMS
                    if extra:
                        reasons[theorem.name] = f"it assumes {', '.join(sorted(extra))}"
        except NotCheckedHereError as absent:
            return {t.name: _checked(t, texts, "not checked here", str(absent), ()) for t in theorems}
        except RefusedError as refusal:
            return {t.name: _checked(t, texts, "failed", str(refusal), ()) for t in theorems}
    return {
        t.name: _checked(t, texts, "failed" if t.name in reasons else "checked", reasons.get(t.name, ""), axioms)
        for t in theorems
    }


def assumptions(
    folder: Path = FOLDER, theorems: Sequence[Theorem] = THEOREMS, on_step: OnStep = lambda _: None
) -> dict[str, tuple[str, ...]]:
    """The axioms of each theorem by itself, by name: a second or two per theorem beside the compilation.

    Raises NotCheckedHereError without coqc, RefusedError where a theorem is not proved.
    """
    with TemporaryDirectory(prefix="rocq") as scratch:
        reasons = _compile(Path(scratch), _texts(folder), theorems, on_step)
        if reasons:
            raise RefusedError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        axioms = {}
        for theorem in theorems:
            on_step(f"Print Assumptions {theorem.name}")
            axioms[theorem.name] = _ask(Path(scratch), [theorem])
        return axioms


def _texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.v"))}


def _compile(scratch: Path, texts: dict[str, str], theorems: Sequence[Theorem], on_step: OnStep) -> dict[str, str]:
    """Compile what the theorems need; the reason of each theorem, by name, that is not proved by that."""
    compiler.coqc()
    try:
        order = sources.in_order(texts, [theorem.file for theorem in theorems])
    except ValueError as error:
        raise RefusedError(str(error)) from error
    broken: dict[str, str] = {}
    for name in order:
        wrong = sources.faults(texts[name])
        below = [required for required in sources.imports(texts[name]) if required in broken]
        if wrong:
            broken[name] = f"{name}.v contains {'; '.join(wrong)}"
        elif below:
            broken[name] = broken[below[0]]
        else:
            on_step(f"coqc {name}.v")
            (scratch / f"{name}.v").write_text(texts[name], encoding="utf-8")
            try:
                compiler.compile_source(scratch, name)
            except RefusedError as refusal:
                broken[name] = str(refusal)
    reasons = {}
    for theorem in theorems:
        if theorem.file in broken:
            reasons[theorem.name] = broken[theorem.file]
        elif sources.statement(texts[theorem.file], theorem.name) is None:
            reasons[theorem.name] = f"{theorem.file}.v has no Theorem of this name with a Proof"
    return reasons


def _ask(scratch: Path, theorems: Sequence[Theorem]) -> tuple[str, ...]:
    if not theorems:
        return ()
    names = [f"{sources.OWN}.{theorem.file}.{theorem.name}" for theorem in theorems]
    return compiler.assumptions(scratch, names, sorted({theorem.file for theorem in theorems}))


def _checked(theorem: Theorem, texts: dict[str, str], status: str, reason: str, axioms: tuple[str, ...]) -> Checked:
    text = sources.statement(texts.get(theorem.file, ""), theorem.name) or ""
    return Checked(
        theorem.name,
        f"{theorem.file}.v",
        theorem.where,
        theorem.words,
        text,
        status,
        reason,
        axioms if status == "checked" else (),
    )
