"""The conditions of the claims, as `reference` and `gpu.torch_ops` execute them, hold on drawn inputs.

What the symbolic formula gives in balls at the drawn input is what `reference` returned, to within its stated error.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from gpu import torch_ops
from proofs import certificates
from reference import conditions
from tests.support import ratios, strategies

Array = NDArray[np.float64]
U = 2.0**-53


@st.composite
def layers(draw: st.DrawFn) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """W, Z, P and labels of a last layer: small numbers, P positive semi-definite of any rank."""
    m, n_c, d = draw(st.integers(1, 4)), draw(st.integers(2, 4)), draw(st.integers(1, 4))
    W, Z, A = (np.array(draw(_integers(rows, d)), float) for rows in (n_c, m, d))
    return W / 4, Z, A.T @ A / 4, draw(strategies.labels(m, n_c))


def _integers(rows: int, columns: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.lists(st.integers(-4, 4), min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


@given(layers(), st.sampled_from((1e-4, 0.1, 1.0)), st.sampled_from((1.0, 0.5, 1e-3)))
def test_objective_with_weight_decay_does_not_rise_up_to_its_bound(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], decay: float, fraction: float
) -> None:
    W, Z, P, y = layer
    values, vectors = np.linalg.eigh(P)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    curvature = float(np.linalg.eigvalsh(root @ (Z.T @ Z / len(Z) + 2 * decay * np.eye(len(P))) @ root)[-1])
    lr = fraction * 4 / curvature if curvature > 1e-9 else 1.0

    def objective(W: Array) -> float:
        return float(reference.softmax_cross_entropy(Z @ W.T, y)[0]) + decay / 2 * float(np.sum(W**2))

    d = reference.softmax_cross_entropy(Z @ W.T, y)[1]
    G = reference.weight_gradient(d, Z) + decay * W
    after = reference.kernel_sgd_step(W, G, P, lr)
    # Rounding: logits and squares of size at most 10³, a few dozen operations each.
    assert objective(after) <= objective(W) + 1e5 * U * (1 + lr * float(np.abs(P).sum()) * (1 + np.abs(Z).max() ** 2))


def exactly(A: Array) -> arb_mat:
    return arb_mat([[arb(x) for x in row] for row in A.tolist()])


def distance(ball: arb, value: float) -> arb:
    return abs(ball - arb(value))


@given(strategies.logits_and_labels(classes=st.integers(1, 4)))
def test_loss_and_gradient_enclose_eq_6(case: tuple[Array, NDArray[np.int64]]) -> None:
    """J = −f_i + ln Σ_j exp f_j and softmax − e_i in balls at the drawn logits, and the reference's error ratio."""
    f, y = case
    J, d = reference.softmax_cross_entropy(f, y)
    with ctx.workprec(256):
        rows = [[arb(x) for x in row] for row in f.tolist()]
        loss = sum(
            (certificates.cross_entropy(row, label) for row, label in zip(rows, y.tolist(), strict=True)), arb(0)
        )
        below = float((f.max(axis=1) - f[np.arange(len(f)), y]).mean())
        rounding = ratios.THRESHOLD * U * ((len(f) + 2) * float(J) + f.shape[1] + 3 + below)
        assert distance(loss / len(rows), float(J)) <= rounding + 1e-300
        allowed = ratios.THRESHOLD * U * (f.shape[1] + 4 + np.abs(f - f.max(axis=1, keepdims=True)).max())
        for row, label, found in zip(rows, y.tolist(), d.tolist(), strict=True):
            for j, p in enumerate(certificates.softmax(row)):
                assert distance((p - (j == label)) / len(rows), found[j]) <= allowed


