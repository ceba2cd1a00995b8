"""The ratios against bounds worked out by hand, and against correct and incorrect results."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support import ratios, strategies
from tests.support.ratios import Ratio

DTYPES = ("float64", "float32")


def _planted(dtype: str) -> dict[str, tuple[Ratio, float]]:
    """Results with one planted error each: the ratio found, and the error over the bound worked out by hand."""
    info = np.finfo(dtype)
    u, tiny, σ = float(info.eps) / 2, float(info.tiny), float(info.smallest_subnormal)
    δ = 512 * u

    def a(rows: object) -> np.ndarray:
        return np.array(rows, dtype=dtype)

    def off(exact: object, error: float, *entry: int) -> tuple[np.ndarray, np.ndarray]:
        computed = a(exact)
        computed[entry] += error
        return computed, np.array(exact)

    e1 = math.exp(-1)
    far = a([[-7.0], [7.0]])
    column = a([[1.0], [2.0]])
    J, p = math.log(1 + math.e), math.e / (1 + math.e)
    f, y = a([[0.0, 1.0]]), np.array([0])
    diag, inverse = a([[1.0, 0.0], [0.0, 4.0]]), [[1.0, 0.0], [0.0, 0.25]]
    rank1, pinv = a([[2.0, 0.0], [0.0, 0.0]]), [[0.5, 0.0], [0.0, 0.0]]
    W, G, P = a([[1.0]]), a([[2.0]]), a([[-3.0]])
    return {
        # d = 1, c = 1, both norms 1, so 1 + γ·2² = 2
        "rbf": (ratios.gram(*off([[1, e1], [e1, 1]], δ, 0, 1), a([[0], [2]]), gamma=0.25), δ / (u * 3 * 2 * e1)),
        "rbf, H = 0": (ratios.gram(*off([[1.0, 0.0], [0.0, 1.0]], 7 * tiny, 1, 0), far, gamma=1.0), 7),
        "linear": (ratios.gram(*off([[1.0, 2.0], [2.0, 4.0]], δ, 1, 1), column, "linear"), δ / (u * 3 * 4)),
        "linear, cancelling": (
            ratios.gram(*off([[2.0, 0.0], [0.0, 2.0]], δ, 0, 1), a([[1, 1], [1, -1]]), "linear"),
            δ / (u * 4 * 2),
        ),
        "linear, X = 0": (ratios.gram(*off([[0.0]], 12 * σ, 0, 0), a([[0, 0, 0]]), "linear"), 12 / 3),
        # γA = 4, |c₀| = 1, p = 2: 3·2·5·4 + 2·25
        "polynomial": (
            ratios.gram(*off([[1.0, 9.0], [9.0, 9.0]], δ, 1, 1), column, "polynomial", gamma=1.0, degree=2, coef0=-1.0),
            δ / (u * 170),
        ),
        # γA = 2, c₀ = 0, p = 3: 3·3·2²·2 + 3·2³
        "polynomial, γ": (
            ratios.gram(*off([[0.125, 1], [1, 8]], δ, 1, 1), column, "polynomial", gamma=0.5, degree=3, coef0=0.0),
            δ / (u * 96),
        ),
        "polynomial, X = 0": (
            ratios.gram(*off([[0.0]], 7 * tiny, 0, 0), a([[0]]), "polynomial", gamma=1.0, degree=2, coef0=0.0),
            7,
        ),
        # residual 4δ over 2·u·4·1; forward δ over 2·u·1 times 1/rcond = 4
        "inverse, backward": (ratios.inverse_backward(off(inverse, δ, 1, 1)[0], diag), 4 * δ / (u * 2 * 4)),
        "inverse, forward": (ratios.inverse_forward(*off(inverse, δ, 1, 1), diag), δ / (u * 2 * 4)),
        "inverse, backward, ridge": (
            ratios.inverse_backward(off(inverse, δ, 1, 1)[0], a([[0, 0], [0, 3]]), ridge=1.0),
            4 * δ / (u * 2 * 4),
        ),
        "inverse, forward, ridge": (
            ratios.inverse_forward(*off(inverse, δ, 1, 1), a([[0, 0], [0, 3]]), ridge=1.0),
            δ / (u * 2 * 4),
        ),
        # m = 2, ‖H‖ = 2, ‖X̂‖ = ½
        "HXH = H": (ratios.pseudoinverse(off(pinv, δ, 0, 0)[0], rank1)[0], 4 * δ / (2 * u * 4 / 2)),
        "XHX = X": (ratios.pseudoinverse(off(pinv, δ, 1, 1)[0], rank1)[1], δ / (2 * u * 2 / 4)),
        "HX symmetric": (ratios.pseudoinverse(off(pinv, δ, 0, 1)[0], rank1)[2], 2 * δ / (2 * u * 2 / 2)),
        "XH symmetric": (ratios.pseudoinverse(off(pinv, δ, 1, 0)[0], rank1)[3], 2 * δ / (2 * u * 2 / 2)),
        # m = 1, n_c = 2, and the label's logit is 1 below the largest
        "loss": (ratios.loss(*off(J, δ), f, y), δ / (u * (3 * J + 2 + 3 + 1))),
        "gradient, label": (ratios.loss_gradient(*off([[-p, p]], δ, 0, 0), f, y), δ / (u * ((1 - p) * 6 + 1))),
        "gradient, other": (ratios.loss_gradient(*off([[-p, p]], δ, 0, 1), f, y), δ / (u * p * 5)),
        "gradient, m": (
            ratios.loss_gradient(*off([[-p / 2, p / 2]] * 2, δ, 0, 1), f.repeat(2, 0), y.repeat(2)),
            δ / (u * p * 5 / 2),
        ),
        "gradient, p = 0": (ratios.loss_gradient(*off([[0.0, 0.0]], 7 * tiny, 0, 1), a([[0, -1e4]]), y), 7),
        # m = 2: u·4·(1·3 + 2·1)
        "weight gradient": (
            ratios.weight_gradient(*off([[1.0]], δ, 0, 0), a([[1], [-2]]), a([[3], [1]])),
            δ / (u * 20),
        ),
        "weight gradient, 0": (ratios.weight_gradient(*off([[0.0]], 12 * σ, 0, 0), a([[0]] * 3), a([[0]] * 3)), 4),
        # d_in = 1: u·3·(1 + ½·2·3), and 1·(1 + ½)·(1 + 3)·σ
        "step": (ratios.step(*off([[4.0]], δ, 0, 0), W, G, P, 0.5), δ / (u * 12)),
        "step, W = G = 0": (ratios.step(*off([[0.0]], 12 * σ, 0, 0), 0 * W, 0 * G, P, 0.5), 12 / 6),
    }


PLANTED = {dtype: _planted(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", PLANTED["float64"])
def test_a_ratio_is_the_planted_error_over_the_bound_worked_out_by_hand(case: str, dtype: str) -> None:
    found, expected = PLANTED[dtype][case]
    assert found.value == pytest.approx(expected, rel=0.01)
    assert found.vacuous == 0


def _product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A·B summed one term after the other, the least accurate order, in the dtype of A and B."""
    total = np.zeros((len(A), B.shape[1]), A.dtype)
    for k in range(A.shape[1]):
        total += A[:, k, None] * B[k]
    return total


