"""Every operation against the oracle: the error over what rounding can explain (DESIGN, section 6).

Under the `nightly` profile Hypothesis looks for inputs that make the ratios large, not only for some.
"""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from hypothesis.control import currently_in_test_context
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

from tests.conformance.about import about
from tests.conformance.subject import Subject
from tests.support import calls, ratios, strategies
from tests.support.calls import Call
from tests.support.ratios import Ratio

Array = NDArray[Any]

SEARCHING = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
KERNELS = ("rbf", "linear", "polynomial")


def hold(subject: Subject, call: Call, *found: Ratio) -> None:
    """Judge the ratios of a call; search for larger ones where that is asked for."""
    __tracebackhide__ = True
    if SEARCHING and currently_in_test_context():
        for ratio in found:
            target(min(ratio.value, 1e6), label=ratio.operation)
    subject.judge(*found, call=call)


@about("gram")
@pytest.mark.parametrize("kernel", KERNELS)
@given(st.data())
def test_gram_is_the_kernel_of_all_pairs(subject: Subject, kernel: str, data: DataObject) -> None:
    call = data.draw(calls.gram_calls(subject.dtype, kernel))
    exact = subject.oracle.gram(*call.arrays, **call.options)
    hold(subject, call, ratios.gram(subject.run(call), exact, *call.arrays, **call.options))


@about("gram")
@given(st.data())
def test_polynomial_kernel_keeps_its_precision_where_rows_differ_in_scale(subject: Subject, data: DataObject) -> None:
    """⟨x,y⟩ alone leaves the range of the precision, or loses bits at its end, where γ⟨x,y⟩ is ordinary."""
    call = data.draw(calls.polynomial_calls_of_any_scale(subject.dtype))
    exact = subject.oracle.gram(*call.arrays, **call.options)
    H = subject.run(call)
    hold(subject, call, ratios.gram(H, exact, *call.arrays, **call.options))
    with subject.blamed_on(call):
        assert np.array_equal(H, H.swapaxes(-1, -2))


@about("gram")
def test_polynomial_kernel_of_rows_that_the_root_of_gamma_takes_out_of_range(subject: Subject) -> None:
    """√γ·x vanishes where γ⟨x,y⟩, of a small and a large row, does not."""
    info = np.finfo(subject.dtype)
    exponents = np.array([[int(0.8 * info.minexp)], [info.maxexp - 5]])
    X = np.ldexp(np.random.default_rng(0).uniform(1, 2, (2, 3)), exponents).astype(subject.dtype)
    options = {"kernel": "polynomial", "gamma": float(2 * info.tiny), "degree": 1, "coef0": 0.0}
    call = Call("gram", (X,), options)
    hold(subject, call, ratios.gram(subject.run(call), subject.oracle.gram(X, **options), X, **options))


@about("gram")
@pytest.mark.parametrize("distance", [1e1, 1e3, 1e5])
def test_rbf_kernel_of_data_far_from_the_origin_and_from_other_members(subject: Subject, distance: float) -> None:
    """Their squares cancel, unless every member is centred by itself."""
    offsets = distance * np.array([-1, 0, 1])[:, None, None]
    X = (np.random.default_rng(0).standard_normal((3, 12, 4)) + offsets).astype(subject.dtype)
    call = Call("gram", (X,), {"gamma": 0.1})
    hold(subject, call, ratios.gram(subject.run(call), subject.oracle.gram(X, gamma=0.1), X, gamma=0.1))


@about("gram")
@pytest.mark.parametrize("kernel", KERNELS)
@given(st.integers(1, 70), st.integers(1, 40), strategies.seeds(), st.data())
def test_gram_is_symmetric_bit_for_bit_and_exactly_1_on_the_diagonal_of_rbf(
    subject: Subject, kernel: str, m: int, d: int, seed: int, data: DataObject
) -> None:
    X = np.random.default_rng(seed).standard_normal((2, m, d)).astype(subject.dtype)
    options = data.draw(strategies.kernels(kernel))
    call = Call("gram", (X,), options)
    H = subject.run(call)
    with subject.blamed_on(call):
        assert np.array_equal(H, H.swapaxes(-1, -2))
        assert kernel != "rbf" or np.all(np.diagonal(H, axis1=-2, axis2=-1) == 1)


@about("gram")
@given(st.data())
def test_rbf_value_is_0_where_the_distance_overflows_and_1_for_duplicates(subject: Subject, data: DataObject) -> None:
    largest = float(np.finfo(subject.dtype).max) * data.draw(st.sampled_from((1.0, 1e-10)))
    X = data.draw(strategies.stacks(strategies.data_matrices(subject.dtype, 4, 2, ("plain", "random")), st.just((3,))))
    X[1] = data.draw(st.permutations([[largest, 1], [-largest, 1], [largest, 1], [1, 2]]))
    call = Call("gram", (X,), {"gamma": 0.1})
    with subject.blamed_on(call):
        assert np.array_equal(subject.run(call)[1], (X[1][:, None] == X[1]).all(-1))