@given(st.integers(1, 4), st.sampled_from((1.0, *strategies.PAPER_GRID)), st.data())
def test_gram_and_inverse_of_the_reference_enclose_the_exact_ones(m: int, gamma: float, data: st.DataObject) -> None:
    """exp(−γ‖x − y‖²) and its inverse in balls at the drawn inputs; the inverse to within its condition number."""
    X = np.array([[3.0 * k, float(data.draw(st.integers(-4, 4)))] for k in range(m)])
    H = reference.gram(X, gamma=gamma)
    inverse = reference.inverse_gram(H)
    with ctx.workprec(256):
        rows = [[Fraction(x) for x in row] for row in X.tolist()]
        exact = certificates.rbf(rows, Fraction(gamma))
        exact_inverse = exact.inv()
        norm = float(np.abs(inverse).sum(axis=0).max())
        for i in range(m):
            for j in range(m):
                # One exponential of a γ‖x − y‖² of at most 10³ and a few roundings.
                assert distance(exact[i, j], H[i, j]) <= 2000 * U
                assert distance(exact_inverse[i, j], inverse[i, j]) <= 1e5 * m * U * norm * norm


@given(layers(), st.integers(1, 3), st.sampled_from((0.1, 10.0)))
def test_columns_beyond_m_never_move(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], size: int, lr: float
) -> None:
    W, Z, _, y = layer
    P = reference.reshape_inverse(np.eye(size) + 1, Z.shape[1])
    d = reference.softmax_cross_entropy(Z @ W.T, y)[1]
    after = reference.kernel_sgd_step(W, reference.weight_gradient(d, Z), P, lr)
    assert np.array_equal(after[:, size:], W[:, size:])


@given(layers(), st.sampled_from((1.0, 0.5, 1e-3)))
def test_mini_batch_step_of_torch_does_not_raise_the_loss_up_to_the_bound(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], fraction: float
) -> None:
    """The bound of `reference.conditions`, the step of `gpu.torch_ops`, the loss in balls at its weights."""
    W, Z, P, y = layer
    lr = fraction * min(conditions.max_learning_rate(Z, P), 1e3)
    w, z, p = (torch_ops.from_numpy(A, "float64") for A in (W, Z, P))
    d = torch_ops.softmax_cross_entropy(z @ w.T, torch_ops.from_numpy(y, "float64"))[1]
    after = torch_ops.to_numpy(torch_ops.kernel_sgd_step(w, torch_ops.weight_gradient(d, z), p, lr))
    with ctx.workprec(256):
        labels = y.tolist()
        rise = certificates.mean_loss(exactly(after), exactly(Z), labels) - certificates.mean_loss(
            exactly(W), exactly(Z), labels
        )
        assert rise <= 1e4 * U * (1 + lr * float(np.abs(P).sum()) * (1 + float(np.abs(Z).max()) ** 2))


@given(layers(), st.sampled_from((1e-4, 0.1, 10.0)))
def test_the_step_of_reference_encloses_eq_5(layer: tuple[Array, Array, Array, NDArray[np.int64]], lr: float) -> None:
    """W − η·∂J/∂W·P in balls at the drawn input, and what the reference returned."""
    W, Z, P, y = layer
    d = reference.softmax_cross_entropy(Z @ W.T, y)[1]
    after = reference.kernel_sgd_step(W, reference.weight_gradient(d, Z), P, lr)
    with ctx.workprec(256):
        exact = certificates.kernel_step(exactly(W), exactly(Z), y.tolist(), exactly(P), arb(lr))
        # Logits up to 16 are wrong by 100 u, and so is the residual that Z and P multiply.
        allowed = 1e4 * U * (1 + lr * float(np.abs(P).sum()) * float(np.abs(Z).max()))
        rows = zip(exact.tolist(), after.tolist(), strict=True)
        assert all(distance(b, x) <= allowed for row in rows for b, x in zip(*row, strict=True))


@given(layers())
def test_eq_8_holds_where_no_eigenvalue_exceeds_one_and_fails_along_the_largest_otherwise(
    layer: tuple[Array, Array, Array, NDArray[np.int64]],
) -> None:
    W, _, H, _ = layer
    values, vectors = np.linalg.eigh(H)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    if values[-1] > 1 + 1e-9:
        W = vectors[:, -1:].T
        assert np.linalg.norm(W @ root) > np.linalg.norm(W)
    else:
        assert np.linalg.norm(W @ root) <= np.linalg.norm(W) * (1 + 1e-9)


def rationals(A: Array) -> fmpq_mat:
    return fmpq_mat([[fmpq(*x.as_integer_ratio()) for x in row] for row in A.tolist()])


