"""The strategies give what they promise, reach every case they name, and shrink to something readable."""

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from tests import conftest
from tests.support import strategies as s

DTYPES = ("float64", "float32")
MATRICES = (
    s.matrices,
    s.data_matrices,
    s.logits,
    s.features,
    s.gram_matrices,
    s.projections,
    s.singular_gram_matrices,
    s.positive_semidefinite_matrices,
    s.indefinite_matrices,
)
SQUARE = MATRICES[4:]


def reached(strategy: st.SearchStrategy, condition: Callable[..., object], shrink: bool = False) -> object:
    """A case that meets the condition, the smallest with `shrink`; an error where 1000 draws hold none."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    search = settings(max_examples=1000, database=None, derandomize=True, phases=phases)
    return find(strategy, lambda case: bool(condition(case)), settings=search)


def exactly_singular(H: np.ndarray) -> bool:
    """By elimination in rational numbers."""
    rows = [[Fraction(float(entry)) for entry in row] for row in H]
    while rows:
        pivot = next((row for row in rows if row[0]), None)
        if pivot is None:
            return True
        rows.remove(pivot)
        rows = [[x - row[0] / pivot[0] * p for x, p in zip(row[1:], pivot[1:], strict=True)] for row in rows]
    return False


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", MATRICES, ids=lambda strategy: strategy.__name__)
@given(data=st.data())
def test_matrices_are_finite_in_the_dtype_and_sizes_asked_for(
    strategy: Callable[..., st.SearchStrategy[np.ndarray]], dtype: str, data: st.DataObject
) -> None:
    m = data.draw(s.sizes(4))
    shape = (m, m) if strategy in SQUARE else (m, data.draw(s.sizes(20)))
    A = data.draw(strategy(dtype, *shape[: 1 if strategy in SQUARE else 2]))
    assert (A.dtype, A.shape) == (dtype, shape)
    assert np.isfinite(A).all()
    if strategy in SQUARE:
        assert (A == A.T).all()


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_data_never_overflow_when_squared_nor_bounded_data_in_a_polynomial_kernel(
    dtype: str, data: st.DataObject
) -> None:
    huge = data.draw(s.data_matrices(dtype, rows=s.sizes(40), kinds=("huge",)))
    bounded = data.draw(s.data_matrices(dtype, rows=s.sizes(40), kinds=s.BOUNDED_KINDS))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        assert np.isfinite(huge @ huge.T).all()
        assert np.isfinite((bounded @ bounded.T + 2) ** 3).all()


def closest(X: np.ndarray) -> float:
    """The smallest distance of two rows over the largest entry."""
    distance = np.linalg.norm(X[:, None] - X, axis=-1) + np.diag(np.full(len(X), np.inf))
    return distance.min() / abs(X).max()


def rank(H: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(H))


KINDS: dict[str, Callable[[np.ndarray], object]] = {
    "plain": lambda X: (abs(X) >= 1).all(),
    "random": lambda X: (X % 0.01 != 0).all(),
    "duplicates": lambda X: X.any() and closest(X) == 0,
    "near-duplicates": lambda X: X.any() and 0 < closest(X) < 1e-3,
    "offset": lambda X: abs(X.mean()) > 1e3 * X.std() > 0,
    "outlier": lambda X: abs(X).max() > 1e3 * np.median(abs(X)) > 0,
    "tiny": lambda X: 0 < abs(X).max() < np.finfo(X.dtype).tiny ** 0.4,
    "subnormal": lambda X: 0 < abs(X).max() < np.finfo(X.dtype).tiny,
    "huge": lambda X: abs(X).max() > np.finfo(X.dtype).max ** 0.4,
}


def cases(dtype: str) -> dict[str, tuple[st.SearchStrategy, Callable[..., object]]]:
    """What every strategy promises to hold now and then: the strategy, and how to know the case."""
    info, rows = np.finfo(dtype), st.integers(2, 6)
    logits, singular = s.logits(dtype, 2, 3), s.singular_gram_matrices(dtype, 4)
    gram, psd = s.gram_matrices(dtype, rows), s.positive_semidefinite_matrices(dtype, 3)
    inputs, layouts = s.preconditioned_gradients(dtype), s.layouts(s.matrices(dtype, 3, 2))
    batches, spoiled = s.mini_batch_compositions(s.sizes(7), s.sizes(3)), s.not_finite(s.matrices(dtype))
    return {
        **{kind: (s.data_matrices(dtype, rows, kinds=(kind,)), KINDS[kind]) for kind in s.DATA_KINDS},
        "ill-conditioned": (gram, lambda H: np.linalg.cond(H.astype(float)) > 1 / (128 * 6 * info.eps) / 20),
        "tiny H": (gram, lambda H: H.max() < info.tiny**0.5),
        "huge H": (gram, lambda H: H.max() > info.max**0.5),
        "equal rows": (singular, lambda H: rank(H) == len(np.unique(H, axis=0)) == 3),
        "low rank": (singular, lambda H: rank(H) == 2 and len(np.unique(H, axis=0)) == 4),
        "H = 0": (singular, lambda H: not H.any()),
        "singular 1 × 1": (s.singular_gram_matrices(dtype, 1), lambda H: not H.any()),
        **{f"rank {r}": (psd, lambda P, r=r: rank(P) == r) for r in range(4)},
        "logits of 1e4": (logits, lambda f: abs(f).max() == 1e4),
        "a tie": (logits, lambda f: f[0, 0] == f[0, 1] == f[0, 2] != 0 and np.ptp(f[1]) > 0),
        "no tie": (logits, lambda f: len(np.unique(f)) == 6),
        "one class": (s.logits_and_labels(dtype), lambda case: case[0].shape[1] == 1 < len(case[1])),
        "after a ReLU": (s.features(dtype, columns=3), lambda Z: (Z >= 0).all() and (Z == 0).any() and Z.any()),
        "m < d_in": (inputs, lambda case: len(case.inverse) < case.W.shape[1]),
        "m = d_in": (inputs, lambda case: len(case.inverse) == case.W.shape[1] > 1),
        "m > d_in": (inputs, lambda case: len(case.inverse) > case.W.shape[1]),
        "m = 1": (inputs, lambda case: len(case.inverse) == 1 < case.W.shape[1]),
        "padded P": (s.step_inputs(dtype), lambda case: case.P[0, 0] > 0 and not case.P[-1].any()),
        "P not symmetric": (s.step_inputs(dtype), lambda case: (case.P != case.P.T).any()),
        **{f"η = {η}": (s.learning_rates(), lambda lr, η=η: lr == η) for η in (0, *s.PAPER_GRID)},
        **{name: (s.kernels(), lambda k, name=name: k["kernel"] == name) for name in ("rbf", "linear", "polynomial")},
        "ragged": (batches, lambda batches: len(batches) > 2 and len(batches[-1]) < len(batches[0])),
        "reordered": (batches, lambda batches: batches[0][0] > 0),
        **{f"{n} layers": (s.network_sizes(), lambda sizes, n=n: len(sizes) == n + 1) for n in (1, 2, 3)},
        "column-major": (layouts, lambda A: A.flags.f_contiguous),
        "strided": (layouts, lambda A: not A.flags.forc),
        "read-only": (layouts, lambda A: not A.flags.writeable),
        "two leading dimensions": (s.stacks(s.matrices(dtype, 1, 1)), lambda stack: stack.shape == (2, 2, 1, 1)),
        "NaN": (spoiled, lambda A: np.isnan(A).any()),
        "infinity": (spoiled, lambda A: np.isinf(A).any()),
    }


CASES = {dtype: cases(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES["float64"])
def test_every_promised_case_is_reached(case: str, dtype: str) -> None:
    strategy, condition = CASES[dtype][case]
    reached(strategy, condition)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_gram_matrix_has_the_condition_number_and_scale_it_was_given(dtype: str, data: st.DataObject) -> None:
    m = data.draw(st.integers(2, 8))
    largest = 1 / (128 * m * np.finfo(dtype).eps)
    condition = data.draw(st.floats(1, largest))
    scale = 10.0 ** data.draw(st.integers(-20, 20))
    λ = np.linalg.eigvalsh(data.draw(s.gram_matrices(dtype, m, condition, scale)).astype(float))
    assert λ[-1] == pytest.approx(scale, rel=1e-5)
    assert λ[-1] / λ[0] == pytest.approx(condition, rel=0.05)
    λ = np.linalg.eigvalsh(data.draw(s.gram_matrices(dtype, m)).astype(float))
    assert λ[0] > 100 * m * np.finfo(dtype).eps * λ[-1]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_singular_matrices_are_exactly_singular_and_far_from_the_threshold_otherwise(
    dtype: str, data: st.DataObject
) -> None:
    H = data.draw(s.singular_gram_matrices(dtype))
    assert exactly_singular(H)
    λ = np.linalg.eigvalsh(H.astype(float))
    zero = abs(λ) <= len(H) * np.finfo(float).eps * λ[-1]
    assert (zero | (λ > 100 * len(H) * np.finfo(dtype).eps * λ[-1])).all()


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_semidefinite_matrices_have_no_negative_eigenvalue_and_indefinite_ones_a_large_one(
    dtype: str, data: st.DataObject
) -> None:
    λ = np.linalg.eigvalsh(data.draw(s.positive_semidefinite_matrices(dtype)).astype(float))
    assert λ[0] >= -len(λ) * np.finfo(float).eps * λ[-1]
    λ = np.linalg.eigvalsh(data.draw(s.indefinite_matrices(dtype)).astype(float))
    assert λ[0] < -abs(λ).max() / 101


@given(case=s.dtypes().flatmap(s.logits_and_labels))
def test_logits_stay_within_1e4_and_labels_among_the_classes(case: tuple[np.ndarray, np.ndarray]) -> None:
    f, y = case
    assert abs(f).max() <= 1e4
    assert y.shape == (len(f),)
    assert set(y) <= set(range(f.shape[1]))


@given(inputs=s.dtypes().flatmap(s.preconditioned_gradients), step=s.dtypes().flatmap(s.step_inputs))
def test_step_inputs_fit_each_other(inputs: s.Preconditioned, step: s.StepInputs) -> None:
    W, grad, P, lr = step
    assert W.shape == grad.shape
    assert P.shape == (W.shape[1], W.shape[1])
    assert inputs.W.shape == inputs.grad.shape
    assert (inputs.inverse == inputs.inverse.T).all()
    assert len({array.dtype for array in (W, grad, P)}) == len({array.dtype for array in inputs[:3]}) == 1
    assert min(lr, inputs.lr) >= 0


@given(data=st.data())
def test_mini_batches_partition_the_training_set_and_only_the_last_is_ragged(data: st.DataObject) -> None:
    n, m = data.draw(s.sizes(20)), data.draw(s.sizes())
    batches = data.draw(s.mini_batch_compositions(n, m))
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert [len(batch) for batch in batches] == [m] * (n // m) + [n % m] * (n % m > 0)
    assert {batch.dtype for batch in batches} == {np.dtype("int64")}


@given(data=st.data())
def test_stacks_layouts_and_spoiled_arrays_keep_all_other_values(data: st.DataObject) -> None:
    A = data.draw(s.matrices("float32"))
    stack = data.draw(s.stacks(st.just(A)))
    assert stack.ndim > 2
    assert (stack == A).all()
    assert (data.draw(s.layouts(st.just(A))) == A).all()
    assert (data.draw(s.not_finite(st.just(A))) != A).sum() == 1
    assert np.isfinite(A).all()


def test_cases_shrink_to_something_readable() -> None:
    smallest = reached(s.gram_matrices(), lambda H: np.linalg.cond(H) > 500, shrink=True)
    assert (smallest == np.diag([1, 1e-3])).all()
    assert reached(s.gram_matrices(), np.any, shrink=True).tolist() == [[1]]
    assert reached(s.singular_gram_matrices(), np.any, shrink=True).tolist() == [[1, 1], [1, 1]]
    for matrices in (s.matrices, s.data_matrices, s.features, s.logits):
        assert reached(matrices(), lambda A: A.sum() > 5, shrink=True).tolist() in ([[6]], [[10]])  # 6, or 1 · 10¹
    f, y = reached(s.logits_and_labels(), lambda case: case[1].max() == 2, shrink=True)
    assert (f.tolist(), y.tolist()) == ([[0, 0, 0]], [2])


def printed_by(code: str, **environment: str) -> str:
    """What a fresh Python prints that runs this code from the repository's root."""
    root = os.path.dirname(os.path.dirname(conftest.__file__))
    command, env = [sys.executable, "-c", code], os.environ | environment
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_support_needs_neither_an_implementation_nor_anything_beyond_numpy_and_hypothesis() -> None:
    code = (
        "import sys; import tests.support.strategies, tests.support.ratios; "
        "print(sorted({'torch', 'cupy', 'scipy', 'mpmath', 'pytest', 'reference', 'gpu', 'proofs'} & set(sys.modules)))"
    )
    assert printed_by(code) == "[]"


