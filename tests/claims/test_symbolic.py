"""The helpers of the derivations find what does not hold, for symbolic sizes and at explicit ones."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofs.claims import memory, tables
from proofs.claims.symbolic import (
    IdentityError,
    at_rationals,
    collapse,
    identity,
    nonnegative,
    sp,
    sum_derivative,
    vanishes,
    vanishes_at_sizes,
)

n, m, j, k = sp.symbols("n m j k", integer=True, positive=True)
a, b, M = sp.IndexedBase("a"), sp.IndexedBase("b"), sp.IndexedBase("M")
x = sp.Symbol("x", real=True)


def test_a_sum_over_a_delta_is_the_entry() -> None:
    assert collapse(sp.KroneckerDelta(j, k) * a[j], (j, 1, n)) == a[k]
    assert collapse(a[j] * (b[j] - sp.KroneckerDelta(j, k)), (j, 1, n)) == sp.Sum(a[j] * b[j], (j, 1, n)) - a[k]


def test_derivatives_of_sums_resolve_their_deltas() -> None:
    assert sum_derivative(a[j] ** 2, a[k], (j, 1, n)) == 2 * a[k]
    assert sp.simplify(sum_derivative(sp.exp(a[j]) * b[j], a[k], (j, 1, n)) - sp.exp(a[k]) * b[k]) == 0


def test_only_what_is_identically_zero_vanishes() -> None:
    assert vanishes("a binomial", (x + 1) ** 2 - x**2 - 2 * x - 1) == "a binomial"
    with pytest.raises(IdentityError, match="a sign"):
        vanishes("a sign", (x + 1) ** 2 - x**2 + 2 * x - 1)
    with pytest.raises(IdentityError):
        identity("another", sp.sin(x), sp.cos(x))


def test_a_transposed_product_is_noticed_at_explicit_sizes() -> None:
    product = sp.Sum(M[j, k] * b[k], (k, 1, n))
    assert "2, 3, 4" in vanishes_at_sizes("M·b", product - sp.Sum(b[k] * M[j, k], (k, 1, n)), n, {j: 1})
    with pytest.raises(IdentityError):
        vanishes_at_sizes("Mᵀ·b", product - sp.Sum(M[k, j] * b[k], (k, 1, n)), n, {j: 1})
    with pytest.raises(IdentityError):
        vanishes_at_sizes("another size", sp.Sum(a[j], (j, 1, n)) - sp.Sum(a[j], (j, 1, m)), (n, m))


def test_a_negative_number_has_the_wrong_direction_and_an_unknown_sign_is_none() -> None:
    assert nonnegative("all", [0, Fraction(1, 2), sp.Rational(3)]) == "all (tried at 3 exact numbers)"
    for value in (-1, sp.Rational(-1, 3), x):
        with pytest.raises(IdentityError):
            nonnegative("not all", [1, value])


@given(st.integers(0, 100))
def test_positive_symbols_get_positive_numbers_and_the_same_seed_the_same(seed: int) -> None:
    p = sp.IndexedBase(sp.Symbol("p", positive=True))
    drawn = at_rationals(sp.Tuple(*(p[r] for r in range(6)), *(a[r] for r in range(6))), {}, seed)
    assert all(value.is_Rational for value in drawn)
    assert all(value > 0 for value in drawn[:6])
    assert drawn == at_rationals(sp.Tuple(*(p[r] for r in range(6)), *(a[r] for r in range(6))), {}, seed)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=4))
def test_parameters_of_a_perceptron_are_those_of_torch(widths: list[int]) -> None:
    nn = pytest.importorskip("torch").nn
    layers = [nn.Linear(i, o) for i, o in pairwise(widths)]
    assert memory.mlp(*widths) == sum(p.numel() for layer in layers for p in layer.parameters())


def test_rounding_of_printed_numbers() -> None:
    assert tables.rounds_to(Fraction("1.424"), Fraction("1.42"), Fraction(1, 100))
    assert not tables.rounds_to(Fraction("1.426"), Fraction("1.42"), Fraction(1, 100))


def test_tables_have_every_optimizer_on_every_data_set() -> None:
    for table, optimizers in (("table2_second_order_submission", 3), ("table3_second_order_published", 5)):
        found = tables.numbers(table, "test_acc")
        assert len(found) == optimizers * len(tables.DATA_SETS)
        assert {data for data, _ in found} == set(tables.DATA_SETS)
