"""The suite's findings as lines for the terminal, as JSON, and as one HTML page that needs nothing beside it.

report.json, of which report.html shows every part:

    finished, profile, threshold    when (UTC), under which Hypothesis profile, and the ratio above which a test fails
    right_ones                      by kind: the largest ratio ever seen on a right backend, and of how many results
    provenance                      versions, machine, gpus, commit, and whether files differ from it (dirty)
    verdicts                        one a backend: backend, sentence, and status: passed, failed, incomplete, not run
    operations                      one an operation ("" is what is about arrays as such): operation, kinds, and cells,
                                    one a backend and dtype: backend, dtype, passed, failed, skipped (numbers of tests),
                                    and ratios, by kind: the worst `ratio`, and of how many results (`times`)
    not_run                         backend, dtype ("" is every one), tests (how many; null is all of them), reason
    notes                           what could not be checked: backend, dtype, note
    results                         one a test: test, backend, dtype, operation, outcome (passed, failed, skipped),
                                    message, code (the smallest failing input, to paste), ratios, notes
    elsewhere                       failures of no backend, by test: of the suite itself, or of a process that died
    stopped                         whether the run ended before its last test

A ratio is null where it is infinite: a result that is not finite, or not exact where it must be.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

from tests.conformance.backends import DTYPES, OPERATIONS
from tests.conformance.subject import PROGRAM
from tests.support.ratios import THRESHOLD

LIBRARIES = ("cupy-cuda12x", "cupy-cuda13x", "hypothesis", "jax", "pytest", "python-flint")  # beside `provenance`'s
TEMPLATE = Path(__file__).with_name("report.html.j2")
LARGEST = Path(__file__).with_name("largest.json")  # python -m tests.faults --largest, --searched
SHORTEST_BAR = 0.01  # bars go from here to the threshold, on a log scale
Result = dict[str, Any]


@dataclass
class Outcomes:
    """`claimed`: the backends that are here and their dtypes. `not_here`: those that are not, and why. `results`,
    `elsewhere` and `stopped`: as in the JSON, but that ratios may be infinite."""

    profile: str
    claimed: dict[str, list[str]] = field(default_factory=dict)
    not_here: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    def summary(self) -> list[str]:
        """A table of the worst ratios, the verdicts, what was not run and what could not be checked."""
        notes = [f"{note['backend']} {note['dtype']}: {note['note']}" for note in self.notes()]
        tests = [f"{_subject(e)}: {_tests(e['tests'])} not run: {e['reason']}" for e in self.not_run() if e["tests"]]
        unclaimed = [f"{_subject(e)}: not run: {e['reason']}" for e in self.not_run() if e["dtype"] and not e["tests"]]
        return [*self._table(), *(v["sentence"] for v in self.verdicts()), *unclaimed, *tests, *notes]

    def record(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "profile": self.profile,
            "threshold": THRESHOLD,
            "right_ones": right_ones(),
            "provenance": _provenance(),
            "verdicts": self.verdicts(),
            "operations": list(self.operations()),
            "not_run": self.not_run(),
            "notes": self.notes(),
            "results": self._sorted(),
            "elsewhere": self.elsewhere,
            "stopped": self.stopped,
        }

    def write(self, folder: Path) -> None:
        """report.json and report.html in `folder`, each whole or not there."""
        record = _finite(self.record())
        texts = {"report.json": json.dumps(record, indent=1, allow_nan=False), "report.html": page(record)}
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            part = folder / f".{name}.part"
            part.write_text(text, encoding="utf-8")
            os.replace(part, folder / name)

    def operations(self) -> Iterator[dict[str, Any]]:
        """The matrix: per operation that was tested, per backend and dtype, the outcomes and the worst ratios."""
        for operation in (*OPERATIONS, ""):
            cells = [self._cell(operation, *subject) for subject in self._subjects()]
            if any(cell["passed"] + cell["failed"] + cell["skipped"] for cell in cells):
                kinds = sorted({kind for cell in cells for kind in cell["ratios"]})
                yield {"operation": operation, "kinds": kinds, "cells": cells}

    def verdicts(self) -> list[dict[str, str]]:
        """One sentence a backend, of those that were asked for."""
        not_here = [
            {"backend": name, "status": "not run", "sentence": f"{name}: not run: {reason}"}
            for name, reason in self.not_here.items()
        ]
        return [*(self._verdict(backend) for backend in self.claimed), *not_here]

    def not_run(self) -> list[dict[str, Any]]:
        """Every backend, every dtype of one, and the tests of those that ran, that were not run, and why."""
        backends = [{"backend": name, "dtype": "", "reason": reason} for name, reason in self.not_here.items()]
        dtypes = [
            {"backend": name, "dtype": dtype, "reason": "not claimed"}
            for name, claimed in self.claimed.items()
            for dtype in DTYPES
            if dtype not in claimed
        ]
        skipped = Counter(
            (result["backend"], result["dtype"], result["message"].removeprefix("not run: "))
            for result in self.results
            if result["outcome"] == "skipped"
        )
        return [entry | {"tests": None} for entry in (*backends, *dtypes)] + [
            {"backend": backend, "dtype": dtype, "reason": reason, "tests": times}
            for (backend, dtype, reason), times in sorted(skipped.items())
        ]

    def notes(self) -> list[dict[str, str]]:
        """What could not be checked, each once a backend and dtype."""
        seen = {(result["backend"], result["dtype"], note) for result in self.results for note in result["notes"]}
        return [{"backend": backend, "dtype": dtype, "note": note} for backend, dtype, note in sorted(seen)]

    def _sorted(self) -> list[Result]:
        """The results in the order of the matrix, in whatever order the tests were run."""
        rows, columns = (*OPERATIONS, ""), self._subjects()

        def place(result: Result) -> tuple[int, int, str]:
            column = columns.index((result["backend"], result["dtype"]))
            return rows.index(result["operation"]), column, result["test"]

        return sorted(self.results, key=place)

    def _subjects(self) -> list[tuple[str, str]]:
        ran = {(result["backend"], result["dtype"]) for result in self.results}
        return [pair for pair in product(self.claimed, DTYPES) if pair in ran]

    def _cell(self, operation: str, backend: str, dtype: str) -> dict[str, Any]:
        key = operation, backend, dtype
        mine = [result for result in self.results if (result["operation"], result["backend"], result["dtype"]) == key]
        ratios: dict[str, dict[str, Any]] = {}
        for kind, seen in (item for result in mine for item in result["ratios"].items()):
            worst = ratios.setdefault(kind, {"ratio": 0.0, "times": 0})
            worst["ratio"] = max(worst["ratio"], seen["ratio"])
            worst["times"] += seen["times"]
        outcomes = Counter(result["outcome"] for result in mine)
        counts = {outcome: outcomes[outcome] for outcome in ("passed", "failed", "skipped")}
        return {"backend": backend, "dtype": dtype, **counts, "ratios": ratios}

    def _verdict(self, backend: str) -> dict[str, str]:
        ran = [result for result in self.results if result["backend"] == backend and result["outcome"] != "skipped"]
        failed = [result for result in ran if result["outcome"] == "failed"]
        dtypes = {result["dtype"] for result in ran}
        tests = f"{_tests(len(ran))} in {' and '.join(dtype for dtype in DTYPES if dtype in dtypes)}"
        tested = {result["operation"] for result in ran}
        if not tested >= set(OPERATIONS):
            tests += f" ({_names(tested)} alone)"
        if failed:
            where = _names({result["operation"] for result in failed})
            status, sentence = "failed", f"fails {len(failed)} of {tests}, in {where}"
        elif not ran:
            status, sentence = "not run", "not run: none of its tests was"
        elif self.stopped or self.elsewhere:
            reason = "the run was stopped early" if self.stopped else "something else did: see the failures"
            status, sentence = "incomplete", f"nothing failed in {tests}, but {reason}"
        else:
            status, sentence = "passed", f"passes {tests}"
        ratios = [(seen["ratio"], kind, result["dtype"]) for result in ran for kind, seen in result["ratios"].items()]
        if ratios:
            worst, kind, dtype = max(ratios)
            sentence += f"; worst ratio {number(worst)} against {THRESHOLD:g} ({kind}, {dtype})"
        return {"backend": backend, "status": status, "sentence": f"{backend}: {sentence}"}

    def _table(self) -> Iterator[str]:
        """Rows of operations, each above its kinds of ratio; columns of backends and dtypes."""
        names, dtypes = zip(*self._subjects(), strict=True) if self._subjects() else ((), ())
        known = right_ones()
        heading = ["right ones" if known else "", *names]
        rows = [(f"worst ratio, of {THRESHOLD:g}", heading), ("", ["", *dtypes])] if names else []
        for row in self.operations():
            rows.append((title(row["operation"]), ["", *(_count(cell) for cell in row["cells"])]))
            for kind in row["kinds"]:
                right = [f"≤ {number(known[kind]['ratio'])}" if kind in known else ""]
                seen = [cell["ratios"].get(kind) for cell in row["cells"]]
                rows.append((f"  {kind}", right + ["–" if one is None else _flagged(one["ratio"]) for one in seen]))
        widths = [max(map(len, column)) for column in zip(*(cells for _, cells in rows), strict=True)]
        for label, cells in rows:
            yield f"{label:<31}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def right_ones() -> dict[str, dict[str, Any]]:
    """Per kind the largest ratio that was seen on right backends, drawn or searched for, and of how many results."""
    largest: dict[str, dict[str, Any]] = {}
    for how in json.loads(LARGEST.read_text(encoding="utf-8")).values() if LARGEST.exists() else ():
        for kind, precisions in how["largest"].items():
            entry = largest.setdefault(kind, {"ratio": 0.0, "results": 0})
            entry["ratio"] = max(entry["ratio"], *(seen["ratio"] for seen in precisions.values()))
            entry["results"] += sum(seen["results"] for seen in precisions.values())
    return largest


def told(raised: BaseException | None) -> dict[str, str]:
    """What a failure says: its message, and code to paste; without a call of the backend, what Hypothesis drew."""
    if raised is None:
        return {"message": "", "code": ""}
    if isinstance(raised, BaseExceptionGroup):  # several distinct failures of one test
        each = [told(one) for one in raised.exceptions]
        return {key: "\n\n".join(one[key] for one in each) for key in ("message", "code")}
    plain = isinstance(raised, (AssertionError, pytest.skip.Exception))
    notes = getattr(raised, "__notes__", [])
    return {
        "message": str(raised) if plain else f"{type(raised).__name__}: {raised}",
        "code": next((note for note in notes if note.startswith(PROGRAM)), "\n".join(notes)),
    }


def page(record: dict[str, Any]) -> str:
    """The record, as it is read from the JSON, as HTML."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"number": number, "shade": shade, "width": width, "title": title}
    environment.filters |= {"subject": _subject, "tests": _tests}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(record)