def _gram(X: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    if options["kernel"] == "rbf":
        return np.exp(-options["gamma"] * np.square(X[:, None] - X).sum(axis=-1))
    product = _product(X, X.T)
    if options["kernel"] == "linear":
        return product
    return (options["gamma"] * product + options["coef0"]) ** options["degree"]


def _loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    below = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(below).sum(axis=1)) - below[np.arange(len(labels)), labels])


def _loss_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    return (softmax - np.eye(logits.shape[1], dtype=logits.dtype)[labels]) / len(logits)


def _weight_gradient(dlogits: np.ndarray, features: np.ndarray) -> np.ndarray:
    return _product(dlogits.T, features)


def _step(W: np.ndarray, grad: np.ndarray, P: np.ndarray, lr: float) -> np.ndarray:
    return W - lr * _product(grad, P)


def _gram_inputs(dtype: str) -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(strategies.data_matrices(dtype, kinds=strategies.BOUNDED_KINDS), strategies.kernels())


def _same_rows(dtype: str) -> st.SearchStrategy[tuple[object, ...]]:
    return strategies.sizes().flatmap(lambda m: st.tuples(strategies.matrices(dtype, m), strategies.features(dtype, m)))


# operation: its plain formula, in whatever float it is given; its ratio; its inputs
OPERATIONS = {
    "gram": (_gram, lambda found, exact, X, options: ratios.gram(found, exact, X, **options), _gram_inputs),
    "loss": (_loss, ratios.loss, strategies.logits_and_labels),
    "loss gradient": (_loss_gradient, ratios.loss_gradient, strategies.logits_and_labels),
    "weight gradient": (_weight_gradient, ratios.weight_gradient, _same_rows),
    "step": (_step, ratios.step, strategies.step_inputs),
}


def _wide(case: tuple[object, ...]) -> list[object]:
    """The case with its float arrays in the widest float."""
    return [x.astype(np.longdouble) if getattr(x, "dtype", np.dtype(int)).kind == "f" else x for x in case]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
