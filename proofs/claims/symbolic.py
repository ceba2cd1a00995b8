"""What the derivations share: sums of symbolic length, Kronecker deltas, and residuals that are shown to vanish.

Sizes stay symbols (n_c, m, d_in): vectors and matrices are `Indexed`, products are `Sum`s, and ∂a_j/∂a_k is a
`KroneckerDelta`. MatrixSymbol calculus is not used: in SymPy 1.14 it is silently wrong on traces and on functions of
1 × 1 entries. What a derivation finds for symbolic sizes is evaluated again at sizes 2, 3 and 4 at exact rationals.
"""

import random
from collections.abc import Iterable, Mapping
from fractions import Fraction

import sympy as sp  # type: ignore[import-untyped]
from sympy.concrete.delta import deltasummation  # type: ignore[import-untyped]

from proofs.certificates import Proved

__all__ = [
    "SIZES",
    "IdentityError",
    "at_entries",
    "at_rationals",
    "collapse",
    "identity",
    "nonnegative",
    "sp",
    "sum_derivative",
    "vanishes",
    "vanishes_at_sizes",
]

SIZES = (2, 3, 4)


class IdentityError(Exception):
    """An equation or an inequality of a derivation does not hold."""


def collapse(summand: "sp.Expr", *limits: "tuple[sp.Symbol, sp.Expr, sp.Expr]") -> "sp.Expr":
    """The sum, with every Kronecker delta of its indices resolved, indices taken to lie within the limits."""
    for limit in limits:
        summand = deltasummation(sp.expand(summand), limit, no_piecewise=True)
    return summand


def sum_derivative(summand: "sp.Expr", by: "sp.Indexed", limit: "tuple[sp.Symbol, sp.Expr, sp.Expr]") -> "sp.Expr":
    """∂/∂(entry) of a sum over one index: ∂a_j/∂a_k = δ_jk, and the sum resolves it.

    Checked at sizes 2, 3 and 4 against differentiation of the sum written out. Raises IdentityError.
    """
    found = collapse(sp.diff(summand, by), limit)
    index, low, high = limit
    (place,) = by.indices
    for size in SIZES:
        explicit = sp.Sum(summand, (index, low, size)).doit().subs(place, 2)
        if sp.simplify(sp.diff(explicit, by.base[2]) - found.subs({high: size, place: 2}).doit()) != 0:
            raise IdentityError(f"∂/∂{by} of Σ {summand}: {found} differs at size {size}")
    return found


def vanishes(statement: str, residual: "sp.Expr") -> Proved:
    """The statement, once its residual is identically 0. Raises IdentityError."""
    for simplified in (sp.expand(residual), sp.simplify(residual)):
        if simplified == 0:
            return Proved(statement)
    raise IdentityError(f"{statement}: {sp.simplify(residual)} is left")


def identity(statement: str, left: "sp.Expr", right: "sp.Expr") -> "tuple[Proved, sp.Expr]":
    """left = right as a line of a derivation, once the difference vanishes. Raises IdentityError."""
    proved = vanishes(statement, left - right)
    return proved, left if left == right else sp.Eq(left, right, evaluate=False)


def at_rationals(expression: "sp.Expr", sizes: Mapping["sp.Symbol", int], seed: int = 0) -> "sp.Expr":
    """The expression with sizes put in, sums written out, and a random rational number for every entry and symbol left.

    Positive numbers for symbols that are positive, both signs for the others.
    """
    explicit = expression.subs(sizes).doit()
    entries = explicit.atoms(sp.Indexed)
    labels = {entry.base.label for entry in entries} | {entry.base for entry in entries}
    symbols = (atom for atom in explicit.free_symbols if atom not in labels and atom not in entries)
    draw = random.Random(seed)
    values = {}
    for atom in (*sorted(entries, key=str), *sorted(symbols, key=str)):
        value = sp.Rational(draw.randint(1, 9), draw.randint(1, 9))
        label = atom.base.label if isinstance(atom, sp.Indexed) else atom
        values[atom] = value if label.is_positive else value * draw.choice((-1, 1))
    return explicit.xreplace(values).doit()


def at_entries(base: "sp.IndexedBase", size: int, seed: int = 0) -> "list[sp.Rational]":
    """Random rational entries 1, ..., size of a vector, positive where its symbol is."""
    return list(at_rationals(sp.Tuple(*(base[r] for r in range(1, size + 1))), {}, seed))


def vanishes_at_sizes(
    statement: str,
    residual: "sp.Expr",
    size: "sp.Symbol | tuple[sp.Symbol, ...]",
    indices: Mapping["sp.Symbol", int] | None = None,
) -> Proved:
    """A line, once the statement's residual is 0 at sizes 2, 3, 4 at exact rationals. Raises IdentityError."""
    symbols = size if isinstance(size, tuple) else (size,)
    for number in SIZES:
        # Different sizes for different symbols, so that a transposed product is noticed.
        sizes = {symbol: SIZES[(number + place) % len(SIZES)] for place, symbol in enumerate(symbols)}
        value = at_rationals(residual.subs(indices or {}), sizes, seed=number)
        if sp.simplify(value) != 0:
            raise IdentityError(f"{statement}: {value} at sizes {sizes}")
    return Proved(f"the same at sizes {', '.join(map(str, SIZES))}, at exact rational numbers")


def nonnegative(statement: str, values: Iterable["sp.Expr | Fraction | int"]) -> str:
    """The statement and how many exact numbers it was tried at, all ≥ 0: no proof. Raises IdentityError."""
    tried = [sp.sympify(value) for value in values]
    for value in tried:
        if value.is_nonnegative is not True:
            raise IdentityError(f"{statement}: {value} is not known to be ≥ 0")
    return f"{statement} (tried at {len(tried)} exact numbers)"
