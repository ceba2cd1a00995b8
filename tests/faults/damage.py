"""How small an error the suite reports: a right operation is damaged more and more, until its accuracy test fails.

Every entry of the result, or only the one that is largest in size, is multiplied by 1 + δ for a power of two δ.
"""

import os

os.environ["HYPOTHESIS_PROFILE"] = "audit"  # whether a test fails, not why; read when the suite is imported

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

import tests.conftest  # noqa: F401 - where that profile is
from gpu import torch_ops
from tests.conformance import test_accuracy as accuracy
from tests.conformance.backends import DTYPES, Candidate, namespace
from tests.conformance.subject import Subject

HEADER = ("result", "precision", "in all entries", "in the largest entry")
EXPLANATION = (
    "The smallest relative error, a power of two, that an accuracy test reports in a result that is right otherwise "
    "(profile `ci`). The unit roundoff is 2^-53 in float64 and 2^-24 in float32; a result may be off by what its "
    "operation amplifies, and by the threshold of the ratios."
)


class Damaged(NamedTuple):
    """What gets damaged, `part` of a tuple that the operation returns, and the test that is to fail."""

    operation: str
    test: Callable[[Subject], None]
    part: int = 0


RESULTS = {
    **{
        f"gram ({kernel})": Damaged("gram", partial(accuracy.test_gram_is_the_kernel_of_all_pairs, kernel=kernel))
        for kernel in accuracy.KERNELS
    },
    "inverse (backward)": Damaged("inverse_gram", accuracy.test_inverse_solves_its_equation),
    "inverse (forward)": Damaged("inverse_gram", accuracy.test_inverse_is_near_the_exact_one),
    "pseudoinverse": Damaged(
        "inverse_gram", accuracy.test_pseudoinverse_fulfils_penroses_equations_and_is_near_the_exact_one
    ),
    "reshaped inverse": Damaged(
        "reshape_inverse", accuracy.test_reshaped_inverse_is_the_leading_block_and_exact_zeros_bit_for_bit
    ),
    "loss": Damaged("softmax_cross_entropy", accuracy.test_loss_is_the_mean_cross_entropy),
    "gradient of the loss": Damaged(
        "softmax_cross_entropy", accuracy.test_gradient_is_softmax_less_one_hot_over_m, part=1
    ),
    "weight gradient": Damaged("weight_gradient", accuracy.test_weight_gradient_is_dlogits_transposed_times_features),
    "step": Damaged("kernel_sgd_step", accuracy.test_step_is_w_minus_lr_grad_p_as_written),
}


def damaged(result: Any, delta: float, part: int, everywhere: bool) -> Any:
    """What the operation returned, with a relative error of `delta` in that part."""
    parts = list(result) if isinstance(result, tuple) else [result]
    exact: Tensor = parts[part]
    error = torch.full((exact.numel(),), delta if everywhere else 0.0, dtype=exact.dtype)
    error[exact.abs().argmax()] = delta
    parts[part] = exact * (1 + error.reshape(exact.shape))
    return tuple(parts) if isinstance(result, tuple) else parts[0]


def is_reported(what: Damaged, dtype: str, exponent: int, everywhere: bool) -> bool:
    """Whether a test fails on the operation with an error of 2^exponent."""
    right = getattr(torch_ops, what.operation)

    def operation(*arguments: Any, **options: Any) -> Any:
        return damaged(right(*arguments, **options), 2.0**exponent, what.part, everywhere)

    subject = Subject("damaged", Candidate(namespace(torch_ops, **{what.operation: operation})), dtype)
    try:
        what.test(subject)
    except AssertionError:
        return True
    return False


def smallest_reported(what: Damaged, dtype: str, everywhere: bool) -> str:
    """By bisection: what is reported at some size is reported beyond it."""
    silent, reported = -int(torch.finfo(getattr(torch, dtype)).bits), 1
    while reported - silent > 1:
        middle = (silent + reported) // 2
        silent, reported = (silent, middle) if is_reported(what, dtype, middle, everywhere) else (middle, reported)
    return f"2^{reported}" if reported < 1 else "none"


def rows() -> Iterator[list[str]]:
    cases = [(name, dtype) for name in RESULTS for dtype in DTYPES]
    for name, dtype in track(cases, description="damage", console=Console(stderr=True)):
        yield [name, dtype, *(smallest_reported(RESULTS[name], dtype, everywhere) for everywhere in (True, False))]