def test_profiles_are_random_or_not_wherever_they_run() -> None:
    code = (
        "import tests.conftest; from hypothesis import settings; "
        "print([settings.get_profile(p).derandomize for p in ('ci', 'audit', 'ci-random', 'dev', 'nightly')])"
    )
    assert printed_by(code, CI="true") == "[True, True, False, False, False]"


def test_profiles_differ_in_counts_and_randomness_alone() -> None:
    ci, ci_random, dev, nightly = (settings.get_profile(name) for name in ("ci", "ci-random", "dev", "nightly"))
    assert (ci.derandomize, ci.database, ci.deadline, ci.print_blob) == (True, None, None, True)
    assert (ci_random.derandomize, ci_random.max_examples) == (False, ci.max_examples)
    assert dev.max_examples < ci.max_examples
    assert nightly.max_examples == 100 * ci.max_examples


@pytest.mark.parametrize("marked", [True, False])
def test_gpu_tests_are_skipped_with_a_reason_where_there_is_no_cuda(
    marked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    item = SimpleNamespace(get_closest_marker=lambda name: marked and name == "gpu")
    if marked:
        with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
            conftest.pytest_runtest_setup(item)  # type: ignore[arg-type]
        torch.cuda.is_available = lambda: True
    conftest.pytest_runtest_setup(item)  # type: ignore[arg-type]
