"""Who may import whom: DESIGN, section 2, read off the sources, and tried with everything else out of reach."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "reference": set(),
    "gpu": set(),
    "proofs": {"reference"},
    "tests": {"reference", "gpu", "proofs"},
}
# Each part imports only parts in groups to its left; what is not named here stands rightmost.
WALLS: dict[str, tuple[set[str], ...]] = {
    "reference": (
        {"_checks"},
        {"kernels", "inverse", "reshape", "loss", "step"},
        {"conditions"},
        {"network"},
        {"algorithm"},
    ),
    "gpu": (
        {"torch_ops", "cupy_ops"},
        {"kernels"},
        {"optim"},
        {"train"},
        {"experiments", "command_line"},
        {"bench"},
    ),
    "proofs": ({"claim", "certificates"}, {"claims", "rocq"}, {"ledger", "plots"}, {"limits"}, {"audit", "page"}),
    "tests": ({"conftest"}, {"support"}, {"reference", "gpu", "claims", "conformance"}, {"suite", "faults"}),
}
KNOWN_PACKAGES = {
    "reference": {"numpy", "scipy", "reference"},
    "gpu.torch_ops": {"numpy", "torch"},
    "gpu.cupy_ops": {"numpy", "cupy"},
    "gpu.kernels": {"numpy", "cupy", "gpu"},
}

# A finder that hides every package for which `hidden(name)` is true.
HIDING = """
import sys

class Hiding:
    def find_spec(self, name, path=None, target=None):
        if hidden(name.partition(".")[0]):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hiding())
"""
REFERENCE_ALONE = f"""
import sys
known = {{*sys.stdlib_module_names, "numpy", "scipy", "reference"}}
hidden = lambda package: package not in known and not package.startswith("_sysconfigdata")  # the library's as well
{HIDING}
import importlib, pkgutil, reference
for module in pkgutil.walk_packages(reference.__path__, "reference."):
    importlib.import_module(module.name)
"""
GPU_WITHOUT_CUPY = f"""
hidden = {{"cupy", "reference", "proofs", "tests"}}.__contains__
{HIDING}
import gpu, gpu.optim, gpu.torch_ops, torch
assert not torch.cuda.is_available()
try:
    import gpu.cupy_ops
except ImportError as error:
    assert "cuda12" in str(error) and "cuda13" in str(error)
else:
    raise AssertionError("gpu.cupy_ops without CuPy")
"""


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(room: str) -> dict[Path, str]:
    """The sources of a room and their import names."""
    return {file: name_of(file) for file in sorted((ROOT / room).rglob("*.py"))}


def imported(source: str, package: str) -> Iterator[str]:
    """Every name that is imported anywhere in the source of a module of `package`: a module, or something in one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports(room: str) -> Iterator[tuple[str, str]]:
    """All (importer, imported) of a room."""
    for file, name in files(room).items():
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        yield from ((name, target) for target in imported(file.read_text(encoding="utf-8"), package))


def part(name: str) -> str:
    """gpu.optim.cache → optim; nothing for a room itself."""
    return (*name.split("."), "")[1]


def rank(room: str, part: str) -> int:
    walls = WALLS[room]
    return next((rank for rank, group in enumerate(walls) if part in group), len(walls))


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_are_found_in_functions_and_resolved_where_relative() -> None:
    source = "import a.b, c as d\ndef f():\n    from . import e\n    from ..g.h import i\n    from j import k as l"
    assert list(imported(source, "room.part")) == ["a.b", "c", "room.part.e", "room.g.h.i", "j.k"]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_the_rooms_they_may(room: str) -> None:
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[room] - {room}
    assert [(importer, target) for importer, target in imports(room) if target.split(".")[0] in forbidden] == []


@pytest.mark.parametrize("room", WALLS)
def test_parts_of_a_room_import_only_what_stands_to_their_left(room: str) -> None:
    parts = {part(name) for name in files(room).values()} - {""}
    crossing = [
        (importer, target)
        for importer, target in imports(room)
        if target.split(".")[0] == room
        and part(target) in parts - {part(importer)}
        and not (importer == room or rank(room, part(target)) < rank(room, part(importer)))
    ]
    assert crossing == []


@pytest.mark.parametrize("name", KNOWN_PACKAGES)
def test_operations_know_their_array_libraries_alone(name: str) -> None:
    allowed = sys.stdlib_module_names | KNOWN_PACKAGES[name]
    foreign = [
        (importer, target)
        for importer, target in imports(name.split(".")[0])
        if f"{importer}.".startswith(f"{name}.") and target.split(".")[0] not in allowed
    ]
    assert foreign == []


def test_reference_works_where_only_numpy_and_scipy_are_installed() -> None:
    run = run_python(REFERENCE_ALONE)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_gpu_works_without_cupy_without_a_gpu_and_without_the_other_rooms() -> None:
    run = run_python(GPU_WITHOUT_CUPY, CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stderr