def number(ratio: float | None) -> str:
    return "∞" if ratio is None or math.isinf(ratio) else f"{ratio:.3g}".replace("e+", "e")


def shade(ratio: float | None) -> str:
    """How a ratio is shown: failed, close (above a third of the threshold), or fine."""
    if ratio is None or not ratio <= THRESHOLD:
        return "failed"
    return "close" if ratio > THRESHOLD / 3 else "fine"


def width(ratio: float | None) -> float:
    """The length of a ratio's bar in per cent: 0 at SHORTEST_BAR, 100 at the threshold, on a log scale."""
    share = 1.0 if ratio is None else math.log(max(ratio, SHORTEST_BAR) / SHORTEST_BAR, THRESHOLD / SHORTEST_BAR)
    return round(100 * min(share, 1.0), 1)


def title(operation: str) -> str:
    return operation or "arrays as such"


def _flagged(ratio: float) -> str:
    return number(ratio) + {"failed": " !!", "close": " !", "fine": ""}[shade(ratio)]


def _count(cell: dict[str, Any]) -> str:
    if cell["failed"]:
        return f"{cell['failed']} FAILED"
    return f"{cell['passed']} passed" if cell["passed"] else "not run"


def _names(operations: set[str]) -> str:
    return ", ".join(title(operation) for operation in (*OPERATIONS, "") if operation in operations)


def _tests(count: int) -> str:
    return f"{count} test" + "s" * (count != 1)


def _subject(entry: dict[str, Any]) -> str:
    return f"{entry['backend']} {entry['dtype']}".rstrip()


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _provenance() -> dict[str, Any]:
    import torch

    from gpu.train.provenance import provenance

    found = provenance()
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found["versions"][library] = version(library)
    return found | {"gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}
