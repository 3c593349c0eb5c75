"""The exact formula of a whole number that can only be measured, one set of sizes at a time."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sympy
from sympy.polys.matrices import DomainMatrix

from atinuke.core.dims import Size
from atinuke.core.graph import Range

Axes = Mapping[sympy.Symbol, Range]
Sizes = dict[sympy.Symbol, int]

MAX_DEGREE = 2  # of one atom: attention is quadratic in the sequence
MAX_TOTAL = 4  # of all atoms in one term: batch * frames * patches**2
SPARE = 3  # measurements beyond those that a formula needs, which must agree with it
TYPICAL, FAR = 1024, 65_536  # sizes tried: all axes up to the first, one axis at a time up to the second


def find_formula(measure: Callable[[Sizes], int], axes: Axes, atoms: Sequence[Size], multiple: int = 1) -> Size | None:
    """The polynomial in `atoms` that equals `measure` on every set of sizes tried; None where there is none.

    `atoms` are the free axes and what is made of them, such as `floor(height/16)`. Sizes are taken within the ranges of
    the axes, their upper ends included up to 65,536, and only multiples of `multiple` where a range has some.
    """
    known: dict[tuple[int, ...], int] = {}
    for degree in range(1, MAX_DEGREE + 1):
        powers = [power for power in itertools.product(range(degree + 1), repeat=len(atoms)) if sum(power) <= MAX_TOTAL]
        powers.sort(key=sum)
        terms = [sympy.Mul(*map(sympy.Pow, atoms, power)) for power in powers]
        points = _points(axes, len(terms) + SPARE, multiple)
        for point in points:
            if point not in known:
                known[point] = measure(dict(zip(axes, point, strict=True)))
        coefficients = _solve(sympy.lambdify(list(axes), terms, "sympy"), points, known)
        if coefficients is not None:
            return sympy.Add(*map(sympy.Mul, coefficients, terms))
    return None


def _points(axes: Axes, count: int, multiple: int) -> list[tuple[int, ...]]:
    """Sets of sizes: the lowest, each axis alone at its upper end, and a spread of others over all magnitudes."""
    rounded = [_multiples(axis, multiple) for axis in axes.values()]
    lowest = tuple(low * step for low, _, step in rounded)
    points = [lowest]
    for i, (low, high, step) in enumerate(rounded):
        points.append((*lowest[:i], max(low, min(high, FAR // step)) * step, *lowest[i + 1 :]))
    generator = np.random.default_rng(0)
    for _ in range(count):
        point = []
        for low, high, step in rounded:
            top = max(low, min(high, TYPICAL // step))
            point.append(int(low * (top / low) ** generator.random() + 0.5) * step)
        points.append(tuple(point))
    return list(dict.fromkeys(points))


def _multiples(axis: Range, multiple: int) -> tuple[int, int, int]:
    """`low, high, step`, where the multiples in the range are `low * step` to `high * step`."""
    low, high = -(-axis.low // multiple), axis.high // multiple
    return (low, high, multiple) if 1 <= low <= high else (axis.low, axis.high, 1)


def _solve(
    evaluate: Callable[..., Sequence[sympy.Expr]],
    points: Sequence[tuple[int, ...]],
    known: Mapping[tuple[int, ...], int],
) -> list[sympy.Rational] | None:
    """The coefficients of the terms, exactly; of terms that the points cannot tell apart, the last get none."""
    rows = [
        [*map(sympy.Integer, evaluate(*map(sympy.Integer, point))), sympy.Integer(known[point])] for point in points
    ]
    reduced, pivots = DomainMatrix.from_list_sympy(len(rows), len(rows[0]), rows).to_field().rref()
    last = len(rows[0]) - 1
    if last in pivots:
        return None
    solved = reduced.to_Matrix()
    coefficients = [sympy.Integer(0)] * last
    for row, column in enumerate(pivots):
        coefficients[column] = solved[row, last]
    return coefficients