def logit_kernel(Z: Array, P: Array) -> fmpq_mat:
    """ZPZᵀ/m, exactly."""
    z = rationals(Z)
    return z * rationals(P) * z.transpose() / len(Z)


@given(layers())
def test_instance_form_of_the_reference_is_the_exact_one(layer: tuple[Array, Array, Array, NDArray[np.int64]]) -> None:
    """zᵀPz of small integers over 4 has no rounding."""
    _, Z, P, _ = layer
    exact = logit_kernel(Z[:1], P)[0, 0]
    assert fmpq(*conditions.instance_form(Z[0], P).as_integer_ratio()) == exact


@given(layers())
def test_max_learning_rate_of_the_reference_is_four_over_the_exact_eigenvalue(
    layer: tuple[Array, Array, Array, NDArray[np.int64]],
) -> None:
    """4/η·I − ZPZᵀ/m is positive semi-definite just below the η returned, and no longer just above it."""
    _, Z, P, _ = layer
    lr, K = conditions.max_learning_rate(Z, P), logit_kernel(Z, P)
    if lr > 1e9:  # K = 0, but for rounding
        assert float(np.abs(Z @ P @ Z.T).max()) < 1e-9
        return
    eye = rationals(np.eye(len(Z)))
    below, above = (4 / (fmpq(*lr.as_integer_ratio()) * fmpq(10**9 + sign, 10**9)) for sign in (-1, 1))
    assert certificates.semidefinite(eye * below - K)
    assert not certificates.semidefinite(eye * above - K)


@given(layers())
def test_sharp_learning_rate_of_the_reference_is_the_exact_formula(
    layer: tuple[Array, Array, Array, NDArray[np.int64]],
) -> None:
    """8⟨R, KR⟩/Σ_k range((KR)_k)² in rational numbers at the residual given."""
    W, Z, P, y = layer
    R = len(Z) * reference.softmax_cross_entropy(Z @ W.T, y)[1]
    residual = rationals(R)
    change = (logit_kernel(Z, P) * residual).tolist()
    spread = sum(((max(row) - min(row)) ** 2 for row in change), fmpq(0))
    pairs = zip(residual.tolist(), change, strict=True)
    slope = sum((a * b for rows in pairs for a, b in zip(*rows, strict=True)), fmpq(0))
    size = float(np.abs(R).max() * np.abs(Z @ P @ Z.T).max())
    # Where KR cancels to nothing, both are quotients of roundings.
    total, square = (Fraction(int(x.p), int(x.q)) for x in (slope, spread))
    if square > 1e-12 * size**2 and total > 1e-6 * size:
        exact = float(8 * total / square)
        assert abs(conditions.sharp_learning_rate(Z, P, R) - exact) <= 1e-4 * exact


@given(layers(), st.sampled_from((1e-4, 0.1, 10.0)))
def test_margins_of_one_instance_never_shrink(layer: tuple[Array, Array, Array, NDArray[np.int64]], lr: float) -> None:
    W, Z, P, y = layer
    z, label = Z[:1], y[:1]
    d = reference.softmax_cross_entropy(z @ W.T, label)[1]
    after = reference.kernel_sgd_step(W, reference.weight_gradient(d, z), P, lr)
    change = ((rationals(after) - rationals(W)) * rationals(z).transpose()).tolist()
    rounding = 1e3 * U * (1 + lr * float(np.abs(P).sum()) * (1 + float(np.abs(z).max()) ** 2))
    assert all(change[label[0]][0] - x >= -fmpq(*rounding.as_integer_ratio()) for (x,) in change)


@given(layers(), st.data(), st.sampled_from((1.0, 0.5, 1e-3)))
def test_soft_labels_do_not_raise_the_loss_up_to_four(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], data: st.DataObject, fraction: float
) -> None:
    W, Z, P, _ = layer
    z = Z[:1]
    weights = np.array([data.draw(st.integers(0, 4)) for _ in W], float) + 1e-3
    y = weights / weights.sum()
    form = conditions.instance_form(z[0], P)
    lr = fraction * 4 / form if form > 0 else 1.0
    p = reference.softmax_cross_entropy(z @ W.T, np.array([0]))[1] + np.eye(1, len(W))
    after = reference.kernel_sgd_step(W, reference.weight_gradient(p - y, z), P, lr)

    def loss(W: Array) -> arb:
        f = certificates.logits(exactly(W), exactly(z)).tolist()[0]
        return sum((certificates.cross_entropy(f, j) * arb(y_j) for j, y_j in enumerate(y.tolist())), arb(0))

    with ctx.workprec(256):
        rise = loss(after) - loss(W)
        assert rise <= 1e4 * U * (1 + lr * float(np.abs(P).sum()) * (1 + float(np.abs(z).max()) ** 2))


