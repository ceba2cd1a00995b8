"""What a wrong backend is: the right one with a single function replaced, and the test that has to notice.

A fault is a function in the module of its family, `reshaping`, `scaling`, `precision`, `robustness` or `batching`; its
docstring says the concept that it breaks. Beyond that it is as right as `gpu.torch_ops`: arguments that are refused
there are refused before the wrong code runs, unless leniency is the fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

from gpu import torch_ops
from tests.conformance.backends import OPERATIONS, namespace

Function = Callable[..., Any]


@dataclass(frozen=True)
class Fault:
    """`replaces` is the name of the function it stands for, `reported_by` a part of the id of a test that must fail."""

    name: str
    family: str
    concept: str
    replaces: str
    reported_by: str
    function: Function

    @property
    def operation(self) -> str:
        """The operation that the test is about; empty where it is about arrays as such."""
        return self.replaces if self.replaces in OPERATIONS else ""

    def backend(self) -> SimpleNamespace:
        return namespace(torch_ops, name=self.name, **{self.replaces: self.function})


FAULTS: dict[str, Fault] = {}


def wrong(replaces: str, reported_by: str, *, lenient: bool = False) -> Callable[[Function], Function]:
    """Enter a function into the table as what takes the place of the right one; a `lenient` one refuses on its own."""
    right = getattr(torch_ops, replaces)

    def enter(function: Function) -> Function:
        @wraps(function)
        def refusing(*arguments: Any, **options: Any) -> Any:
            right(*arguments, **options)
            return function(*arguments, **options)

        family = function.__module__.rpartition(".")[2]
        concept = (function.__doc__ or "").strip()
        called = function if lenient else refusing
        FAULTS[function.__name__] = Fault(function.__name__, family, concept, replaces, reported_by, called)
        return function

    return enter