@given(data=st.data())
def test_the_rounded_exact_result_is_within_one_bound_and_the_plain_formula_within_the_threshold(
    operation: str, dtype: str, data: st.DataObject
) -> None:
    formula, ratio, inputs = OPERATIONS[operation]
    case = data.draw(inputs(dtype))
    exact = formula(*_wide(case))
    assert ratio(exact.astype(dtype), exact, *case).value <= 1
    with np.errstate(under="ignore"):
        ratios.assert_within(ratio(formula(*case), exact, *case))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_an_error_of_a_hundred_roundings_is_found_in_whichever_entry_it_stands(dtype: str, data: st.DataObject) -> None:
    dlogits, features = data.draw(_same_rows(dtype))
    exact = _weight_gradient(*_wide((dlogits, features)))
    entry = tuple(data.draw(st.integers(0, n - 1)) for n in exact.shape)
    size = (abs(dlogits).T @ abs(features))[entry]
    assume(size > 0)
    computed = exact.astype(dtype)
    computed[entry] += 100 * np.finfo(dtype).eps * (len(dlogits) + 2) * size
    found = ratios.weight_gradient(computed, exact, dlogits, features)
    assert found.entry == entry
    with pytest.raises(AssertionError, match="weight gradient: ratio"):
        ratios.assert_within(found)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_an_inverse_through_its_cholesky_factor_passes_backward_and_forward(dtype: str, data: st.DataObject) -> None:
    H = data.draw(strategies.gram_matrices(dtype))
    factor = np.linalg.inv(np.linalg.cholesky(H))
    exact, two = np.linalg.inv(H.astype(float)).astype(np.longdouble), 2 * np.eye(len(H))
    for _ in range(2):  # Newton's iteration, in the widest float
        exact = exact @ (two - H.astype(np.longdouble) @ exact)
    computed = factor.T @ factor
    ratios.assert_within(ratios.inverse_backward(computed, H), ratios.inverse_forward(computed, exact, H))
    ratios.assert_within(*ratios.pseudoinverse(computed, H))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_pseudoinverse_from_eigenvalues_passes_and_its_plain_inverse_does_not(
    dtype: str, data: st.DataObject
) -> None:
    H = data.draw(strategies.singular_gram_matrices(dtype))
    eigenvalues, V = np.linalg.eigh(H)
    kept = eigenvalues > len(H) * np.finfo(dtype).eps * eigenvalues.max()
    computed = V[:, kept] / eigenvalues[kept] @ V[:, kept].T
    ratios.assert_within(*ratios.pseudoinverse(computed, H))
    kernel = V[:, ~kept] @ V[:, ~kept].T  # H·(X̂ + VVᵀ)·H = H still, yet X̂ + VVᵀ is not the pseudoinverse
    scale = abs(computed).max() or 1
    assert max(ratio.value for ratio in ratios.pseudoinverse(computed + kernel * scale, H)) > ratios.THRESHOLD


def test_an_exact_inverse_has_ratio_0_and_an_error_against_a_bound_of_0_an_infinite_one() -> None:
    small = 2.0**-26
    H = np.array([[1, 1], [1, 1 + small]])
    inverse = np.array([[1 + small, -1], [-1, 1]]) / small
    found = ratios.inverse_backward(inverse, H), ratios.inverse_forward(inverse, inverse, H)
    assert [ratio.value for ratio in (*found, *ratios.pseudoinverse(inverse, H))] == [0] * 6
    zero = np.zeros((2, 2))
    assert [ratio.value for ratio in ratios.pseudoinverse(zero, zero)] == [0] * 4
    assert ratios.pseudoinverse(np.eye(2), zero)[1].value == np.inf  # XHX = 0 ≠ X, over ‖H‖ = 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of_oracle", [False, True])
def test_what_is_not_finite_fails_every_ratio(of_oracle: bool, value: float, dtype: str) -> None:
    one, y = np.ones((1, 1), dtype), np.zeros(1, int)
    bad = np.full((1, 1), value, dtype)
    pair = (one, bad) if of_oracle else (bad, one)
    found = [
        *(ratios.gram(*pair, one, kernel) for kernel in ("rbf", "linear", "polynomial")),
        ratios.gram(*pair, one * 1e9, "rbf"),
        ratios.inverse_forward(*pair, one),
        ratios.loss(pair[0][0, 0], pair[1][0, 0], one, y),
        ratios.loss_gradient(*pair, one, y),
        ratios.weight_gradient(*pair, one, one),
        ratios.step(*pair, one, one, one, 0.1),
        *([] if of_oracle else [ratios.inverse_backward(bad, one), *ratios.pseudoinverse(bad, one)]),
    ]
    assert {ratio.value for ratio in found} == {np.inf}


