"""Formulas found from measurements: exact where there is one, none where there is not."""

import itertools

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.compile.formula import find_formula
from atinuke.core.graph import Range

b, s, h = sympy.symbols("b s h", integer=True, positive=True)
ATOMS = [b, s, h, sympy.floor(h / 16), sympy.floor(s / 3)]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_polynomial_is_found_and_holds_everywhere(data: st.DataObject) -> None:
    chosen = data.draw(
        st.lists(st.sampled_from(ATOMS), max_size=3).filter(lambda parts: all(parts.count(p) < 3 for p in parts))
    )
    parts = [sympy.Mul(*chosen[:i]) for i in range(len(chosen) + 1)]
    coefficients = [data.draw(st.integers(0, 10**12)) for _ in parts]
    truth = sympy.Add(*map(sympy.Mul, coefficients, parts))
    symbols = [symbol for symbol in (b, s, h) if symbol in truth.free_symbols]
    lows = {symbol: data.draw(st.integers(1, 40)) for symbol in symbols}
    axes = {symbol: Range(low, low + data.draw(st.integers(0, 5000))) for symbol, low in lows.items()}
    count = sympy.lambdify(symbols, truth, "sympy")
    found = find_formula(
        lambda sizes: int(count(*map(sympy.Integer, sizes.values()))),
        axes,
        [*symbols, *sorted(truth.atoms(sympy.floor), key=str)],
    )
    assert found is not None
    for _ in range(5):
        sizes = {symbol: data.draw(st.integers(axis.low, axis.high)) for symbol, axis in axes.items()}
        assert found.subs(sizes) == truth.subs(sizes)


def test_a_formula_is_in_its_plain_form() -> None:
    axes = {b: Range(1, 64), s: Range(1, 4096)}
    found = find_formula(lambda z: 1536 * z[b] * z[s] ** 2 + 7 * z[b] * z[s] + 5, axes, [b, s])
    assert found == 1536 * b * s**2 + 7 * b * s + 5


@pytest.mark.parametrize(
    ("axes", "truth"),
    [
        ({h: Range(1, 17)}, h**2 * sympy.floor(h / 16)),
        ({b: Range(1, 8), h: Range(1, 17)}, b * h * sympy.floor(h / 16)),
        ({b: Range(1, 8), h: Range(1, 20)}, b * h**2 * sympy.floor(h / 16)),
        ({b: Range(1, 64), h: Range(1, 33)}, b * sympy.floor(h / 32)),
    ],
)
def test_what_happens_at_the_very_end_of_a_range_counts(axes: dict[sympy.Symbol, Range], truth: sympy.Expr) -> None:
    count = sympy.lambdify(list(axes), truth, "sympy")
    atoms = [*axes, *truth.atoms(sympy.floor)]
    found = find_formula(lambda sizes: int(count(*map(sympy.Integer, sizes.values()))), axes, atoms)
    again = sympy.lambdify(list(axes), found, "sympy")
    for point in itertools.product(*(range(axis.low, axis.high + 1) for axis in axes.values())):
        sizes = list(map(sympy.Integer, point))
        assert again(*sizes) == count(*sizes)


def test_axes_that_start_high_are_told_apart_from_others() -> None:
    samples = sympy.Symbol("samples", integer=True, positive=True)
    frames = sympy.floor(samples / 160)
    axes = {b: Range(1, 8), samples: Range(16_000, 480_000)}
    found = find_formula(lambda sizes: 3 * sizes[b] * (sizes[samples] // 160), axes, [*axes, frames])
    assert found == 3 * b * frames


def test_an_axis_of_one_size_costs_no_measurements() -> None:
    seen = []
    axes = {b: Range(1, 1), s: Range(1, 4096)}
    assert find_formula(lambda z: seen.append(1) or z[b] * z[s] ** 2, axes, [b, s]) == s**2
    assert len(seen) < 16


@pytest.mark.parametrize("low", [1, 100])
def test_an_axis_of_one_size_is_a_number(low: int) -> None:
    assert find_formula(lambda z: 3 * z[b] * z[s], {b: Range(low, low), s: Range(1, 99)}, [b, s]) == 3 * low * s


@pytest.mark.parametrize(
    "measure",
    [
        lambda z: z[s] ** 3,
        lambda z: z[s] * min(z[s], 300),  # the bend lies beyond what is tried typically
        lambda z: -(-z[s] // 8),
        lambda z: 2 ** min(z[s], 64),
        lambda z: z[s] + (z[s] == 4096),  # at the upper end alone
        lambda z: z[s] + (z[s] == 1),  # at the lower end alone
    ],
)
def test_what_is_no_polynomial_has_no_formula(measure) -> None:
    assert find_formula(measure, {s: Range(1, 4096)}, [s]) is None


def test_chunks_have_a_formula_at_their_multiples() -> None:
    axes = {b: Range(1, 64), s: Range(5, 4096)}
    seen = []

    def measure(sizes) -> int:
        seen.append((sizes[b], sizes[s]))
        return 8 * -(-sizes[b] * sizes[s] // 8)

    assert find_formula(measure, axes, [b, s], multiple=1) is None
    seen.clear()
    assert find_formula(measure, axes, [b, s], multiple=16) == b * s
    assert all(size % 16 == 0 for point in seen for size in point)


def test_an_axis_without_multiples_is_tried_as_it_is() -> None:
    assert find_formula(lambda z: 2 * z[s], {s: Range(3, 9)}, [s], multiple=16) == 2 * s
