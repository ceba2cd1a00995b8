"""Arrays across the border and in memory: what every operation owes its arguments, in every layout."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

from tests.conformance.about import EVERY_OPERATION
from tests.conformance.backends import DTYPES
from tests.conformance.subject import LAYOUTS, Subject
from tests.support import strategies
from tests.support.calls import CALLS

Array = NDArray[Any]


@EVERY_OPERATION
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
@given(st.data())
def test_layout_of_the_arrays_changes_nothing_beyond_rounding(
    subject: Subject, operation: str, layout: str, data: DataObject
) -> None:
    call = data.draw(CALLS[operation](subject.dtype))
    found, expected = (subject.run(call, layout=name) for name in (layout, "contiguous"))
    subject.judge(*subject.errors(call, found, expected), call=call)


@pytest.mark.parametrize("order", ["C", "F"])
@given(st.data(), st.sampled_from("<>"), st.booleans())
def test_from_numpy_copies_values_in_their_memory_order(
    subject: Subject, order: str, data: DataObject, endianness: str, writeable: bool
) -> None:
    values = data.draw(strategies.matrices("float64"))
    source = np.array(values, dtype=np.dtype("float64").newbyteorder(endianness), order=order)
    source.flags.writeable = writeable
    placed = subject.place(source)
    found = subject.to_numpy(placed)
    assert found.dtype == subject.dtype
    assert np.array_equal(found, values.astype(subject.dtype))
    assert not np.shares_memory(found, source)
    if subject.views(placed):
        assert all(found.flags[layout] == source.flags[layout] for layout in ("C", "F"))
    else:
        subject.note("memory order kept by `from_numpy`: unchecked, `to_numpy` copies")
    assert np.array_equal(source, values)


@given(st.sampled_from("iu"), st.sampled_from((1, 2, 4, 8)), st.sampled_from("<>"), st.data())
def test_from_numpy_leaves_integers_integers(
    subject: Subject, kind: str, width: int, endianness: str, data: DataObject
) -> None:
    labels = data.draw(strategies.labels(data.draw(strategies.INSTANCES), 5))
    found = subject.to_numpy(subject.place(labels.astype(f"{endianness}{kind}{width}")))
    assert found.dtype.kind in "iu"
    assert np.array_equal(found, labels)


@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "int64", "no dtype"])
def test_from_numpy_takes_the_dtypes_that_the_backend_claims_and_no_other(subject: Subject, dtype: str) -> None:
    if dtype in subject.backend.dtypes:
        assert subject.to_numpy(subject.backend.from_numpy(np.eye(2), dtype)).dtype == dtype
    else:
        with pytest.raises(ValueError, match="dtype"):
            subject.backend.from_numpy(np.eye(2), dtype)


def test_device_of_what_from_numpy_makes_is_one_and_the_same(subject: Subject) -> None:
    if not hasattr(subject.backend, "device"):
        pytest.skip(f"not run: {subject.name} has no `device`")
    where = {subject.backend.device(subject.place(array)) for array in (np.eye(2), np.ones(3), np.array([0, 1]))}
    assert len(where) == 1
    assert all(isinstance(device, str) for device in where)
