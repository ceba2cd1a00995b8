"""Several members at once are each what it is alone, however many they are and whatever their neighbours are like.

Batched factorisations on GPUs have been silently wrong for some sizes before (pytorch#66072, pytorch#86465).
"""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

from tests.conformance.about import about
from tests.conformance.subject import Subject
from tests.support import ratios, strategies
from tests.support.calls import Call

Array = NDArray[Any]

BATCHED = ("gram", "inverse_gram", "reshape_inverse")
SIZES = (1, 2, 33, 1024)


def members(operation: str, size: int, m: int, dtype: str, seed: int) -> Call:
    """A stack of `size` well-conditioned members of m rows."""
    A = np.random.default_rng(seed).standard_normal((size, m, m))
    if operation == "gram":
        return Call("gram", (A.astype(dtype),), {"gamma": 0.1})
    H = (A @ A.swapaxes(1, 2) / m + np.eye(m)).astype(dtype)
    options = {"d_in": m + 1} if operation == "reshape_inverse" else {}
    return Call(operation, (np.maximum(H, H.swapaxes(1, 2)),), options)


def alone(call: Call, index: tuple[int, ...]) -> Call:
    return call._replace(arrays=(call.arrays[0][index],))


@pytest.mark.parametrize("operation", BATCHED)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("m", [1, 3, 32, 65])
def test_every_member_of_a_batch_is_what_it_is_alone(subject: Subject, operation: str, size: int, m: int) -> None:
    call = members(operation, size, m, subject.dtype, seed=size + m)
    together = subject.run(call)
    for index in range(0, size, max(1, size * m // 256)):
        single = alone(call, (index,))
        subject.judge(*subject.errors(single, together[index], subject.run(single)), call=single)


@pytest.mark.parametrize("operation", BATCHED)
@given(strategies.seeds(), st.sampled_from([(1,), (3,), (2, 2), (2, 1, 3)]), strategies.sizes(9))
def test_leading_dimensions_are_those_of_the_result(
    subject: Subject, operation: str, seed: int, leading: tuple[int, ...], m: int
) -> None:
    call = members(operation, int(np.prod(leading)), m, subject.dtype, seed)
    flat = subject.run(call)
    shaped = call._replace(arrays=(call.arrays[0].reshape(*leading, *call.arrays[0].shape[1:]),))
    found = subject.run(shaped).reshape(flat.shape)
    subject.judge(*subject.errors(call, found, flat), call=shaped)


@about("inverse_gram")
@given(
    strategies.sizes(12),
    st.lists(st.tuples(st.booleans(), st.integers(-20, 20)), min_size=1, max_size=5),
    strategies.seeds(),
)
@example(32, [(False, 0), (True, 0), (False, 0)], 0)
def test_a_singular_member_leaves_its_neighbours_inverses_alone(
    subject: Subject, m: int, kinds: list[tuple[bool, int]], seed: int
) -> None:
    """The members differ in scale, too, so that none can be judged by another's largest eigenvalue."""
    singular, exponents = map(np.array, zip(*kinds, strict=True))
    call = members("inverse_gram", len(kinds), m, subject.dtype, seed)
    call.arrays[0][singular] = 0 if m == 1 else 1
    scaled = np.ldexp(call.arrays[0], 2 * exponents[:, None, None])
    call = call._replace(arrays=(scaled,), options={"singular": "pinv"})
    together = subject.run(call)
    for index in range(len(kinds)):
        single = alone(call, (index,))
        subject.judge(*subject.errors(single, together[index], subject.run(single)), call=call)


@about("inverse_gram")
@given(st.data(), strategies.INSTANCES)
def test_refused_member_is_named_by_its_index_and_eigenvalues(subject: Subject, data: DataObject, m: int) -> None:
    H = data.draw(
        strategies.stacks(strategies.gram_matrices(subject.dtype, m)) | strategies.gram_matrices(subject.dtype, m)
    )
    index = data.draw(st.sampled_from(list(np.ndindex(H.shape[:-2]))))
    H[index] = data.draw(
        strategies.singular_gram_matrices(subject.dtype, m) | strategies.indefinite_matrices(subject.dtype, m)
    )
    call = Call("inverse_gram", (H,), {})
    message = re.escape(str(index)) + r"(?s:.*\d)"
    subject.refuses(call, np.linalg.LinAlgError, message)


@about("gram")
@given(st.data())
def test_a_member_whose_distances_overflow_leaves_its_neighbours_alone(subject: Subject, data: DataObject) -> None:
    X = data.draw(strategies.stacks(strategies.data_matrices(subject.dtype, 4, 2, ("plain", "random")), st.just((3,))))
    call = Call("gram", (X,), {"gamma": 0.1})
    expected = subject.run(alone(call, ([0, 2],)))
    X[1, 0] = float(np.finfo(subject.dtype).max)
    found = subject.run(call)[[0, 2]]
    subject.judge(ratios.gram(found, expected, X[[0, 2]], gamma=0.1), call=call)
