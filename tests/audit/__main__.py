"""Plants every fault of the table in a copy of the tree, runs the tests it names, and writes what failed.

The audit passes when every fault makes at least one of its tests fail, and every test function of the suite that needs
no GPU fails on some fault. The table goes to tests/audit/AUDIT.md. `python -m tests.audit NAME` runs the faults whose
name contains NAME and writes no table; `python -m tests.audit --kept` writes that of what a stopped audit has found.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.audit.faults import FAULTS, Fault
from tests.support import resumed

ROOT = resumed.ROOT
KEPT = ROOT / "runs" / "audit.json"


def pytest(tree: Path, *arguments: str) -> list[str]:
    """The lines pytest prints when it runs in `tree`, which it must not take from anywhere else."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "audit"}
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1, 5):
        raise RuntimeError(f"pytest {' '.join(arguments)} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}")
    return run.stdout.splitlines()


def function_of(node: str) -> str:
    """The node id of the test function, its parameters cut off."""
    return node.split("[", 1)[0]


def failing(fault: Fault) -> set[str]:
    """The test functions that fail, or cannot be set up, with the fault in place."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for room in resumed.ROOMS:
            shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name in ("README.md", "Makefile", "CITATION.cff"):
            shutil.copy(ROOT / name, tree)
        source = tree / fault.file
        text = source.read_text(encoding="utf-8")
        if fault.old not in text:
            raise RuntimeError(f"{fault.name}: {fault.file} does not contain {fault.old!r}")
        source.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
        lines = pytest(tree, "-rfE", *fault.tests)
    marks = ("FAILED ", "ERROR ")
    return {function_of(line.split(" - ", 1)[0].split(" ", 1)[1]) for line in lines if line.startswith(marks)}


def functions(marked: str) -> set[str]:
    """All but the conformance suite, whose faults are backends, and the claims, whose faults are in test_damage."""
    elsewhere = [f"--ignore=tests/{room}" for room in ("conformance", "faults", "claims")]
    lines = pytest(ROOT, "--collect-only", "-m", marked, *elsewhere)
    return {function_of(line) for line in lines if "::" in line}


def key(fault: Fault) -> str:
    return json.dumps([fault.file, fault.old, fault.new, fault.tests])


def kept() -> dict[Fault, set[str]]:
    """What a stopped audit has found so far, whatever has changed since."""
    results = json.loads(KEPT.read_text(encoding="utf-8"))["results"]
    return {fault: set(results[key(fault)]) for fault in FAULTS if key(fault) in results}


def caught_by(chosen: list[Fault]) -> dict[Fault, set[str]]:
    """What fails on every fault; finished ones are kept in runs/audit.json, from which a stopped audit goes on."""
    faults = {key(fault): fault for fault in chosen}
    results = resumed.results(lambda job: sorted(failing(faults[job])), faults, KEPT, "faults")
    return {fault: set(results[job]) for job, fault in faults.items()}


def written_table(caught: dict[Fault, set[str]], missed: list[str], on_a_gpu: list[str]) -> str:
    faults_of = defaultdict(list)
    for fault, tests in caught.items():
        for test in tests:
            faults_of[test].append(fault.name)
    rows = [f"| {test} | {names[0]} | {len(names)} |" for test, names in sorted(faults_of.items())]
    uncaught = [fault.name for fault, tests in caught.items() if not tests]
    return (
        "\n".join(
            [
                "# Faults and the properties that fail on them",
                "",
                "Written by `make audit`: every fault of `faults.json` is planted in a copy of the tree, and the tests "
                "named beside it there are run on it.",
                "",
                f"{len(caught)} of {len(FAULTS)} faults run, {len(uncaught)} of them not caught; "
                f"{len(rows)} properties fail on at least one, {len(missed)} on none.",
                "",
                "| property | fails on | faults it fails on |",
                "|---|---|---|",
                *rows,
                *(f"| {test} | **nothing** | 0 |" for test in missed),
                *(f"| {test} | not run: needs a GPU | |" for test in on_a_gpu),
                "",
                *(f"Not caught: {name}" for name in uncaught),
            ]
        ).rstrip()
        + "\n"
    )


def main(wanted: str = "") -> int:
    stopped = wanted == "--kept"
    caught = kept() if stopped else caught_by([fault for fault in FAULTS if wanted in fault.name])
    uncaught = [fault.name for fault, tests in caught.items() if not tests]
    if wanted and not stopped:
        for fault, tests in caught.items():
            print(f"{fault.name}: {', '.join(sorted(tests)) or 'NOT CAUGHT'}")
        return bool(uncaught)
    here = functions("not gpu")
    missed = sorted(here - set().union(*caught.values()))
    (ROOT / "tests/audit/AUDIT.md").write_text(
        written_table(caught, missed, sorted(functions("gpu") - here)), encoding="utf-8"
    )
    print(f"{len(caught)} faults, {len(uncaught)} not caught; {len(missed)} properties fail on no fault")
    for name in (*uncaught, *missed):
        print(f"  {name}")
    return bool(uncaught or missed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
