"""What a result was computed with: versions, machine, commit."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu import __version__


def provenance() -> dict[str, Any]:
    """Versions, machine (the processor's model) and the commit of this source tree, for JSON."""
    packages = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch")}
    return {
        "versions": {"kernel-sgd": __version__, "python": platform.python_version(), **packages},
        "machine": _processor(),
        **_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> dict[str, Any]:
    """The commit, and whether files differ from it; None outside a git checkout of this source, or without git."""
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git("rev-parse", "HEAD") if tracked else None
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    package = Path(__file__).parent.parent
    try:
        done = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
