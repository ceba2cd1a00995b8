"""LAPACK's matrix types have the conditions, norms and zeros that their names promise, read off exact eigenvalues."""

import numpy as np
import pytest
from hypothesis import given

from tests.support import exact, strategies
from tests.support.matrix_types import POSITIVE_DEFINITE_TYPES

DTYPES = ("float64", "float32")
# Exponents of 0.1/eps and of tiny/4eps, and the rows and columns of a 4 × 4 matrix.
CONDITIONS = {"condition sqrt(0.1/eps)": 0.5, "condition 0.1/eps": 1.0}
NORMS = {"near underflow": 1, "near overflow": -1}
ZEROED = {"first row and column 0": [0], "last row and column 0": [3], "middle row and column 0": [2]}


def test_there_are_nine_types() -> None:
    assert len(POSITIVE_DEFINITE_TYPES) == 9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", POSITIVE_DEFINITE_TYPES)
@given(m=strategies.sizes(), seed=strategies.seeds())
def test_a_type_is_symmetric_reproducible_and_has_its_norm_and_condition(
    name: str, dtype: str, m: int, seed: int
) -> None:
    build, singular = POSITIVE_DEFINITE_TYPES[name]
    H, info = build(m, dtype, seed), np.finfo(dtype)
    assert (H.dtype, H.shape) == (dtype, (m, m))
    assert np.array_equal(H, H.T)
    assert np.array_equal(H, build(m, dtype, seed))
    smallest, largest = exact.extreme_eigenvalues(H)
    assert (smallest == 0) == singular
    norm = (np.longdouble(info.tiny) / info.eps / 4) ** NORMS.get(name, 0)
    condition = (0.1 / info.eps) ** CONDITIONS[name] if name in CONDITIONS else 2.0
    if singular:
        assert m == 1 or norm / condition * 0.99 < largest < norm * 1.01
    else:
        assert largest == pytest.approx(norm, rel=1e-4)
        assert smallest > 0
        # Rounding H moves its eigenvalues by as much as m·eps of the largest.
        assert m == 1 or smallest == pytest.approx(norm / condition, rel=1e-4, abs=float(m * info.eps * norm))


@pytest.mark.parametrize("name", POSITIVE_DEFINITE_TYPES)
def test_rows_and_columns_are_0_where_the_name_says_and_entries_off_the_diagonal_but_in_the_diagonal_type(
    name: str,
) -> None:
    H = POSITIVE_DEFINITE_TYPES[name].build(4, "float64", 0)
    assert np.flatnonzero(~H.any(axis=0)).tolist() == ZEROED.get(name, [])
    kept = np.delete(np.arange(4), ZEROED.get(name, []))
    assert (H[np.ix_(kept, kept)] != 0).all() == (name != "diagonal")
    assert np.array_equal(H, np.diag(np.diag(H))) == (name == "diagonal")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, kind in POSITIVE_DEFINITE_TYPES.items() if not kind.singular])
def test_the_inverse_of_a_type_fits_its_dtype(name: str, dtype: str) -> None:
    inverse = exact.inverse_gram(POSITIVE_DEFINITE_TYPES[name].build(20, dtype, 1))
    assert np.finfo(dtype).tiny < abs(inverse).max() < np.finfo(dtype).max