@about("gram")
@pytest.mark.parametrize("gamma", [0.3, 3.0])
def test_rbf_value_beside_a_distance_that_overflows_is_what_it_is_alone(subject: Subject, gamma: float) -> None:
    near = np.array([[0.0, 0.0], [0.5, 0.25], [1.0, -0.5]])
    X = np.concatenate((near, [[float(np.finfo(subject.dtype).max) / 2, 0.0]])).astype(subject.dtype)
    call = Call("gram", (np.stack((X, X[::-1])),), {"gamma": gamma})
    H, alone = subject.run(call), subject.oracle.gram(near, gamma=gamma)
    for member in (H[0], H[1, ::-1, ::-1]):
        hold(subject, call, ratios.gram(member[:3, :3], alone, near.astype(subject.dtype), gamma=gamma))
        with subject.blamed_on(call):
            assert not member[3, :3].any()


@about("inverse_gram")
@given(st.data())
def test_inverse_solves_its_equation(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.inverse_calls(subject.dtype))
    hold(subject, call, ratios.inverse_backward(subject.run(call), *call.arrays, **call.options))


@about("inverse_gram")
@given(st.data())
def test_inverse_is_near_the_exact_one(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.inverse_calls(subject.dtype))
    exact = subject.oracle.inverse_gram(*call.arrays, **call.options)
    hold(subject, call, ratios.inverse_forward(subject.run(call), exact, *call.arrays, **call.options))


@about("inverse_gram")
@given(st.data())
def test_inverse_is_symmetric_bit_for_bit(subject: Subject, data: DataObject) -> None:
    members = strategies.gram_matrices(subject.dtype, strategies.sizes(20))
    call = Call(
        "inverse_gram", (data.draw(members | strategies.singular_gram_matrices(subject.dtype)),), {"singular": "pinv"}
    )
    X = subject.run(call)
    with subject.blamed_on(call):
        assert np.array_equal(X, X.T)


@about("inverse_gram")
@given(st.data())
def test_pseudoinverse_fulfils_penroses_equations_and_is_near_the_exact_one(subject: Subject, data: DataObject) -> None:
    H = data.draw(strategies.singular_gram_matrices(subject.dtype, strategies.sizes(12)))
    call = Call("inverse_gram", (H,), {"singular": "pinv"})
    X, exact = subject.run(call), subject.oracle.inverse_gram(H, singular="pinv")
    # The equations alone would let pass the inverse of a nearby regular matrix, whose norm is huge.
    hold(subject, call, *ratios.pseudoinverse(X, H), ratios.inverse_forward(X, exact, H))


@about("reshape_inverse")
@given(st.data())
def test_reshaped_inverse_is_the_leading_block_and_exact_zeros_bit_for_bit(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.reshape_calls(subject.dtype))
    P = subject.run(call)
    with subject.blamed_on(call):
        assert np.array_equal(P, subject.oracle.reshape_inverse(*call.arrays, **call.options))


@about("softmax_cross_entropy")
@given(st.data())
def test_loss_is_the_mean_cross_entropy(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.loss_calls(subject.dtype))
    loss, _ = subject.run(call)
    hold(subject, call, ratios.loss(loss, subject.oracle.softmax_cross_entropy(*call.arrays)[0], *call.arrays))


@about("softmax_cross_entropy")
@given(st.data())
def test_gradient_is_softmax_less_one_hot_over_m(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.loss_calls(subject.dtype))
    _, gradient = subject.run(call)
    exact = subject.oracle.softmax_cross_entropy(*call.arrays)[1]
    hold(subject, call, ratios.loss_gradient(gradient, exact, *call.arrays))


@about("softmax_cross_entropy")
@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@given(st.data())
def test_labels_of_every_width_mean_the_same(subject: Subject, kind: str, data: DataObject) -> None:
    logits, labels = data.draw(strategies.logits_and_labels(subject.dtype))
    call = Call("softmax_cross_entropy", (logits, labels.astype(kind)), {})
    loss, gradient = subject.run(call)
    exact_loss, exact_gradient = subject.oracle.softmax_cross_entropy(logits, labels)
    hold(
        subject,
        call,
        ratios.loss(loss, exact_loss, logits, labels),
        ratios.loss_gradient(gradient, exact_gradient, logits, labels),
    )


@about("weight_gradient")
@given(st.data())
def test_weight_gradient_is_dlogits_transposed_times_features(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.weight_gradient_calls(subject.dtype))
    exact = subject.oracle.weight_gradient(*call.arrays)
    hold(subject, call, ratios.weight_gradient(subject.run(call), exact, *call.arrays))


@about("kernel_sgd_step")
@given(st.data())
def test_step_is_w_minus_lr_grad_p_as_written(subject: Subject, data: DataObject) -> None:
    call = data.draw(calls.step_calls(subject.dtype))
    exact = subject.oracle.kernel_sgd_step(*call.arrays, **call.options)
    hold(subject, call, ratios.step(subject.run(call), exact, *call.arrays, call.options["lr"]))
