"""What pytest needs to run the suite over one backend after the other, and to say how each did.

A test takes `subject`, a backend at one precision, and never learns which. A backend that cannot run on this machine is
skipped with the reason and listed as not run; `--require-backend` makes that an error.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import report
from tests.conformance.backends import BUILT_IN, DTYPES, BackendError, NotHere, find
from tests.conformance.subject import Subject

SUBJECTS = pytest.StashKey[list[Any]]()
PROPERTY = RECORDER = "conformance"


class Recorder:
    """Collects what every test says of its subject, prints it at the end, and writes the report."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes = report.Outcomes(profile=os.environ.get("HYPOTHESIS_PROFILE", "ci"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("tests/conformance/")[2]
        found = [about for name, about in report.user_properties if name == PROPERTY]
        self.outcomes.results += [{"test": test, "outcome": report.outcome, **about} for about in found]
        if report.failed and test and not found:
            self.outcomes.elsewhere[test] = report.longreprtext

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.outcomes.results or self.config.getoption("--backend"):
            subjects(self.config)
            terminalreporter.section("conformance")
            for line in self.outcomes.summary():
                terminalreporter.write_line(line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        broken_off = session.exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        self.outcomes.stopped = broken_off or bool(session.shouldfail or session.shouldstop)
        folder = self.config.getoption("--conformance-report")
        if folder is not None and not hasattr(self.config, "workerinput"):
            subjects(self.config)
            self.outcomes.write(folder)
        asked_for = self.config.getoption("--backend") and not self.config.option.collectonly
        if asked_for and not self.outcomes.claimed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # what was not run has not passed


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "the conformance suite, tests/conformance")
    group.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"the backend to be tested: {', '.join(BUILT_IN)}, or module[:object]; may be given several times "
        "(default: all of ours)",
    )
    group.addoption("--require-backend", action="store_true", help="a backend that is not here is an error")
    group.addoption(
        "--conformance-report", type=Path, metavar="DIR", help="write report.json and report.html into this folder"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config), RECORDER)
    if config.getoption("--backend") or config.getoption("--require-backend"):
        subjects(config)  # a backend that is not known is an error before the first test


def subjects(config: pytest.Config) -> list[Any]:
    """A parameter for every backend and precision; found when first asked for, since torch takes a second to import."""
    if SUBJECTS in config.stash:
        return config.stash[SUBJECTS]
    outcomes = config.pluginmanager.get_plugin(RECORDER).outcomes
    config.stash[SUBJECTS] = subjects = []
    for name in dict.fromkeys(config.getoption("--backend") or BUILT_IN):
        try:
            candidate = find(name)
        except BackendError as error:
            raise pytest.UsageError(str(error)) from error
        except NotHere as reason:
            if config.getoption("--require-backend"):
                raise pytest.UsageError(f"backend {name!r} is not run: {reason}") from reason
            outcomes.not_here[name] = str(reason)
            continue
        claimed = [dtype for dtype in DTYPES if dtype in candidate.backend.dtypes]
        outcomes.claimed[name] = claimed
        for subject in (Subject(name, candidate, dtype) for dtype in claimed):
            # The quick selection of all tests holds one backend in one precision to the contract.
            quick = config.getoption("--backend") or repr(subject) == "torch-float64"
            subjects.append(pytest.param(subject, id=repr(subject), marks=() if quick else (pytest.mark.slow,)))
    return subjects


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        metafunc.parametrize("subject", subjects(metafunc.config))
    if "asked_for" in metafunc.fixturenames:
        subjects(metafunc.config)
        recorder = metafunc.config.pluginmanager.get_plugin(RECORDER)
        here, not_here = recorder.outcomes.claimed, recorder.outcomes.not_here
        reasons = {name: pytest.mark.skip(reason=f"not run: {name}: {reason}") for name, reason in not_here.items()}
        metafunc.parametrize("asked_for", [*here, *(pytest.param(name, marks=mark) for name, mark in reasons.items())])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of operations that the subject has from another backend, and all where no backend is here."""
    others = [item for item in items if (s := subject_of(item)) and operation_of(item) not in (*s.own, "")]
    if not config.stash.get(SUBJECTS, True):
        others = [item for item in items if "subject" in getattr(item, "fixturenames", ())]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Send what the subject has seen along with the test's outcome: another process may write the report."""
    outcome: Any = yield
    result, subject = outcome.get_result(), subject_of(item)
    if subject is not None and (result.when == "call" or result.failed):
        identity = {"backend": subject.name, "dtype": subject.dtype, "operation": operation_of(item)}
        raised = report.told(call.excinfo.value if call.excinfo else None)
        result.user_properties.append((PROPERTY, identity | raised | subject.collect()))


def subject_of(item: pytest.Item) -> Subject | None:
    """The backend that a test is run on, if it is a test of the suite."""
    subject = item.callspec.params.get("subject") if hasattr(item, "callspec") else None
    return subject if isinstance(subject, Subject) else None


def operation_of(item: pytest.Item) -> str:
    """The operation that a test is about: a parameter or a mark; empty where it is about arrays as such."""
    mark = item.get_closest_marker("operation")
    parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return str(parameters.get("operation", mark.args[0] if mark else ""))
