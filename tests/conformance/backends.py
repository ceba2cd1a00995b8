"""Finding the backend that is to be tested, and refusing what is none before the first test runs.

A backend is any module or object with the names of the contract (DESIGN, section 3): six operations, `name`, `dtypes`,
`from_numpy`, `to_numpy` and, optionally, `device`. Ours are in one table; anybody else's is `module` or `module:object`
on the import path, and nothing here needs editing for it.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import reference

# What callers may write: positional parameters in this order, then keywords with their defaults.
SIGNATURES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "gram": (("X", "kernel"), {"gamma": 1.0, "degree": 3, "coef0": 1.0}),
    "inverse_gram": (("H",), {"ridge": 0.0, "singular": "raise"}),
    "reshape_inverse": (("Hinv", "d_in"), {}),
    "softmax_cross_entropy": (("logits", "labels"), {}),
    "weight_gradient": (("dlogits", "features"), {}),
    "kernel_sgd_step": (("W", "grad", "P", "lr"), {}),
    "from_numpy": (("array", "dtype"), {}),
    "to_numpy": (("array",), {}),
}
OPERATIONS = tuple(SIGNATURES)[:6]
DTYPES = ("float64", "float32")


class BackendError(ValueError):
    """What was asked for is no backend; the message names everything that is missing."""


class NotHere(Exception):  # noqa: N818
    """The backend cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """A backend to be tested, the oracle it is held to, whether it takes any real array (as `reference` does), and
    which operations are its own: tests of others are left out."""

    backend: Any
    oracle: Any = reference
    takes_any_real: bool = False
    own: tuple[str, ...] = OPERATIONS


def _reference() -> Candidate:
    from tests.support import exact

    return Candidate(reference, exact, takes_any_real=True)


def _torch() -> Candidate:
    from gpu import torch_ops

    return Candidate(torch_ops)


def _torch_cuda() -> Candidate:
    import torch

    from gpu import torch_ops

    if not torch.cuda.is_available():
        raise NotHere("no CUDA device")
    return Candidate(torch_ops.on("cuda"))


def _cupy() -> Candidate:
    cupy_ops = _cupy_ops()
    import cupy

    if not cupy.cuda.is_available():
        raise NotHere("no CUDA device")
    return Candidate(cupy_ops)


def _cupy_over_numpy() -> Candidate:
    return Candidate(_cupy_ops().on("numpy"))


def _cupy_ops() -> ModuleType:
    try:
        from gpu import cupy_ops
    except ImportError as error:
        raise NotHere(str(error)) from error
    return cupy_ops


def _kernel_sgd() -> Candidate:
    from tests.conformance.optimizer import stepping_with_kernel_sgd

    return Candidate(stepping_with_kernel_sgd(), own=("kernel_sgd_step",))


BUILT_IN: dict[str, Callable[[], Candidate]] = {
    "reference": _reference,
    "torch": _torch,
    "torch:cuda": _torch_cuda,
    "torch:KernelSGD": _kernel_sgd,
    "cupy": _cupy,
    "cupy:numpy": _cupy_over_numpy,
}


def find(name: str) -> Candidate:
    """The built-in backend of that name, or else the `module` or `module:object` on the import path, checked.

    Raises NotHere where this machine lacks what a built-in backend needs, BackendError with all that is wrong.
    """
    candidate = BUILT_IN[name]() if name in BUILT_IN else Candidate(_imported(name))
    if wrong := list(_defects(candidate.backend)):
        raise BackendError(f"backend {name!r}: " + "; ".join(wrong))
    return candidate


def _imported(name: str) -> Any:
    module_name, _, path = name.partition(":")
    known = f"expected one of {', '.join(BUILT_IN)}, or module[:object] on the import path"
    try:
        found: ModuleType | Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BackendError(f"backend {name!r}: {error}; {known}") from error
    for attribute in path.split(".") if path else ():
        if not hasattr(found, attribute):
            raise BackendError(f"backend {name!r}: {attribute!r} is not in {found!r}; {known}")
        found = getattr(found, attribute)
    return found


def _defects(backend: Any) -> list[str]:
    """Everything that keeps the object from being a backend."""
    wrong = []
    if not isinstance(getattr(backend, "name", None), str):
        wrong.append("`name` is missing or no str")
    claimed = getattr(backend, "dtypes", None)
    if not isinstance(claimed, (tuple, list)) or not claimed or not set(claimed) <= set(DTYPES):
        wrong.append(f"`dtypes` is {claimed!r}: expected a non-empty tuple out of {DTYPES}")
    for function, (positional, keywords) in SIGNATURES.items():
        if not callable(getattr(backend, function, None)):
            wrong.append(f"`{function}` is missing")
        elif problem := _signature_problem(getattr(backend, function), positional, keywords):
            wrong.append(f"`{function}` {problem}")
    return wrong


def _signature_problem(function: Callable[..., Any], positional: tuple[str, ...], keywords: dict[str, Any]) -> str:
    """Why calls of the contract would not bind; empty where they do, or where the signature cannot be read."""
    expected = ", ".join((*positional, *(f"{name}={default!r}" for name, default in keywords.items())))
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled code may have none
        return ""
    optional = {"kernel": "rbf"} | keywords
    least = [name for name in positional if name not in optional]
    for by_position, by_name in ((positional, keywords), ((), (*positional, *keywords)), (least, ())):
        try:
            signature.bind(*by_position, **dict.fromkeys(by_name))
        except TypeError as error:
            return f"takes {signature}: expected ({expected}); {error}"
    order = [name for name in signature.parameters if name in positional]
    if order != list(positional) and len(order) == len(positional):
        return f"has its arguments in the order {', '.join(order)}: expected {', '.join(positional)}"
    for name, parameter in signature.parameters.items():
        if name in optional and parameter.default not in (optional[name], parameter.empty):
            return f"has {name}={parameter.default!r} by default: expected {optional[name]!r}"
    return ""


def namespace(backend: Any, **replaced: Callable[..., Any]) -> SimpleNamespace:
    """A backend like another one, some of its functions replaced."""
    names = ("name", "dtypes", *SIGNATURES, "device")
    return SimpleNamespace(**{name: getattr(backend, name) for name in names if hasattr(backend, name)} | replaced)
