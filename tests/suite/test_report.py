"""The report says what was collected, all of it and nothing else, on a page that needs nothing beside it."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from gpu import torch_ops
from tests.conformance import report
from tests.conformance.backends import OPERATIONS, find, namespace
from tests.conformance.plugin import PROPERTY, Recorder
from tests.conformance.report import Outcomes, number, shade, told, width
from tests.conformance.subject import LONGEST, Subject
from tests.suite.test_backends import ROOT, run_suite
from tests.support.bad_input import GOOD, TABLE, good_call
from tests.support.calls import Call


def doubled(X: Any, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0) -> Any:
    return torch_ops.gram(X, kernel, gamma=2 * gamma, degree=degree, coef0=coef0)


WRONG = namespace(torch_ops, name="wrong", gram=doubled)
HERE = "tests.suite.test_report:WRONG"
FAILURE = {"message": "gram <rbf>: ratio inf & more", "code": "import numpy as np\nassert 1 < 2 > 'x'"}


def result(backend: str, operation: str, outcome: str = "passed", ratio: float = 1.5, **more: Any) -> dict[str, Any]:
    identity = {"backend": backend, "dtype": "float64", "operation": operation, "test": f"test_x.py::test_{outcome}<1>"}
    rest = {"message": "", "code": "", "notes": [], "ratios": {f"{operation} kind": {"ratio": ratio, "times": 40}}}
    return identity | {"outcome": outcome} | rest | more


@pytest.fixture
def outcomes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Outcomes:
    """A backend that is right, one that is wrong, and one that is not here; what right ones had in all earlier runs."""
    largest = tmp_path_factory.mktemp("known") / "largest.json"
    seen = {"gram kind": {"float64": {"ratio": 1.25, "results": 30}, "float32": {"ratio": 0.5, "results": 10}}}
    searched = {"gram kind": {"float64": {"ratio": 2.5, "results": 2}}}
    largest.write_text(json.dumps({"drawn": {"largest": seen}, "searched": {"largest": searched}}), "utf-8")
    monkeypatch.setattr(report, "LARGEST", largest)
    results = [result(name, operation) for name in ("right", "off") for operation in (*OPERATIONS, "")]
    results.append(result("off", "gram", "failed", np.inf, **FAILURE))
    results.append(result("right", "gram", "skipped", message="not run: no <read-only> arrays", ratios={}))
    results.append(result("off", "", ratio=0.5, notes=["device of results: unchecked"]))
    return Outcomes("ci", {"right": ["float64"], "off": ["float64", "float32"]}, {"far": "no <CUDA> device"}, results)


def read(folder: Path) -> tuple[dict[str, Any], str]:
    """The record, by a reader that takes JSON alone, and the page."""
    record = json.loads((folder / "report.json").read_text("utf-8"), parse_constant=pytest.fail)
    return record, (folder / "report.html").read_text("utf-8").replace("<wbr>", "")


def test_json_is_what_was_collected(outcomes: Outcomes, tmp_path: Path) -> None:
    collected = copy.deepcopy(outcomes.results)
    outcomes.write(tmp_path / "new" / "folder")
    record, _ = read(tmp_path / "new" / "folder")
    collected[-3]["ratios"]["gram kind"]["ratio"] = None

    def name(result: dict[str, Any]) -> str:
        return json.dumps(result, sort_keys=True)

    assert sorted(record["results"], key=name) == sorted(collected, key=name)
    assert [row["operation"] for row in record["operations"]] == [*OPERATIONS, ""]
    right, off = record["operations"][0]["cells"]
    assert right["ratios"] == {"gram kind": {"ratio": 1.5, "times": 40}}
    assert off["ratios"] == {"gram kind": {"ratio": None, "times": 80}}
    assert record["operations"][-1]["cells"][1]["ratios"] == {" kind": {"ratio": 1.5, "times": 80}}
    counts = [{key: cell[key] for key in ("passed", "failed", "skipped")} for cell in (right, off)]
    assert counts == [{"passed": 1, "failed": 0, "skipped": 1}, {"passed": 1, "failed": 1, "skipped": 0}]
    assert record["not_run"] == [
        {"backend": "far", "dtype": "", "reason": "no <CUDA> device", "tests": None},
        {"backend": "right", "dtype": "float32", "reason": "not claimed", "tests": None},
        {"backend": "right", "dtype": "float64", "reason": "no <read-only> arrays", "tests": 1},
    ]
    assert record["notes"] == [{"backend": "off", "dtype": "float64", "note": "device of results: unchecked"}]
    assert record["right_ones"] == {"gram kind": {"ratio": 2.5, "results": 42}}


def test_page_shows_every_operation_failure_code_reason_and_note_escaped(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.elsewhere["test_y.py::test_z<2>"] = "died <here>"
    outcomes.write(tmp_path)
    record, page = read(tmp_path)
    everything = [
        *OPERATIONS,
        *(verdict["sentence"] for verdict in record["verdicts"]),
        *(entry["reason"] for entry in record["not_run"]),
        *FAILURE.values(),
        "right ones ≤ 2.5, of 42",
        *("test_x.py::test_failed<1>", "test_y.py::test_z<2>", "died <here>", "device of results: unchecked"),
        *record["provenance"]["versions"].values(),
    ]
    assert [text for text in everything if escape(text) not in page] == []
    assert not re.search("<(rbf|here|CUDA|read-only|1|2)", page)


def test_page_needs_nothing_beside_it_and_runs_nothing(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.write(tmp_path)
    assert not re.search(r"https?:|<script|<link|<img|src=|url\(|@import|\son\w+=", read(tmp_path)[1])


def test_report_is_whole_or_not_there(outcomes: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes.write(tmp_path)
    before = read(tmp_path)
    monkeypatch.setattr(report, "page", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Outcomes("nightly").write(tmp_path)
    with pytest.raises(ZeroDivisionError):
        Outcomes("nightly").write(tmp_path / "new")
    assert read(tmp_path) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["report.html", "report.json"]


def test_every_backend_that_was_asked_for_has_a_verdict(outcomes: Outcomes) -> None:
    outcomes.claimed["idle"] = ["float64"]
    outcomes.results[0]["ratios"]["gram kind"]["ratio"] = 2.0

    def verdicts() -> dict[str, str]:
        return {verdict["backend"]: f"[{verdict['status']}] {verdict['sentence']}" for verdict in outcomes.verdicts()}

    assert verdicts() == {
        "right": "[passed] right: passes 7 tests in float64; worst ratio 2 against 30 (gram kind, float64)",
        "off": "[failed] off: fails 1 of 9 tests in float64, in gram; worst ratio ∞ against 30 (gram kind, float64)",
        "idle": "[not run] idle: not run: none of its tests was",
        "far": "[not run] far: not run: no <CUDA> device",
    }
    outcomes.elsewhere["test_y"] = "died"
    assert verdicts()["right"].startswith(
        "[incomplete] right: nothing failed in 7 tests in float64, but something else"
    )
    outcomes.stopped = True
    assert "but the run was stopped early" in verdicts()["right"]
    assert verdicts()["off"].startswith("[failed]")
    outcomes.results = [result("right", "gram")]
    assert "7 tests" not in verdicts()["right"]
    assert "1 test in float64 (gram alone)" in verdicts()["right"]


def test_summary_is_a_table_of_worst_ratios_then_verdicts_then_what_was_not_run(outcomes: Outcomes) -> None:
    outcomes.results.append(result("off", "kernel_sgd_step", ratio=29.0))
    lines = [re.sub("  +", " | ", line) for line in outcomes.summary()]
    assert lines[:4] == [
        "worst ratio, of 30 | right ones | right | off",
        " | float64 | float64",
        "gram | 1 passed | 1 FAILED",
        " | gram kind | ≤ 2.5 | 1.5 | ∞ !!",
    ]
    assert " | kernel_sgd_step kind | 1.5 | 29 !" in lines
    verdicts = [verdict["sentence"] for verdict in outcomes.verdicts()]
    assert lines[16:] == [
        *verdicts,
        "right float32: not run: not claimed",
        "right float64: 1 test not run: no <read-only> arrays",
        "off float64: device of results: unchecked",
    ]
    assert len({len(line) for line in outcomes.summary()[:16]}) == 1


def test_report_goes_without_what_was_never_measured(
    outcomes: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LARGEST", tmp_path / "missing.json")
    outcomes.write(tmp_path)
    record, page = read(tmp_path)
    assert record["right_ones"] == {}
    assert "right ones" not in page
    assert "right ones" not in "".join(outcomes.summary())


@pytest.mark.parametrize(
    ("ratio", "text", "kind", "per_cent"),
    [
        *(
            (0.0, "0", "fine", 0),
            (0.01, "0.01", "fine", 0),
            (0.5477226, "0.548", "fine", 50),
            (10.0, "10", "fine", 86.3),
        ),
        *((10.1, "10.1", "close", 86.4), (30.0, "30", "close", 100), (30.1, "30.1", "failed", 100)),
        *((2.25e15, "2.25e15", "failed", 100), (None, "∞", "failed", 100), (np.inf, "∞", "failed", 100)),
    ],
)
def test_ratio_is_shown_by_number_colour_and_a_bar_on_a_log_scale(
    ratio: float | None, text: str, kind: str, per_cent: float
) -> None:
    assert (number(ratio), shade(ratio), width(ratio)) == (text, kind, per_cent)


def test_failure_is_told_by_message_and_code() -> None:
    subject = Subject("torch", find("torch"), "float32")
    call = good_call("gram", "float32")
    with pytest.raises(AssertionError) as wrong, subject.blamed_on(call):
        raise AssertionError("wrong")
    wrong.value.add_note("Falsifying example")
    assert told(wrong.value) == {"message": "wrong", "code": subject.code(call)}
    drawn = KeyError("k")
    drawn.add_note("Falsifying example: x=1")
    assert told(drawn) == {"message": "KeyError: 'k'", "code": "Falsifying example: x=1"}
    both = told(ExceptionGroup("two", [wrong.value, drawn]))
    assert both == {"message": "wrong\n\nKeyError: 'k'", "code": f"{subject.code(call)}\n\nFalsifying example: x=1"}
    assert told(None) == {"message": "", "code": ""}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_code_to_paste_runs_as_is(capsys: pytest.CaptureFixture[str], dtype: str) -> None:
    subject = Subject("torch", find("torch"), dtype)
    for row in TABLE.values():
        with pytest.raises(row.error):
            exec(subject.code(row.call(dtype)), {})
    for operation in GOOD:
        exec(subject.code(good_call(operation, dtype)), {})
    assert capsys.readouterr().out.count(": ratio ") == len(GOOD) + 1  # the loss has two
    exec(subject.code(Call("gram", (np.zeros(LONGEST + 1),), {})), {})


def test_failure_of_no_backend_is_kept_apart() -> None:
    recorder = Recorder(None)  # type: ignore[arg-type]
    about = result("right", "gram")
    nodes = {"tests/conformance/test_x.py::x": [(PROPERTY, about)], "tests/conformance/y": [], "tests/gpu/z": []}
    for nodeid, found in nodes.items():
        recorder.pytest_runtest_logreport(
            SimpleNamespace(nodeid=nodeid, user_properties=found, outcome="failed", failed=True, longreprtext="died")
        )
    assert recorder.outcomes.elsewhere == {"y": "died"}
    assert recorder.outcomes.results == [about]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a wrong backend, by one process and by two."""
    folders = [tmp_path_factory.mktemp("report") for _ in range(2)]
    for folder, workers in zip(folders, ("0", "2"), strict=True):
        options = [f"--backend={HERE}", f"--conformance-report={folder}", "-n", workers]
        run = run_suite(*options, select="test_gram_is_the_kernel_of_all_pairs and rbf or test_good")
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    return folders


@pytest.mark.slow
def test_two_processes_report_what_one_does(reports: list[Path]) -> None:
    one, two = (read(folder)[0] for folder in reports)
    assert one["verdicts"][0]["status"] == "failed"
    assert {**one, "finished": two["finished"]} == two


@pytest.mark.slow
def test_failing_case_in_the_report_can_be_pasted_and_shows_the_fault(reports: list[Path]) -> None:
    record, page = read(reports[0])
    failed = [result for result in record["results"] if result["outcome"] == "failed"]
    assert {result["operation"] for result in failed} == {"gram"}
    for result in failed:
        assert "ratio" in result["message"]
        assert "should be" in result["message"]
        assert escape(result["code"]) in page
        run = subprocess.run(
            [sys.executable, "-c", result["code"]], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert result["message"] in run.stdout


@pytest.mark.slow
def test_page_opens_in_a_browser_with_nothing_on_its_console(outcomes: Outcomes, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("not run: no chromium")
    outcomes.write(tmp_path)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}",
    ]
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [chromium, *options, *quiet, "--dump-dom", (tmp_path / "report.html").as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "CONSOLE" not in run.stderr
    assert "</html>" in run.stdout
