"""Sizes: parsed without eval, evaluated exactly, compared by sympy."""

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core import dims

NUMBERS = st.integers(1, 50)
EXPRESSIONS = st.recursive(
    st.one_of(NUMBERS.map(str), st.sampled_from(["a", "b", "self_c"])),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
        lambda t: f"({t[0]}{t[1]}{t[2]})"
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, NUMBERS, NUMBERS, NUMBERS)
def test_a_number_agrees_with_python_and_with_sympy(text: str, a: int, b: int, c: int) -> None:
    tree = dims.parse(text)
    values = {"a": a, "b": b, "self_c": c}
    try:
        expected = eval(text, {}, values)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="division by zero"):
            dims.evaluate(tree, values)
        return
    assert dims.evaluate(tree, values) == expected
    symbols = {name: dims.axis(name) for name in values}
    try:
        symbolic = sympy.sympify(dims.evaluate(tree, symbols))
    except ValueError:
        return  # a division by an expression that is zero for every value
    result = symbolic.subs({symbols[name]: value for name, value in values.items()})
    if result.is_finite:
        assert result == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "a.b",
        "a[0]",
        "f(a)",
        "lambda: 1",
        "'x'",
        "a if b else 1",
        "[1]",
        "a < b",
        "True",
        "1 +",
        "a" * 300,
        "(" * 90 + ")" * 90,
        "a and b",
        "min(*a)",
        "max(a=1)",
        "1j",
    ],
)
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|may hold only"):
        dims.parse(text)


@pytest.mark.parametrize("text", ["10**64", "(10**60)*(10**60)", "2**65", "9**a"])
def test_absurd_powers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"power|beyond"):
        dims.evaluate(dims.parse(text), {"a": 1000})


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(dims.UnknownName, match="`heads` is not known"):
        dims.evaluate(dims.parse("4*heads"), {"d_model": 8})


def test_equality_is_decided_for_every_value_of_the_axes() -> None:
    a, b = dims.axis("a"), dims.axis("b")
    assert dims.equal(2 * (a + b), 2 * a + 2 * b)
    assert not dims.equal(a, b)
    assert not dims.equal(a + 1, a)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_solve_finds_the_only_unknown(slope: int, offset: int, value: int) -> None:
    tree = dims.parse(f"{slope}*n+{offset}")
    assert dims.solve(tree, {}, sympy.Integer(slope * value + offset)) == ("n", value)


def test_solve_refuses_what_has_no_whole_solution() -> None:
    assert dims.solve(dims.parse("2*n"), {}, sympy.Integer(7)) is None
    assert dims.solve(dims.parse("n*m"), {}, sympy.Integer(6)) is None
    assert dims.solve(dims.parse("n//2"), {}, sympy.Integer(3)) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("h//16", "h//16"),
        ("4*d", "4*d"),
        ("(h//16)*(w//16)", "(h//16)*(w//16)"),
        ("2*a+1", "2*a + 1"),
        ("(a-400)//160", "(a - 400)//160"),
        ("(a//160-1)//2+1", "(a//160 - 1)//2 + 1"),
        ("(a//(h*w))**2", "(a//(h*w))**2"),
        ("a%4-3*(h//2)", "Mod(a, 4) - 3*(h//2)"),
    ],
)
def test_sizes_are_shown_as_people_write_them(text: str, shown: str) -> None:
    values = {name: dims.axis(name) for name in "hwda"}
    assert dims.show(dims.evaluate(dims.parse(text), values)) == shown
