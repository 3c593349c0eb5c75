"""The exact formula of a whole number that can only be measured, one set of sizes at a time."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import sympy
from sympy.polys.matrices import DomainMatrix

from atinuke.core.dims import Size
from atinuke.core.graph import Range

Axes = Mapping[sympy.Symbol, Range]
Sizes = dict[sympy.Symbol, int]
Point = tuple[int, ...]

MAX_DEGREE = 2  # of one atom: attention is quadratic in the sequence
MAX_TOTAL = 4  # of all atoms in one term: batch * frames * patches**2
SPARE = 3  # measurements beyond those that a formula needs, which must agree with it
TRIES = (1, 4, 16)  # as many times more, while they do not tell the terms apart
TYPICAL, FAR = 1024, 65_536  # sizes tried: all axes up to the first, one axis at a time up to the second
SPREAD = 16  # all axes up to so many times their lowest size too, where that is more


def find_formula(measure: Callable[[Sizes], int], axes: Axes, atoms: Sequence[Size], multiple: int = 1) -> Size | None:
    """The polynomial in `atoms` that equals `measure` on every set of sizes tried; None where there is none.

    `atoms` are the free axes and what is made of them, such as `floor(height/16)`. Sizes are taken within the ranges of
    the axes, their upper ends included up to 65,536, and only multiples of `multiple` where a range has some.
    """
    known: dict[Point, int] = {}
    fixed = {symbol: axis.low for symbol, axis in axes.items() if axis.low == axis.high}
    atoms = [atom for atom in (atom.subs(fixed) for atom in atoms) if not atom.is_number]
    for degree in range(1, MAX_DEGREE + 1):
        powers = [power for power in itertools.product(range(degree + 1), repeat=len(atoms)) if sum(power) <= MAX_TOTAL]
        terms = [sympy.Mul(*map(sympy.Pow, atoms, power)) for power in sorted(powers, key=sum)]
        evaluate = sympy.lambdify(list(axes), terms, "sympy")
        for tries in TRIES:
            points = _points(axes, tries * (len(terms) + SPARE), multiple)
            for point in points:
                if point not in known:
                    known[point] = measure(dict(zip(axes, point, strict=True)))
            coefficients = _solve([[*evaluate(*map(sympy.Integer, point)), known[point]] for point in points])
            if coefficients is None or None not in coefficients:
                break
        if coefficients is not None:
            return sympy.Add(*(c * term for c, term in zip(coefficients, terms, strict=True) if c is not None))
    return None


def _points(axes: Axes, count: int, multiple: int) -> list[Point]:
    """Sets of sizes: the lowest, each axis alone at its upper end, and a spread of others over all magnitudes."""
    ranges = [_multiples(axis, multiple) for axis in axes.values()]
    if prod(len(sizes) for sizes in ranges) <= count:
        return list(itertools.product(*ranges))
    lowest = tuple(sizes[0] for sizes in ranges)
    points = [lowest]
    for i, sizes in enumerate(ranges):
        points.append((*lowest[:i], _last(sizes, FAR), *lowest[i + 1 :]))
    generator = np.random.default_rng(0)
    for _ in range(count):
        point = []
        for sizes in ranges:
            low, top = sizes[0], _last(sizes, max(TYPICAL, SPREAD * sizes[0]))
            point.append(int(low * (top / low) ** generator.random() / sizes.step + 0.5) * sizes.step)
        points.append(tuple(point))
    return list(dict.fromkeys(points))


def _multiples(axis: Range, multiple: int) -> range:
    """The multiples in a range; all of it where there are none."""
    found = range(-(-axis.low // multiple) * multiple, axis.high + 1, multiple)
    return found or range(axis.low, axis.high + 1)


def _last(sizes: range, limit: int) -> int:
    """The largest of the sizes up to a limit; the smallest of all where there is none."""
    return sizes[max(0, min(len(sizes) - 1, (limit - sizes[0]) // sizes.step))]


def _solve(rows: Sequence[Sequence[int]]) -> list[sympy.Rational | None] | None:
    """The coefficients that give the last column from the others, exactly.

    None in place of one that the rows cannot tell from those before it; None for all where no coefficients fit.
    """
    last = len(rows[0]) - 1
    matrix = DomainMatrix.from_list_sympy(len(rows), last + 1, [list(map(sympy.Integer, row)) for row in rows])
    reduced, pivots = matrix.to_field().rref()
    if last in pivots:
        return None
    solved = reduced.to_Matrix()
    coefficients: list[sympy.Rational | None] = [None] * last
    for row, column in enumerate(pivots):
        coefficients[column] = solved[row, last]
    return coefficients
