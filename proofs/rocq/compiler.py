"""Runs `coqc` in a temporary folder: compile sources, and ask what a theorem assumes."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from proofs.rocq.sources import OWN

TIMEOUT_S = 120


class NotCheckedHereError(RuntimeError):
    """Rocq, or a library of it, is not installed: nothing was checked, and nothing failed."""


class RefusedError(RuntimeError):
    """Rocq did not accept a source."""


def coqc() -> str:
    """The path of `coqc`; raises NotCheckedHereError where there is none."""
    path = shutil.which("coqc")
    if path is None:
        raise NotCheckedHereError("no coqc")
    return path


def compile_source(folder: Path, name: str) -> str:
    """What `coqc` prints on `name`.v in `folder`, whose compiled modules it may require.

    Raises RefusedError with the first lines of its complaint, NotCheckedHereError without coqc or without coq-interval.
    """
    # Neither a user's own libraries nor a user's settings: the result must be that of the sources alone.
    environment = {key: value for key, value in os.environ.items() if key != "COQPATH"}
    command = [coqc(), "-q", "-Q", ".", OWN, f"{name}.v"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise RefusedError(f"{name}.v: not done after {TIMEOUT_S} s") from late
    if done.returncode == 0:
        return done.stdout
    if re.search(r"Cannot find a physical path[^.]*\bInterval\b", done.stderr):
        raise NotCheckedHereError("no coq-interval")
    raise RefusedError(f"{name}.v: {' '.join(done.stderr.split()) or f'exit status {done.returncode}'}"[:600])


def assumptions(folder: Path, theorems: Sequence[str], imports: Sequence[str]) -> tuple[str, ...]:
    """The axioms that the theorems (qualified names) stand on, all of them together, by name.

    A lemma that the kernel accepted with a check turned off counts as an axiom. Raises as `compile_source`, and
    RefusedError where the answer is none that is known.
    """
    # One question for all: most of the answer is a walk through the library of the real numbers, a second each time.
    (folder / "Assumptions.v").write_text(
        f"From {OWN} Require {' '.join(imports)}.\n"
        "Set Printing Width 10000.\n"
        f"Definition together := ({', '.join(theorems)}, tt).\n"
        "Print Assumptions together.\n",
        encoding="utf-8",
    )
    return _axioms(compile_source(folder, "Assumptions"))


def _axioms(answer: str) -> tuple[str, ...]:
    lines = [line for line in answer.splitlines() if line.strip()]
    if lines == ["Closed under the global context"]:
        return ()
    if not lines or lines[0] != "Axioms:":
        raise RefusedError(f"Print Assumptions: expected a list of axioms, got {answer[:200]!r}")
    # "name : type" on one line each, or "name is assumed to be ..." for a check that was turned off.
    return tuple(sorted({line.split()[0] for line in lines[1:] if not line[0].isspace()}))
