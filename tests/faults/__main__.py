"""Runs the conformance suite on every wrong and every right backend, and writes what it reported of them.

The check passes when the suite reports every wrong backend, by the test that the table of faults names, and no right
one. Right backends take the whole suite, wrong ones the tests that are to report them. The tables go to
tests/faults/FAULTS.md. `python -m tests.faults NAME` runs the backends whose name contains NAME and writes nothing,
`--times 3` repeats every run (under HYPOTHESIS_PROFILE=ci-random, with other examples), `--damage` measures how small
an error the suite reports, `--largest 10000` and `--searched 10000` how large the ratios of right backends get in so
many examples a test. Finished runs are kept in runs/faults.json until the code changes.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.table import FAULTS
from tests.support import resumed
from tests.support.ratios import THRESHOLD

ROOT = resumed.ROOT
TABLES = ROOT / "tests/faults/FAULTS.md"
KEPT = ROOT / "runs" / "faults.json"
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
# The same examples, but failing ones are not made small: whether a test fails is asked here, not why.
UNSHRUNK = {"ci": "audit", "ci-random": "audit-random"}

Run = dict[str, Any]
Table = list[list[str]]


def run_suite(backend: str, only: str, profile: str) -> Run:
    """Of the tests whose identifier contains `only`: those that failed (operation, precision, name), how many passed,
    and the worst ratio with its kind."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-p", "no:cacheprovider"]
        selection = ["-p", "tests.faults.selection", f"--only={only}"]
        run = subprocess.run(
            [*command, *selection, f"--backend={backend}", f"--conformance-report={folder}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HYPOTHESIS_PROFILE": profile},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode not in (0, 1):
            raise RuntimeError(f"the suite on {backend} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}")
        found = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))["results"]
    seen = [(kind, seen["ratio"]) for result in found for kind, seen in result["ratios"].items()]
    ratios = [(math.inf if ratio is None else ratio, kind) for kind, ratio in seen]
    failed = [[r["operation"], r["dtype"], r["test"]] for r in found if r["outcome"] == "failed"]
    if run.returncode and not failed:
        raise RuntimeError(f"the suite on {backend} failed, but no test of the backend has:\n{run.stdout}")
    return {
        "failed": failed,
        "passed": sum(result["outcome"] == "passed" for result in found),
        "worst": max(ratios, default=(0.0, "")),
    }


def work(job: str) -> Run:
    """One run; the job says whether the backend is wrong or right, its name, profile and the number of the run."""
    kind, name, profile, _ = job.split()
    backend = f"tests.faults.{kind}:BACKENDS.{name}"
    if kind == "right":
        return run_suite(backend, only=backend, profile=profile)  # without the tests that are about no backend
    return run_suite(backend, only=FAULTS[name].reported_by, profile=UNSHRUNK.get(profile, profile))


def reported_in(name: str, run: Run) -> list[str]:
    """The precisions in which a test failed as the table of faults demands: about that operation, of that name."""
    fault = FAULTS[name]
    tests = [dtype for about, dtype, test in run["failed"] if about == fault.operation and fault.reported_by in test]
    return list(dict.fromkeys(tests))


def rows_of_wrong(runs: dict[str, list[Run]]) -> Table:
    rows = []
    for name, times in runs.items():
        fault = FAULTS[name]
        reported = [" and ".join(reported_in(name, run)) or "**nothing**" for run in times]
        by = f"`{fault.reported_by}` in {' / '.join(dict.fromkeys(reported))}"
        rows.append([f"`{name}`", fault.family, f"`{fault.replaces}`", fault.concept, by])
    return sorted(rows, key=lambda row: row[1])


def rows_of_right(runs: dict[str, list[Run]]) -> Table:
    rows = []
    for name, times in runs.items():
        reported = [test for run in times for *_, test in run["failed"]]
        ratio, kind = max(tuple(run["worst"]) for run in times)
        passed = "/".join(dict.fromkeys(str(run["passed"]) for run in times))
        shown = ", ".join(f"**`{test}`**" for test in dict.fromkeys(reported)) or "nothing"
        rows.append([f"`{name}`", shown, passed, f"{ratio:.3g} of {THRESHOLD:g}: {kind}"])
    return rows


def markdown(header: list[str], rows: Table) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def write_section(title: str, lines: list[str]) -> None:
    """Replace one section of FAULTS.md, and leave the others as they are."""
    text = TABLES.read_text(encoding="utf-8") if TABLES.exists() else "# What the conformance suite reports\n"
    before, *sections = text.rstrip().split("\n\n## ")
    kept = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    kept[title] = "\n" + "\n".join(lines)
    text = "\n\n## ".join([before, *(f"{title}\n{body}" for title, body in sorted(kept.items()))])
    TABLES.write_text(text + "\n", encoding="utf-8")


def check(wanted: str, times: int) -> int:
    from tests.faults.right import BACKENDS as RIGHT
    from tests.faults.wrong import FAMILIES

    names = [("wrong", name) for name in FAULTS] + [("right", name) for name in vars(RIGHT)]
    chosen = [(kind, name) for kind, name in names if wanted in name]
    jobs = [f"{kind} {name} {PROFILE} {k}" for k in range(times) for kind, name in chosen]
    found = resumed.results(work, jobs, KEPT, "backends")
    wrong, right = (
        {n: [found[f"{k} {n} {PROFILE} {i}"] for i in range(times)] for k, n in chosen if k == kind}
        for kind in ("wrong", "right")
    )
    unreported = [name for name, runs in wrong.items() if not all(reported_in(name, run) for run in runs)]
    reported = [name for name, runs in right.items() if any(run["failed"] for run in runs)]
    runs = "one run" if times == 1 else f"each of {times} runs"
    tables = {
        "1. Wrong backends": [
            f"{len(wrong) - len(unreported)} of {len(wrong)} reported in {runs} of the profile `{PROFILE}`, by a test "
            f"about the operation with the words below in its id. Families: {', '.join(FAMILIES)}.",
            "",
            *markdown(
                ["backend", "family", "instead of", "what is wrong", "reported by"],
                rows_of_wrong(wrong),
            ),
        ],
        "2. Right backends that compute otherwise": [
            f"{len(reported)} of {len(right)} reported in {runs} of the profile `{PROFILE}`.",
            "",
            *markdown(["backend", "reported", "tests passed", "worst ratio"], rows_of_right(right)),
        ],
    }
    for title, lines in tables.items():
        print(f"\n## {title}\n", *lines, sep="\n")
        if not wanted:
            write_section(title, lines)
    return bool(unreported or reported)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="only backends whose name contains this")
    parser.add_argument("--times", type=int, default=1, help="how often every backend is run")
    parser.add_argument("--damage", action="store_true", help="how small an error is reported")
    for option, how in (("--largest", "drawn"), ("--searched", "searched for")):
        parser.add_argument(option, type=int, metavar="N", help=f"the largest ratios of right backends, N inputs {how}")
    arguments = parser.parse_args()
    asked = {"drawn": arguments.largest, "searched": arguments.searched}
    if any(asked.values()):
        from tests.faults import largest

        for how, examples in asked.items():
            if examples:
                print(json.dumps(largest.search(examples, how), indent=1))
        return 0
    if not arguments.damage:
        return check(arguments.name, arguments.times)
    from tests.faults import damage

    lines = [damage.EXPLANATION, "", *markdown(list(damage.HEADER), list(damage.rows()))]
    print(*lines, sep="\n")
    write_section("3. The smallest error that is reported", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
