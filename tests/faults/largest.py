"""How large the ratios of right backends get: the accuracy tests on many more examples, drawn or searched for.

So many examples an operation and precision, shared equally among its tests, are run on every right backend in parts of
1000, each with a seed of its own, so that a stopped run goes on, and a later one adds to it. A search is led by
`hypothesis.target` on every ratio. What was found stands in tests/conformance/largest.json, and from there in every
report, beside the threshold.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import hypothesis

from gpu.train.provenance import provenance
from tests.conformance import test_accuracy as accuracy
from tests.conformance.backends import DTYPES, find
from tests.conformance.report import LARGEST
from tests.conformance.subject import Subject
from tests.support import resumed

PART = 1000
PROFILES = {"drawn": "ci", "searched": "nightly"}  # in the second the suite searches
BACKENDS = ("torch",)
KEPT = resumed.ROOT / "runs" / "largest.json"


Test = tuple[str, dict[str, Any]]


def tests() -> Iterator[tuple[str, Test]]:
    """The accuracy tests that draw inputs and judge ratios, by operation: name, and the kernel where there is one."""
    for name, test in vars(accuracy).items():
        if hypothesis.is_hypothesis_test(test) and "hold" in test.hypothesis.inner_test.__code__.co_names:
            marks = {mark.name: mark.args for mark in test.pytestmark}
            operation, (argument, values) = marks["operation"][0], marks.get("parametrize", ("", ()))
            if not argument:
                yield operation, (name, {})
            elif argument == "kernel":
                yield from ((operation, (name, {"kernel": kernel})) for kernel in values)


def parts(examples: int) -> Iterator[tuple[Test, int]]:
    """Every test with the seeds of its parts, which are at least `examples` together for all tests of an operation."""
    of_operation: dict[str, list[Test]] = {}
    for operation, test in tests():
        of_operation.setdefault(operation, []).append(test)
    for several in of_operation.values():
        seeds = range(-(-examples // (PART * len(several))))
        yield from ((test, seed) for test in several for seed in seeds)


def part(backend: str, dtype: str, name: str, parameters: str, seed: str) -> dict[str, Any]:
    """The worst ratio of every kind in a part, and of how many results; an AssertionError where one is too large.

    Once a process: the decorators change the test.
    """
    subject = Subject(backend, find(backend), dtype)
    test = hypothesis.settings(max_examples=PART, database=None)(getattr(accuracy, name))
    partial(hypothesis.seed(int(seed))(test), **json.loads(parameters))(subject)
    return dict(subject.collect()["ratios"])


def work(job: str) -> dict[str, Any]:
    how, *rest = job.split("|")
    environment = {**os.environ, "HYPOTHESIS_PROFILE": PROFILES[how]}
    command = [sys.executable, "-m", "tests.faults.largest", *rest]
    run = subprocess.run(command, cwd=resumed.ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{job} ended with {run.returncode}:\n{run.stderr}")
    return dict(json.loads(run.stdout))


def search(examples: int, how: str) -> dict[str, Any]:
    """Per kind and precision the largest ratio, of how many results and of which backend; into largest.json."""
    jobs = [
        "|".join((how, backend, dtype, name, json.dumps(parameters), str(seed)))
        for (name, parameters), seed in parts(examples)
        for backend in BACKENDS
        for dtype in DTYPES
    ]
    largest: dict[str, Any] = {}
    for job, seen in resumed.results(work, jobs, KEPT, how).items():
        _, backend, dtype, *_ = job.split("|")
        for kind, worst in seen.items():
            entry = largest.setdefault(kind, {}).setdefault(dtype, {"ratio": 0.0, "results": 0, "backend": backend})
            entry["results"] += worst["times"]
            if worst["ratio"] > entry["ratio"]:
                entry |= {"ratio": worst["ratio"], "backend": backend}
    record = json.loads(LARGEST.read_text(encoding="utf-8")) if LARGEST.exists() else {}
    record[how] = {"examples": examples, "largest": largest, "provenance": provenance()}
    LARGEST.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return largest


if __name__ == "__main__":
    import tests.conftest  # where the profiles are

    print(json.dumps(part(*sys.argv[1:])))
