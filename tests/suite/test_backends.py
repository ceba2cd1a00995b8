"""What is no backend is refused before the first test, with all that is missing; what is not here is not run."""

# ruff: noqa: ARG005

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conformance.backends import SIGNATURES, BackendError, find, namespace
from tests.conformance.optimizer import stepping_with_kernel_sgd

ROOT = Path(__file__).parents[2]


def test_backend_is_here(asked_for: str) -> None:
    assert find(asked_for).backend


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module", r"no.such.module.*expected one of reference, torch.*module\[:object\]"),
        ("json:loads.nothing", r"'nothing' is not in"),
        ("json", ".*".join(f"`{function}` is missing" for function in SIGNATURES)),
    ],
)
def test_what_is_no_backend_is_refused_with_all_that_is_missing(name: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        find(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "`name`"),
        ({"dtypes": ()}, r"`dtypes` is \(\)"),
        ({"dtypes": ("float16",)}, r"`dtypes` is \('float16',\)"),
        ({"gram": lambda X: X}, r"`gram` takes \(X\): expected \(X, kernel, gamma=1.0, degree=3, coef0=1.0\)"),
        ({"gram": lambda X, kernel="rbf", *, gamma=2.0, degree=3, coef0=1.0: X}, r"`gram` has gamma=2.0 by default"),
        ({"gram": lambda X, kernel="linear", *, gamma=1.0, degree=3, coef0=1.0: X}, "`gram` has kernel='linear'"),
        ({"gram": lambda X, kernel, *, gamma=1.0, degree=3, coef0=1.0: X}, "`gram` takes .* expected"),
        ({"inverse_gram": lambda H, *, singular="raise": H}, "`inverse_gram` takes .* ridge=0.0"),
        (
            {"kernel_sgd_step": lambda W, P, grad, lr: W},
            "`kernel_sgd_step` has its arguments in the order W, P, grad, lr",
        ),
        ({"to_numpy": None}, "`to_numpy` is missing"),
    ],
)
def test_backend_that_does_not_take_the_calls_of_the_contract_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    module = SimpleNamespace(backend=namespace(stepping_with_kernel_sgd(), **changes))
    monkeypatch.setitem(sys.modules, "strangers_module", module)
    with pytest.raises(BackendError, match=message):
        find("strangers_module:backend")


def test_backend_of_a_stranger_is_found_on_the_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = stepping_with_kernel_sgd()
    monkeypatch.setitem(sys.modules, "strangers_module", SimpleNamespace(deep=SimpleNamespace(backend=backend)))
    assert find("strangers_module:deep.backend").backend is backend


def run_suite(*arguments: str, select: str = "test_good_input_is_taken") -> subprocess.CompletedProcess[str]:
    """The suite in a process of its own, where no GPU can be seen."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance", "-k", select]
    environment = {"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_backend_that_is_not_here_is_not_run_and_never_passed() -> None:
    run = run_suite("--backend=torch:cuda")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "torch:cuda: not run: no CUDA device" in run.stdout
    assert "passed" not in run.stdout
    required = run_suite("--backend=torch:cuda", "--require-backend")
    assert required.returncode == pytest.ExitCode.USAGE_ERROR
    assert "backend 'torch:cuda' is not run: no CUDA device" in required.stderr


@pytest.mark.slow
def test_unknown_backend_is_an_error_before_the_first_test() -> None:
    run = run_suite("--backend=nowhere")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "backend 'nowhere'" in run.stderr
    assert not re.search("passed|failed", run.stdout)
