"""A backend under test at one precision, called with NumPy arrays and answering with them.

Every call checks what holds for every operation: results of the right shape, in the precision and on the device of the
arguments, in memory of their own; arguments left as they were. So no test has to say it, and none can forget it. What a
test finds wrong carries the call as code to paste; how wrong right results were is kept for the report.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.backends import OPERATIONS, Candidate
from tests.support.calls import Call, errors, result_shapes
from tests.support.ratios import THRESHOLD, Ratio

Array = NDArray[Any]

PROGRAM = "# from the root of the repository\n"  # how code to paste begins
LONGEST = 3000  # numbers in code to paste

# The same values in other memory, made by the array library itself: from_numpy may make its arrays contiguous.
LAYOUTS: dict[str, Callable[[Array, Callable[[Array], Any]], Any]] = {
    "contiguous": lambda array, place: place(array),
    "transposed": lambda array, place: _swapped(place(np.ascontiguousarray(_swapped(array)))),
    "sliced": lambda array, place: place(np.repeat(array, 2, axis=-1))[..., ::2],
    "read-only": lambda array, place: _read_only(place(array)),
}


class Subject:
    """`gram(X, **options)`, `inverse_gram(H, **options)`, … of the backend: arrays by position, the rest by name."""

    def __init__(self, name: str, candidate: Candidate, dtype: str) -> None:
        self.name, self.dtype = name, dtype
        self.backend, self.oracle = candidate.backend, candidate.oracle
        self.takes_any_real, self.own = candidate.takes_any_real, candidate.own
        self.seen: dict[str, tuple[Ratio, int]] = {}  # the worst of each kind since the last `collect`, and of how many
        self.notes: set[str] = set()
        for operation in OPERATIONS:
            setattr(self, operation, partial(self._operate, operation))

    def __repr__(self) -> str:
        return f"{self.name}-{self.dtype}"

    @property
    def eps(self) -> float:
        return float(np.finfo(self.dtype).eps)

    def place(self, array: Array) -> Any:
        """The array across the border, in this subject's precision."""
        return self.backend.from_numpy(array, self.dtype)

    def to_numpy(self, array: Any) -> Array:
        """The array back across the border."""
        return np.asarray(self.backend.to_numpy(array))

    def views(self, array: Any) -> bool:
        """Whether `to_numpy` gives views, in which memory can be looked at."""
        return np.shares_memory(self.to_numpy(array), self.to_numpy(array))

    def run(self, call: Call, layout: str = "contiguous") -> Any:
        """The operation's result, or tuple of results, once all that holds for every call has been checked."""
        with self.blamed_on(call):
            arguments = [self._laid_out(array, layout) for array in call.arrays]
            before = [self.to_numpy(argument).tobytes() for argument in arguments]
            returned = getattr(self.backend, call.operation)(*arguments, **call.options)
            untouched = [self.to_numpy(argument).tobytes() for argument in arguments] == before
            assert untouched, f"{call.operation} has written to its arguments"
            shapes = result_shapes(call)
            parts = returned if isinstance(returned, tuple) else (returned,)
            assert len(parts) == len(shapes), f"{call.operation} returned {type(returned).__name__}, not {len(shapes)}"
            found = [self._checked(part, shape, arguments) for part, shape in zip(parts, shapes, strict=True)]
        return tuple(found) if len(found) > 1 else found[0]

    def judge(self, *ratios: Ratio, call: Call | None = None) -> None:
        """Fail where a ratio is above the threshold, and remember the worst."""
        for ratio in ratios:
            worst, times = self.seen.get(ratio.operation, (ratio, 0))
            self.seen[ratio.operation] = max(worst, ratio, key=lambda r: r.value), times + 1
        above = [ratio for ratio in ratios if not ratio.value <= THRESHOLD]
        __tracebackhide__ = True
        with self.blamed_on(call):
            assert not above, "\n".join(map(str, above))

    def errors(self, call: Call, found: Any, expected: Any) -> tuple[Ratio, ...]:
        """How far what a call returned is from what it should have."""
        with self.blamed_on(call):
            return errors(call, found, expected)

    def refuses(self, call: Call, error: type[Exception], message: str) -> None:
        """Fail unless the call raises that class, with a message that matches, and leaves its arguments alone."""
        with self.blamed_on(call):
            try:
                arguments = [self.place(array) for array in call.arrays]
            except error:
                return  # refused at the border
            before = [self.to_numpy(argument).tobytes() for argument in arguments]
            with pytest.raises(error, match=message) as refusal:
                getattr(self.backend, call.operation)(*arguments, **call.options)
            if error is ValueError:  # numpy.linalg.LinAlgError is one too, and says something else
                assert not isinstance(refusal.value, np.linalg.LinAlgError), (
                    f"expected ValueError, got {refusal.value!r}"
                )
            assert [self.to_numpy(argument).tobytes() for argument in arguments] == before, "arguments were written to"

    def note(self, text: str) -> None:
        """Say in the report what could not be checked, and why."""
        self.notes.add(text)

    def collect(self) -> dict[str, Any]:
        """What has been seen since the last time, for the report."""
        seen, self.seen = self.seen, {}
        notes, self.notes = sorted(self.notes), set()
        worst = {name: {"ratio": ratio.value, "times": times} for name, (ratio, times) in seen.items()}
        return {"ratios": worst, "notes": notes}

    @contextmanager
    def blamed_on(self, call: Call | None) -> Iterator[None]:
        """Whatever is raised within carries the call as code to paste."""
        __tracebackhide__ = True
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            if call is not None and not getattr(error, "__notes__", None):
                error.add_note(self.code(call))
            raise

    def code(self, call: Call) -> str:
        """The call as a program: what is found, what it should be, and how far one is from the other."""
        numbers = sum(np.size(array) for array in call.arrays)
        if numbers > LONGEST:
            return f"{PROGRAM}# {numbers} numbers are too many to paste: run the test alone"
        arrays = "".join(f"    {_code(np.asarray(array))},\n" for array in call.arrays)
        fractions = "from fractions import Fraction\n\n" if "Fraction(" in repr(call.options) else ""
        return (
            f"{PROGRAM}{fractions}import numpy as np\nfrom numpy import inf, nan\n\n"
            "from tests.conformance.backends import find\n"
            "from tests.conformance.subject import Subject\n"
            "from tests.support.calls import Call\n\n"
            f"subject = Subject({self.name!r}, find({self.name!r}), {self.dtype!r})\n"
            f"arrays = (\n{arrays})\n"
            f"call = Call({call.operation!r}, arrays, {call.options!r})\n"
            'print("found:", found := subject.run(call), sep="\\n")\n'
            'print("should be:", exact := subject.oracle.' + call.operation + '(*arrays, **call.options), sep="\\n")\n'
            'print(*subject.errors(call, found, exact), sep="\\n")'
        )

    def _operate(self, operation: str, *arrays: Array, **options: Any) -> Any:
        return self.run(Call(operation, arrays, options))

    def _laid_out(self, array: Array, layout: str) -> Any:
        try:
            return LAYOUTS[layout](array, self.place)
        except Exception as error:
            if layout == "contiguous":
                raise
            pytest.skip(f"not run: {self.name} has no {layout} arrays ({error})")

    def _checked(self, result: Any, shape: tuple[int, ...], arguments: list[Any]) -> Array:
        found = self.to_numpy(result)
        assert str(found.dtype) == self.dtype, f"the result is {found.dtype}, expected {self.dtype}"
        assert found.shape == shape, f"the result has shape {found.shape}, expected {shape}"
        if hasattr(self.backend, "device"):
            where, expected = self.backend.device(result), self.backend.device(arguments[0])
            assert where == expected, f"the result lies on {where}, its arguments on {expected}"
        else:
            self.note("device of results: unchecked, the backend has no `device`")
        if not all(map(self.views, arguments)):
            self.note("memory shared with arguments: unchecked, `to_numpy` copies")
        shared = any(np.shares_memory(found, self.to_numpy(argument)) for argument in arguments)
        assert not shared, "the result shares memory with an argument"
        return found.copy()


def _code(array: Array) -> str:
    shape = f".reshape({array.shape})" if array.size == 0 else ""
    return f"np.array({array.tolist()}, dtype={str(array.dtype)!r}){shape}"


def _swapped(array: Any) -> Any:
    return array.swapaxes(-1, -2) if array.ndim > 1 else array


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array
