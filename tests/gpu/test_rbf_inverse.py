"""The fused kernel: compiled for GPUs, run on the CPU as its own text between stand-ins, compared with its twin."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

import reference
from tests.support import ratios, strategies

cupy = pytest.importorskip("cupy")

from gpu import cupy_ops  # noqa: E402
from gpu.kernels import rbf_inverse  # noqa: E402
from tests.gpu import stand_in  # noqa: E402

Array = NDArray[Any]
Inverses = Callable[[Array, float, float], tuple[Array, Array]]

REAL = {"float64": "double", "float32": "float"}
FLOATS = pytest.mark.parametrize("dtype", REAL)
KERNELS = ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)]
THREADS = 96  # three warps are as good as eight, and a barrier is soon reached
draws = st.data()


def built(output: Path, *options: str) -> Path:
    """The emulation, by g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    source, folder = Path(__file__).with_name("emulation.cpp"), rbf_inverse.SOURCE.parent
    arguments = ["-std=c++20", "-O1", "-pthread", *rbf_inverse.DEFINITIONS, *options, f"-I{folder}"]
    subprocess.run([compiler, *arguments, str(source), "-o", str(output)], check=True)
    return output


def emulated(folder: Path) -> Inverses:
    """The kernel's text on the CPU, launched by the lines that launch it on a GPU."""
    compiled = ctypes.CDLL(str(built(folder / "emulation.so", "-shared", "-fPIC")))
    shared_memory = (ctypes.c_char * 2**18).in_dll(compiled, "memory")

    def get_function(name: str) -> Any:
        run = getattr(compiled, name.replace("<", "_").removesuffix(">"))

        def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], shared_mem: int) -> None:
            assert block == (rbf_inverse.THREADS,)
            assert shared_mem == launch.max_dynamic_shared_size_bytes  # type: ignore[attr-defined]
            beyond = shared_memory[shared_mem:] = bytes(len(shared_memory) - shared_mem)
            run(*grid, THREADS, *map(foreign, arguments))
            assert shared_memory[shared_mem:] == beyond

        return launch

    def inverses(X: Array, gamma: float, ridge: float) -> tuple[Array, Array]:
        module = SimpleNamespace(get_function=get_function)
        rbf_inverse._kernel.cache_clear()
        with stand_in.installed(rbf_inverse, RawModule=lambda **_: module):
            found = rbf_inverse.rbf_inverses(cupy_ops.from_numpy(X, str(X.dtype)), gamma=gamma, ridge=ridge)
        rbf_inverse._kernel.cache_clear()
        return found[0].get(), found[1].get()

    return inverses


def foreign(argument: Any) -> Any:
    """As CuPy passes it to a kernel: the address of an array, a NumPy scalar in its own width."""
    if isinstance(argument, stand_in.Array):
        return ctypes.c_void_p(argument.data.ptr)
    return {np.int32: ctypes.c_int, np.float32: ctypes.c_float, np.float64: ctypes.c_double}[type(argument)](argument)


def library(where: str) -> Inverses:
    """What users call, on arrays of NumPy (the twin) or of the GPU."""
    put = cupy_ops.on(where).from_numpy

    def inverses(X: Array, gamma: float, ridge: float) -> tuple[Array, Array]:
        found, failed = rbf_inverse.rbf_inverses(put(X, str(X.dtype)), gamma=gamma, ridge=ridge)
        return cupy_ops.to_numpy(found), cupy_ops.to_numpy(failed)

    return inverses


TWIN = library("numpy")


def implementation(where: str, folders: pytest.TempPathFactory) -> Inverses:
    if where == "emulated":
        return emulated(folders.mktemp("emulation"))
    return TWIN if where == "twin" else library("cuda")