@pytest.mark.parametrize("computed", [np.ones((2, 1)), np.ones((), "float32"), np.ones((1, 1), "float32")])
def test_a_result_of_another_shape_or_dtype_is_an_error_that_names_both(computed: np.ndarray) -> None:
    one = np.ones((1, 1))
    found, expected = f"{computed.dtype} {computed.shape}", "float64 (1, 1)"
    for judge in (
        lambda: ratios.gram(computed, one, one),
        lambda: ratios.inverse_backward(computed, one),
        lambda: ratios.step(computed, one, one, one, one, 0.1),
    ):
        with pytest.raises(AssertionError, match=re.escape(f"the result is {found}, expected {expected}")):
            judge()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_rbf_entry_is_vacuous_from_a_relative_bound_of_one_half_on(dtype: str) -> None:
    X = np.array([[0, 0], [2, 0]], dtype)  # d = 2, (‖x_i−c‖+‖x_j−c‖)² = 4 for all four entries
    relative = float(np.finfo(dtype).eps) / 2 * 4
    H = np.eye(2, dtype=dtype)
    below, above = ((bound / relative - 1) / 4 for bound in (0.499, 0.501))
    assert ratios.gram(H, H, X, gamma=below).vacuous == 0
    assert ratios.gram(H, H, X, gamma=above).vacuous == 4
    assert "4 of 4 entries vacuous" in str(ratios.gram(H, H, X, gamma=above))
    assert ratios.gram(1 - H, H, X, gamma=above).value == 0


@given(data=st.data())
def test_the_ratio_of_a_batch_is_the_worst_of_its_members(data: st.DataObject) -> None:
    H = data.draw(strategies.sizes(4).flatmap(lambda m: strategies.stacks(strategies.projections("float32", m))))
    X = np.linalg.inv(H)
    for judge in (
        ratios.inverse_backward,
        lambda X, H: ratios.inverse_forward(X, np.linalg.inv(H.astype(float)), H),
        lambda X, H: ratios.pseudoinverse(X, H)[0],
        lambda X, H: ratios.gram(H, np.float64(H) + X, X, gamma=0.01),
        lambda X, H: ratios.gram(H, np.float64(H) + X, X, "linear"),
    ):
        batch = judge(X, H)
        members = {index: judge(X[index], H[index]) for index in np.ndindex(H.shape[:-2])}
        worst = batch.entry[: H.ndim - 2]
        assert batch.value == members[worst].value == max(member.value for member in members.values())


def test_a_ratio_above_the_threshold_lists_the_five_worst_entries_worst_first() -> None:
    exact = np.ones((3, 3))
    computed = 1 + np.array([[0, 3e-13, 5e-13], [1e-12, 0, 2e-13], [1e-16, np.nan, 4e-13]])
    ratio = ratios.weight_gradient(computed, exact, exact, exact)
    assert [entry for entry, _, _ in ratio.off] == [(2, 1), (1, 0), (0, 2), (2, 2), (0, 1)]
    assert "\n  entry (1, 0) is 1.000000000001, should be 1.0\n" in str(ratio)
    below = ratios.weight_gradient(exact + 1e-15, exact, exact, exact)
    assert 0 < below.value < ratios.THRESHOLD
    assert below.off == ()


def test_a_norm_above_the_threshold_lists_the_worst_entries_of_the_worst_member() -> None:
    H = np.stack([np.eye(2), 2 * np.eye(2)])
    X = np.linalg.inv(H)
    X[0, 0, 1], X[1, 1] = 1e-9, (0.25, 0.625)
    forward = ratios.inverse_forward(X, np.linalg.inv(H), H)
    assert (forward.of, forward.off) == ("X", (((1, 1, 0), 0.25, 0.0), ((1, 1, 1), 0.625, 0.5)))
    backward = ratios.inverse_backward(X, H)
    assert "entry (1, 1, 0) of H·X is 0.5, should be 0.0\n  entry (1, 1, 1) of H·X is 1.25, should" in str(backward)
    assert ratios.pseudoinverse(X[1], H[1])[2].off == (((0, 1), 0.0, 0.5), ((1, 0), 0.5, 0.0))


def test_assert_within_names_operation_ratio_threshold_and_worst_entry() -> None:
    at_threshold = ratios.Ratio("step", ratios.THRESHOLD, (1, 2), 3.0, 0.1, 4, 0)
    ratios.assert_within(at_threshold, what="torch:cpu")
    for value in (30.1, np.inf, np.nan):
        with pytest.raises(AssertionError) as failure:
            ratios.assert_within(at_threshold, replace(at_threshold, value=value), what="torch:cpu")
        assert str(failure.value) == (
            f"torch:cpu\nstep: ratio {value:.3g} (threshold 30) at entry (1, 2): error 3 over 0.1"
        )
