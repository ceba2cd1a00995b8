"""Writes what mutmut found, as it lies in `mutants/`: the score, and every mutant that no test tells from the original.

A survivor that computes the same is equivalent: equivalents.json says of each why, and it does not count. A mutant is
detected where a test or the type checker fails on it, or where it does not end. The check passes when at least 97 %
are detected and no entry of equivalents.json is out of date. The table goes to tests/mutation/MUTANTS.md.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LEAST = 97.0
DETECTED = ("killed", "caught by type check", "timeout", "segfault")


class Change(NamedTuple):
    """What a mutant replaces, lines without their indentation."""

    file: str
    old: str
    new: str


def change(name: str, file: str) -> Change:
    lines = [line for line in get_diff_for_mutant(name).splitlines() if not line.startswith(("---", "+++"))]
    old, new = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Change(file, old, new)


def verdicts() -> Iterator[tuple[str, str, str]]:
    """File, mutant and what became of it."""
    for meta in sorted((ROOT / "mutants").rglob("*.py.meta")):
        file = str(meta.relative_to(ROOT / "mutants").with_suffix(""))
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        yield from ((file, name, status_by_exit_code[code]) for name, code in codes.items())


def equivalents() -> dict[Change, str]:
    """The reason why a change changes nothing."""
    entries = json.loads((HERE / "equivalents.json").read_text(encoding="utf-8"))
    return {Change(entry["file"], entry["old"], entry["new"]): entry["why"] for entry in entries}


def shown(text: str) -> str:
    return "`" + " ⏎ ".join(text.splitlines()).replace("|", "¦").replace("`", "'") + "`"


def score(counts: Counter[str]) -> float:
    return 100 * counts["detected"] / max(1, counts.total() - counts["equivalent"])


def main() -> int:
    known, used = equivalents(), set[Change]()
    counts: dict[str, Counter[str]] = {}
    rows = {"survived": [], "equivalent": []}
    os.chdir(ROOT)  # where mutmut looks for its results
    for file, name, status in track(list(verdicts()), description="mutants", console=Console(stderr=True)):
        counted = counts.setdefault(file, Counter())
        if status in DETECTED:
            counted["detected"] += 1
            continue
        what = change(name, file)
        used.add(what)
        kind = "equivalent" if what in known else "survived"
        counted[kind] += 1
        rows[kind].append(
            f"| {file} | {shown(what.old)} | {shown(what.new)} | {known.get(what, status)} |",
        )
    whole = sum(counts.values(), Counter[str]())
    stale = [entry for entry in known if entry not in used]
    lines = [
        "# Mutants of `reference` and `gpu.torch_ops`",
        "",
        "Written by `make mutants` (mutmut): one expression of the code is changed at a time, and the tests that reach "
        "it are run. Detected is a mutant on which a test or the type checker fails.",
        "",
        f"**Score: {score(whole):.1f} %**, {whole['detected']} of {whole.total() - whole['equivalent']} detected, "
        f"{whole['equivalent']} equivalent ones left out.",
        "",
        "| file | mutants | detected | equivalent | score |",
        "|---|---|---|---|---|",
        *(
            f"| {file} | {c.total()} | {c['detected']} | {c['equivalent']} | {score(c):.1f} % |"
            for file, c in counts.items()
        ),
        "",
        f"## Not detected: {len(rows['survived'])}",
        "",
        *["| file | original | mutant | outcome |", "|---|---|---|---|", *rows["survived"]],
        "",
        f"## Equivalent: {len(rows['equivalent'])}",
        "",
        *["| file | original | mutant | why it computes the same |", "|---|---|---|---|", *rows["equivalent"]],
    ]
    (HERE / "MUTANTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines[4:5], f"{len(rows['survived'])} survive", *(f"out of date: {entry}" for entry in stale), sep="\n")
    return bool(score(whole) < LEAST or stale)


if __name__ == "__main__":
    sys.exit(main())
