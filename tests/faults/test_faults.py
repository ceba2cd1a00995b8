"""The wrong and right backends are backends, and the suite is not blind: one wrong one of each family is reported."""

from pathlib import Path

import pytest

from gpu import torch_ops
from tests.conformance.backends import SIGNATURES, find
from tests.faults import right
from tests.faults.__main__ import reported_in, work
from tests.faults.table import FAULTS
from tests.faults.wrong import FAMILIES
from tests.support.bad_input import TABLE

CONFORMANCE = Path(__file__).parents[1] / "conformance"


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_backend_is_the_right_one_with_one_function_replaced(name: str) -> None:
    fault, backend = FAULTS[name], find(f"tests.faults.wrong:BACKENDS.{name}").backend
    replaced = [f for f in SIGNATURES if getattr(backend, f) is not getattr(torch_ops, f)]
    assert replaced == [fault.replaces]
    assert fault.family in FAMILIES
    assert fault.concept


@pytest.mark.parametrize("name", vars(right.BACKENDS))
def test_right_backend_is_one(name: str) -> None:
    assert find(f"tests.faults.right:BACKENDS.{name}").backend


def test_what_is_to_report_a_fault_is_the_name_of_a_test_or_of_a_row() -> None:
    sources = [file.read_text(encoding="utf-8") for file in CONFORMANCE.glob("test_*.py")]
    known = "\n".join([*sources, *TABLE])
    assert [name for name, fault in FAULTS.items() if fault.reported_by not in known] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "trailing_block_kept",
        "gamma_taken_for_a_width",
        "inverted_in_float32",
        "jittered_until_it_factors",
        "members_beyond_512_left_out",
        "gamma_after_the_product",  # its ratio is infinite
    ],
)
def test_suite_reports_a_fault_of_each_family(name: str) -> None:
    assert reported_in(name, work(f"wrong {name} ci 0"))