@pytest.fixture(scope="session", params=KERNELS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inverses:
    return implementation(request.param, tmp_path_factory)


@pytest.fixture(scope="session", params=["twin", *KERNELS])
def inverses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inverses:
    return implementation(request.param, tmp_path_factory)


def check(inverses: Inverses, X: Array, gamma: float, ridge: float) -> Array:
    """Every inverse solves its equation or is marked, and what is far from singular is not marked. The marks.

    The kernel's Gram matrices are judged with the inverses; the twin's are those of `cupy_ops.gram`, which by DESIGN,
    section 6, may be off by more than the inverse's ratio allows.
    """
    gram = cupy_ops.gram if inverses is TWIN else reference.gram
    found, failed = inverses(X, gamma, ridge)
    for x, inverse, marked in zip(X, found, failed, strict=True):
        H = gram(x, gamma=gamma).astype(np.float64)
        spectrum = np.linalg.eigvalsh(H) + ridge
        condition = (len(x) + ridge) * len(x) ** 0.5 / max(spectrum[0], 1e-99)  # κ₁ or more
        assert not (marked and condition * len(x) * float(np.finfo(X.dtype).eps) < 0.05)
        if not marked:
            ratios.assert_within(ratios.inverse_backward(inverse, H.astype(X.dtype), ridge=ridge))
            assert np.array_equal(inverse, inverse.T)
    return failed


@FLOATS
@given(draws)
def test_inverse_solves_its_equation_or_its_member_is_marked(dtype: str, inverses: Inverses, data: DataObject) -> None:
    m, d = data.draw(strategies.INSTANCES), data.draw(strategies.FEATURES)
    X = data.draw(strategies.stacks(strategies.data_matrices(dtype, m, d), st.sampled_from(((1,), (3,)))))
    check(inverses, X, data.draw(st.sampled_from((10.0, 1.0, 0.01))), data.draw(st.sampled_from((0.0, 1.0, 1e-3))))


@FLOATS
@pytest.mark.parametrize(("m", "d"), [(1, 1), (4, 16), (33, 17), (70, 40)])
def test_sizes_beyond_a_warp_and_a_chunk_are_inverted_and_duplicates_alone_are_marked(
    dtype: str, m: int, d: int, inverses: Inverses
) -> None:
    X = np.random.default_rng(m).standard_normal((3, m, d)).astype(dtype)
    X[1, -1] = X[1, 0]
    X = np.asfortranarray(X)
    assert check(inverses, X, 0.5, 0.0).tolist() == [False, m > 1, False]
    assert not check(inverses, X, 0.5, 0.25).any()


@FLOATS
def test_member_too_large_for_shared_memory_is_left_to_the_libraries(dtype: str) -> None:
    largest = {"float64": 224, "float32": 324}[dtype]
    limit = stand_in.Device.attributes["MaxSharedMemoryPerBlockOptin"]  # Hopper's
    assert rbf_inverse.shared_bytes(largest, dtype) <= limit < rbf_inverse.shared_bytes(largest + 1, dtype)
    X = np.random.default_rng(0).standard_normal((1, largest + 1, 30)).astype(dtype)
    with stand_in.installed(rbf_inverse):  # where there is no RawModule
        inverses, failed = rbf_inverse.rbf_inverses(cupy_ops.from_numpy(X, dtype), gamma=0.1, ridge=0.01)
    expected, _ = TWIN(X, 0.1, 0.01)
    assert not failed.get().any()
    ratios.assert_within(ratios.inverse_forward(inverses.get(), expected, cupy_ops.gram(X, gamma=0.1), ridge=0.01))


@FLOATS
def test_member_that_is_numerically_singular_is_marked_though_it_has_a_factor(dtype: str, inverses: Inverses) -> None:
    eps = np.finfo(dtype).eps  # λ_min = eps: above 0, and below 3·eps·λ_max
    X = np.array([[[0], [1], [9]], [[0], [np.sqrt(eps)], [9]]], dtype)
    assert inverses(X, 1.0, 0.0)[1].tolist() == [False, True]


@FLOATS
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("m", [1, 5])
def test_member_that_is_not_finite_is_marked_and_no_other(dtype: str, value: float, m: int, kernel: Inverses) -> None:
    X = np.random.default_rng(0).standard_normal((3, m, 4)).astype(dtype)
    X[1, -1, 2] = value
    assert kernel(X, 1.0, 0.0)[1].tolist() == [False, True, False]


def test_threads_meet_wherever_one_reads_what_another_writes(tmp_path: Path) -> None:
    raced = subprocess.run([built(tmp_path / "races", "-g", "-fsanitize=thread")], capture_output=True, text=True)
    assert raced.returncode == 0, raced.stderr


@FLOATS
@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_kernel_compiles_for_a_gpu_without_spilling_registers(dtype: str, architecture: int) -> None:
    nvrtc = cupy.cuda.nvrtc
    name = f"rbf_inverse<{REAL[dtype]}>"
    try:
        program = nvrtc.createProgram(rbf_inverse.SOURCE.read_text("utf-8"), rbf_inverse.SOURCE.name, (), ())
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no NVRTC: {str(error).splitlines()[0]}")
    nvrtc.addNameExpression(program, name)
    options = ("--std=c++17", *rbf_inverse.DEFINITIONS, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v")
    try:
        nvrtc.compileProgram(program, options)
        assert "rbf_inverse" in nvrtc.getLoweredName(program, name)
        assert nvrtc.getCUBIN(program)
    finally:
        log = nvrtc.getProgramLog(program)
        nvrtc.destroyProgram(program)
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    assert "warning" not in log


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"X": np.ones((2, 3, 4), int)}, TypeError, "X is int64"),
        ({"X": np.ones((3, 4))}, ValueError, r"X.*shape"),
        ({"X": np.ones((2, 0, 4))}, ValueError, r"X.*shape"),
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"gamma": np.inf}, ValueError, "gamma"),
        ({"ridge": -1.0}, ValueError, "ridge"),
        ({"ridge": np.nan}, ValueError, "ridge"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"X": np.ones((2, 3, 4)), "gamma": 1.0, "ridge": 0.5} | changes
    with pytest.raises(error, match=message):
        rbf_inverse.rbf_inverses(arguments.pop("X"), **arguments)


@pytest.mark.gpu
@FLOATS
@pytest.mark.parametrize("m", [128, 224, 400])
def test_large_members_are_inverted_on_a_gpu_by_the_kernel_or_beyond_it_by_the_libraries(dtype: str, m: int) -> None:
    X = np.random.default_rng(m).standard_normal((3, m, 50)).astype(dtype)
    assert not check(library("cuda"), X, 0.1, 0.01).any()