@given(layers(), st.sampled_from((1e-4, 0.1, 1.0)), st.sampled_from((0.5, 0.9, 0.99)))
def test_momentum_is_safe_where_one_instance_is_repeated(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], lr: float, momentum: float
) -> None:
    W, Z, P, y = layer
    z, label, V = Z[:1], y[:1], np.zeros_like(W)
    for _ in range(5):
        before, d = reference.softmax_cross_entropy(z @ W.T, label)
        V = momentum * V + reference.weight_gradient(d, z) @ P
        W = reference.kernel_sgd_step(W, V, np.eye(len(P)), lr)
        after, _ = reference.softmax_cross_entropy(z @ W.T, label)
        size = float(np.abs(W).max() * np.abs(z).sum()) + lr * float(np.abs(P).sum() * np.abs(z).max() ** 2)
        assert after <= before + 1e3 * U * (1 + size)


@given(layers(), st.integers(-8, 8), st.sampled_from((1e-4, 0.1)))
def test_rescaling_kernel_and_learning_rate_leaves_the_step(
    layer: tuple[Array, Array, Array, NDArray[np.int64]], exponent: int, lr: float
) -> None:
    """H → cH, η → cη for c = 4^exponent, of which the Cholesky factor has an exact root."""
    W, _, H, _ = layer
    H, c = H + np.eye(len(H)), 4.0**exponent
    steps = [
        reference.kernel_sgd_step(
            W, W, reference.reshape_inverse(reference.inverse_gram(scale * H), len(H)), scale * lr
        )
        for scale in (1.0, c)
    ]
    assert np.array_equal(*steps)


@pytest.mark.parametrize("lr", strategies.PAPER_GRID)
@pytest.mark.parametrize("gamma", strategies.PAPER_GRID)
@pytest.mark.parametrize("backend", [reference, torch_ops], ids=lambda backend: backend.name)
def test_the_counterexample_of_the_grid_raises_the_computed_loss(backend: Any, gamma: float, lr: float) -> None:
    """x₁ = (1, 0) of class 0, x₂ = (1, 1/1000) of class 1, features = inputs, W = [[1, 0], [0, 0]]."""
    X, W = (backend.from_numpy(np.array(rows), "float64") for rows in ([[1, 0], [1, 1e-3]], [[1.0, 0], [0, 0]]))
    y = backend.from_numpy(np.array([0, 1]), "float64")
    P = backend.reshape_inverse(backend.inverse_gram(backend.gram(X, gamma=gamma)), 2)
    before, d = backend.softmax_cross_entropy(X @ W.T, y)
    after, _ = backend.softmax_cross_entropy(X @ backend.kernel_sgd_step(W, backend.weight_gradient(d, X), P, lr).T, y)
    assert float(after) > 100 * float(before)


@given(st.floats(-3, 3))
def test_training_on_two_instances_in_turn_runs_into_the_cycle(start: float) -> None:
    """z = 1, labels 0 and 1 in turn, H = 1, η = 0.1: the margin ends between −c and c, c in (0.0512, 0.0513)."""
    W, z, P = np.array([[start / 2], [-start / 2]]), np.ones((1, 1)), np.ones((1, 1))
    margins = []
    for step in range(400):
        d = reference.softmax_cross_entropy(z @ W.T, np.array([step % 2]))[1]
        W = reference.kernel_sgd_step(W, reference.weight_gradient(d, z), P, 0.1)
        margins.append(W[0, 0] - W[1, 0])
    assert 0.0512 < margins[-2] < 0.0513
    assert -0.0513 < margins[-1] < -0.0512
