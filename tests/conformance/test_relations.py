"""Relations between results of one backend, which need no oracle: a fault shared with the oracle is caught here.

Symmetries, limits, additivity, and what the Loewner order says of inverses. Where two results must agree, one stands in
the ratio for the exact one; each may be wrong by its own bound, so that right ones stay below half the threshold.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

from tests.conformance.about import about
from tests.conformance.subject import Subject
from tests.support import calls, ratios, strategies
from tests.support.calls import Call
from tests.support.ratios import THRESHOLD

Array = NDArray[Any]
DRAWS = given(st.data())
# Integers, so that sums of a few are exact and a translated difference is the difference.
WHOLE = ("plain", "duplicates")


def whole(data: DataObject, subject: Subject, rows: int | None = None) -> Array:
    m = strategies.INSTANCES if rows is None else rows
    X = data.draw(strategies.data_matrices(subject.dtype, m, kinds=WHOLE))
    return np.rint(X)


# Gram matrices


@about("gram")
@pytest.mark.parametrize("kernel", ["rbf", "linear", "polynomial"])
def test_parameters_that_are_left_out_have_the_contracts_defaults(subject: Subject, kernel: str) -> None:
    X = np.arange(6.0).reshape(3, 2).astype(subject.dtype) / 4
    written_out = subject.gram(X, kernel=kernel, gamma=1.0, degree=3, coef0=1.0)
    assert np.array_equal(subject.gram(X, kernel=kernel), written_out)
    assert kernel != "rbf" or np.array_equal(subject.gram(X), written_out)


@about("inverse_gram")
def test_ridge_that_is_left_out_is_0_and_singular_members_are_refused(subject: Subject) -> None:
    H = np.diag([1.0, 2.0, 4.0]).astype(subject.dtype)
    assert np.array_equal(subject.inverse_gram(H), subject.inverse_gram(H, ridge=0.0, singular="raise"))
    subject.refuses(Call("inverse_gram", (np.ones_like(H),), {}), np.linalg.LinAlgError, "singular")


@about("gram")
@DRAWS
def test_permuting_instances_permutes_the_gram_matrix(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.gram_calls(subject.dtype, batched=False))
    (X,) = call.arrays
    order = np.array(data.draw(st.permutations(range(len(X)))))
    permuted = subject.run(call._replace(arrays=(X[order],)))
    subject.judge(ratios.gram(permuted, subject.run(call)[np.ix_(order, order)], X[order], **call.options), call=call)


@about("gram")
@DRAWS
def test_permuting_features_leaves_the_gram_matrix(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.gram_calls(subject.dtype))
    (X,) = call.arrays
    order = np.array(data.draw(st.permutations(range(X.shape[-1]))))
    permuted = subject.run(call._replace(arrays=(X[..., order],)))
    subject.judge(*subject.errors(call, permuted, subject.run(call)), call=call)


@about("gram")
@DRAWS
def test_gram_matrix_of_some_instances_is_a_part_of_that_of_all(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.gram_calls(subject.dtype, batched=False))
    (X,) = call.arrays
    some = np.array(sorted(data.draw(st.sets(st.integers(0, len(X) - 1), min_size=1))))
    part = subject.run(call._replace(arrays=(X[some],)))
    whole_bound = ratios.gram(_filled(subject.run(call), part, some), subject.run(call), X, **call.options)
    subject.judge(whole_bound, call=call)


def _filled(H: Array, part: Array, some: Array) -> Array:
    """H with the entries of `some` replaced: the mean row in the bound is then that of all instances."""
    H = H.copy()
    H[np.ix_(some, some)] = part
    return H


@about("gram")
@given(st.data(), st.integers(-64, 64), st.sampled_from((0.01, 0.5, 1.0)))
def test_translating_the_data_leaves_the_rbf_kernel(
    subject: Subject, data: DataObject, shift: int, gamma: float
) -> None:
    X = whole(data, subject)
    here, there = (Call("gram", (x.astype(subject.dtype),), {"gamma": gamma}) for x in (X, X + shift))
    subject.judge(*subject.errors(here, subject.run(there), subject.run(here)), call=there)


@about("gram")
@given(st.data(), st.integers(-8, 8), st.sampled_from((0.01, 0.5, 1.0)))
def test_scaling_the_data_is_scaling_gamma_by_the_square(
    subject: Subject, data: DataObject, exponent: int, gamma: float
) -> None:
    X = whole(data, subject)
    plain = Call("gram", (X,), {"gamma": gamma * 4.0**exponent})
    scaled = Call("gram", (X * np.array(2.0**exponent, X.dtype),), {"gamma": gamma})
    subject.judge(*subject.errors(plain, subject.run(scaled), subject.run(plain)), call=scaled)


@about("gram")
@given(st.data(), st.sampled_from((0.01, 0.1)), st.sampled_from((0.02, 1.0)))
def test_product_of_rbf_kernels_is_that_of_the_sum_of_gammas(
    subject: Subject, data: DataObject, one: float, other: float
) -> None:
    X = whole(data, subject)
    product = subject.gram(X, gamma=one) * subject.gram(X, gamma=other)
    call = Call("gram", (X,), {"gamma": one + other})
    subject.judge(*subject.errors(call, subject.run(call), product), call=call)


@about("gram")
@DRAWS
def test_rbf_kernel_of_distinct_rows_is_the_identity_for_a_large_gamma(subject: Subject, data: DataObject) -> None:
    X = np.unique(whole(data, subject), axis=0)
    call = Call("gram", (X,), {"gamma": 1e4})
    with subject.blamed_on(call):
        assert np.array_equal(subject.run(call), np.eye(len(X)))


@about("gram")
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@given(st.data(), st.sampled_from((0.5, 2.0)), st.integers(1, 4), st.sampled_from((-1.0, 0.0, 3.0)))
def test_parameters_that_a_kernel_does_not_use_change_nothing(
    subject: Subject, kernel: str, data: DataObject, gamma: float, degree: int, coef0: float
) -> None:
    X = data.draw(strategies.data_matrices(subject.dtype))
    used = {"gamma": gamma} if kernel == "rbf" else {}
    call = Call("gram", (X,), {"kernel": kernel, "gamma": gamma, "degree": degree, "coef0": coef0})
    subject.judge(*subject.errors(call, subject.run(call), subject.gram(X, kernel=kernel, **used)), call=call)


@about("gram")
@DRAWS
def test_polynomial_kernel_of_degree_1_is_linear(subject: Subject, data: DataObject) -> None:
    X = data.draw(strategies.data_matrices(subject.dtype, kinds=strategies.BOUNDED_KINDS))
    call = Call("gram", (X,), {"kernel": "polynomial", "gamma": 1.0, "degree": 1, "coef0": 0.0})
    subject.judge(*subject.errors(call, subject.run(call), subject.gram(X, kernel="linear")), call=call)


@about("gram")
@given(st.data(), st.sampled_from((0.5, 1.0)), st.integers(-2, 2))
def test_polynomial_kernel_of_degree_3_is_the_cube_of_that_of_degree_1(
    subject: Subject, data: DataObject, gamma: float, coef0: int
) -> None:
    X = whole(data, subject)
    first, third = (
        Call("gram", (X,), {"kernel": "polynomial", "gamma": gamma, "degree": degree, "coef0": float(coef0)})
        for degree in (1, 3)
    )
    subject.judge(*subject.errors(third, subject.run(third), subject.run(first) ** 3), call=third)


# Inverses


@about("inverse_gram")
@DRAWS
def test_permuting_the_instances_permutes_the_inverse(subject: Subject, data: DataObject) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype))
    order = data.draw(st.permutations(range(len(H))))
    square = np.ix_(order, order)
    call = Call("inverse_gram", (H[square],), {})
    subject.judge(*subject.errors(call, subject.run(call), subject.inverse_gram(H)[square]), call=call)


@about("inverse_gram")
@given(st.data(), st.integers(-10, 10))
def test_inverse_of_a_multiple_is_the_inverse_over_it(subject: Subject, data: DataObject, exponent: int) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, scale=1.0))
    scale = np.array(4.0**exponent, subject.dtype)
    call = Call("inverse_gram", (H * scale,), {})
    subject.judge(*subject.errors(call, subject.run(call), subject.inverse_gram(H) / scale), call=call)


@about("inverse_gram")
@DRAWS
def test_inverse_of_the_inverse_is_the_matrix(subject: Subject, data: DataObject) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, condition=100.0, scale=1.0))
    X = subject.inverse_gram(H)
    # Either inversion is off by its bound; that of the first is amplified by the condition of the second.
    condition = np.linalg.norm(H, 1) * np.linalg.norm(X, 1)
    error = np.linalg.norm(subject.inverse_gram(X) - H, 1)
    assert error <= 2 * THRESHOLD * len(H) * subject.eps / 2 * condition**2 * np.linalg.norm(H, 1)


@about("inverse_gram")
@DRAWS
def test_ridge_is_added_before_inverting(subject: Subject, data: DataObject) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, scale=1.0, condition=100.0))
    call = Call("inverse_gram", (H,), {"ridge": 0.5})
    shifted = H + np.array(0.5, H.dtype) * np.eye(len(H), dtype=H.dtype)
    subject.judge(*subject.errors(call, subject.run(call), subject.inverse_gram(shifted)), call=call)


@about("inverse_gram")
@given(st.data(), st.sampled_from((0.1, 1.0)))
def test_a_ridge_makes_the_inverse_smaller_in_the_loewner_order(
    subject: Subject, data: DataObject, ridge: float
) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, scale=1.0, condition=100.0))
    X, smaller = subject.inverse_gram(H), subject.inverse_gram(H, ridge=ridge)
    assert_positive_semidefinite(X - smaller, forward_error(subject, H, X))


@about("inverse_gram")
@DRAWS
def test_leading_block_of_the_inverse_is_at_least_the_inverse_of_the_leading_block(
    subject: Subject, data: DataObject
) -> None:
    H = data.draw(strategies.gram_matrices(subject.dtype, scale=1.0, condition=100.0))
    k = data.draw(st.integers(1, len(H)))
    X = subject.inverse_gram(H)
    truncated = subject.reshape_inverse(X, d_in=k)
    assert_positive_semidefinite(truncated - subject.inverse_gram(H[:k, :k]), forward_error(subject, H, X))


@about("inverse_gram")
@DRAWS
def test_inverse_of_two_blocks_is_the_inverse_of_each(subject: Subject, data: DataObject) -> None:
    blocks = [data.draw(strategies.gram_matrices(subject.dtype, scale=1.0, condition=100.0)) for _ in range(2)]
    k, m = len(blocks[0]), len(blocks[0]) + len(blocks[1])
    H, expected = np.zeros((2, m, m), subject.dtype)
    H[:k, :k], H[k:, k:] = blocks
    expected[:k, :k], expected[k:, k:] = (subject.inverse_gram(block) for block in blocks)
    call = Call("inverse_gram", (H,), {})
    subject.judge(*subject.errors(call, subject.run(call), expected), call=call)


def forward_error(subject: Subject, H: Array, X: Array) -> float:
    """What the threshold lets an inverse be off by, in the 1-norm."""
    return float(THRESHOLD * len(H) * subject.eps / 2 * np.linalg.norm(X, 1) ** 2 * np.linalg.norm(H, 1))


def assert_positive_semidefinite(A: Array, error: float) -> None:
    """No eigenvalue below what two inverses, each off by `error`, may leave."""
    assert np.linalg.eigvalsh(A.astype("float64"))[0] >= -2 * error


# Reshaping


@about("reshape_inverse")
@DRAWS
def test_reshaping_through_a_larger_size_is_reshaping_at_once(subject: Subject, data: DataObject) -> None:
    (A,), options = data.draw(calls.reshape_calls(subject.dtype))[1:]
    larger = data.draw(st.integers(options["d_in"], 25))
    through = subject.reshape_inverse(subject.reshape_inverse(A, d_in=larger), d_in=options["d_in"])
    assert np.array_equal(through, subject.reshape_inverse(A, **options))


# Loss


@about("softmax_cross_entropy")
@given(st.data(), st.integers(-100, 100))
def test_shifting_all_logits_of_an_instance_changes_nothing(subject: Subject, data: DataObject, shift: int) -> None:
    logits, labels = data.draw(strategies.logits_and_labels(subject.dtype))
    logits = np.rint(logits)
    here, there = (
        Call("softmax_cross_entropy", (f, labels), {}) for f in (logits, logits + np.array(shift, logits.dtype))
    )
    subject.judge(*subject.errors(here, subject.run(there), subject.run(here)), call=there)


@about("softmax_cross_entropy")
@DRAWS
def test_relabelling_classes_and_reordering_instances_permutes_the_gradient(subject: Subject, data: DataObject) -> None:
    logits, labels = data.draw(strategies.logits_and_labels(subject.dtype))
    rows, classes = (np.array(data.draw(st.permutations(range(size)))) for size in logits.shape)
    call = Call("softmax_cross_entropy", (logits[np.ix_(rows, classes)], np.argsort(classes)[labels[rows]]), {})
    loss, gradient = subject.softmax_cross_entropy(logits, labels)
    subject.judge(*subject.errors(call, subject.run(call), (loss, gradient[np.ix_(rows, classes)])), call=call)


@about("softmax_cross_entropy")
@DRAWS
def test_loss_and_gradient_of_a_batch_are_the_means_of_its_instances(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.loss_calls(subject.dtype))
    logits, labels = call.arrays
    m = len(logits)
    alone = [subject.softmax_cross_entropy(logits[k : k + 1], labels[k : k + 1]) for k in range(m)]
    losses, gradients = (np.array(parts, subject.dtype) for parts in zip(*alone, strict=True))
    means = (np.asarray((losses / m).sum(), subject.dtype), gradients[:, 0] / np.array(m, subject.dtype))
    subject.judge(*subject.errors(call, subject.run(call), means), call=call)


@about("softmax_cross_entropy")
@DRAWS
def test_rows_of_the_gradient_sum_to_0_and_only_the_label_has_a_negative_entry(
    subject: Subject, data: DataObject
) -> None:
    logits, labels = data.draw(strategies.logits_and_labels(subject.dtype))
    loss, gradient = subject.softmax_cross_entropy(logits, labels)
    m, classes = logits.shape
    chosen = labels[:, None] == np.arange(classes)
    assert loss >= 0
    assert np.all(gradient[~chosen] >= 0)
    assert np.all(gradient[chosen] <= 0)
    # The bound of an entry is at most u·(n_c + 4 + |f − max f|·p)/m, and x·exp(−x) < ½.
    assert np.all(np.abs(gradient.sum(1)) <= THRESHOLD * classes * (classes + 5) * subject.eps / m)


# Weight gradient and step


@about("weight_gradient")
@DRAWS
def test_weight_gradient_is_the_sum_over_two_parts_of_the_instances(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.weight_gradient_calls(subject.dtype, st.integers(2, 8)))
    dlogits, features = call.arrays
    k = data.draw(st.integers(1, len(dlogits) - 1))
    parts = subject.weight_gradient(dlogits[:k], features[:k]) + subject.weight_gradient(dlogits[k:], features[k:])
    subject.judge(*subject.errors(call, subject.run(call), parts), call=call)


@about("weight_gradient")
@DRAWS
def test_exchanging_dlogits_and_features_transposes_the_weight_gradient(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.weight_gradient_calls(subject.dtype))
    exchanged = call._replace(arrays=call.arrays[::-1])
    subject.judge(*subject.errors(call, subject.run(exchanged).T.copy(), subject.run(call)), call=call)


@about("kernel_sgd_step")
@DRAWS
def test_step_of_learning_rate_0_changes_no_bit(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.step_calls(subject.dtype))
    call = call._replace(options={"lr": 0.0})
    with subject.blamed_on(call):
        assert np.array_equal(subject.run(call), call.arrays[0])


@about("kernel_sgd_step")
@DRAWS
def test_step_with_the_identity_is_sgd(subject: Subject, data: DataObject) -> None:
    W, grad, P, lr = data.draw(strategies.step_inputs(subject.dtype))
    call = Call("kernel_sgd_step", (W, grad, np.eye(len(P), dtype=P.dtype)), {"lr": lr})
    subject.judge(*subject.errors(call, subject.run(call), W - np.array(lr, W.dtype) * grad), call=call)


@about("kernel_sgd_step")
@DRAWS
def test_entry_i_j_of_p_moves_column_j_by_column_i_of_the_gradient(subject: Subject, data: DataObject) -> None:
    W, grad, P, lr = data.draw(strategies.step_inputs(subject.dtype))
    i, j = (data.draw(st.integers(0, len(P) - 1)) for _ in range(2))
    single = np.zeros_like(P)
    single[i, j] = 2
    call = Call("kernel_sgd_step", (W, grad, single), {"lr": lr})
    expected = W.copy()
    expected[:, j] -= np.array(lr, W.dtype) * 2 * grad[:, i]
    subject.judge(*subject.errors(call, subject.run(call), expected), call=call)


@about("kernel_sgd_step")
@DRAWS
def test_columns_beyond_m_change_no_bit(subject: Subject, data: DataObject) -> None:
    W, grad, inverse, lr = data.draw(strategies.preconditioned_gradients(subject.dtype))
    P = subject.reshape_inverse(inverse, d_in=W.shape[1])
    call = Call("kernel_sgd_step", (W, grad, P), {"lr": lr})
    with subject.blamed_on(call):
        assert np.array_equal(subject.run(call)[:, len(inverse) :], W[:, len(inverse) :])


@about("kernel_sgd_step")
@DRAWS
def test_moves_of_two_gradients_add_up(subject: Subject, data: DataObject) -> None:
    W, grad, P, lr = data.draw(strategies.step_inputs(subject.dtype))
    first = data.draw(st.integers(0, len(W) - 1))
    parts = grad.copy(), grad.copy()
    parts[0][first:], parts[1][:first] = 0, 0
    once = subject.kernel_sgd_step(W, parts[0], P, lr=lr)
    call = Call("kernel_sgd_step", (W, grad, P), {"lr": lr})
    subject.judge(
        *subject.errors(call, subject.run(call), subject.kernel_sgd_step(once, parts[1], P, lr=lr)), call=call
    )


@about("kernel_sgd_step")
@pytest.mark.parametrize("m", [1, 4, 7])
@DRAWS
def test_class_sums_of_the_weights_never_move(subject: Subject, m: int, data: DataObject) -> None:
    """The rows of softmax − one-hot sum to 0, and no P mixes classes."""
    Z, W = (data.draw(strategies.matrices(subject.dtype, rows, 5)) for rows in (m, 3))
    f = np.clip(Z @ W.T, -50, 50)
    _, dlogits = subject.softmax_cross_entropy(f, data.draw(strategies.labels(m, 3)))
    G, P = subject.weight_gradient(dlogits, Z), data.draw(strategies.matrices(subject.dtype, 5, 5))
    moved = subject.kernel_sgd_step(W, G, P, lr=0.1)
    # Of every entry of the step u·(d_in + 2)·(|W| + η|G||P|); of dlogits 8·u·(3 + 5)/m in a row's sum, through |Z|ᵀ|P|.
    rounding = 7 * (np.abs(W) + 0.1 * np.abs(G) @ np.abs(P)).sum(0)
    gradient = 0.1 * (np.abs(dlogits).sum(1) + 24 / m) @ np.abs(Z) @ np.abs(P) * (m + 2)
    assert np.all(np.abs(moved.sum(0) - W.sum(0)) <= THRESHOLD * subject.eps * (rounding + gradient))
