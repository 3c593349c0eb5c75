"""Symbolic sizes: how they are written, evaluated and unified. Nothing is ever passed to `eval`.

A size is an integer, a name, `{self.setting}`, or arithmetic of these. Names stand for positive integers; sympy decides
whether two sizes are equal.
"""

import ast
import itertools
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

MAX_LENGTH = 200
MAX_EXPONENT = 64
MAX_TERMS = 2_000  # of a size once its brackets are multiplied out
MAX_AXES = 8  # of one size

Size: TypeAlias = sympy.Expr

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_CALLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {"min": (min, sympy.Min), "max": (max, sympy.Max)}


@dataclass(frozen=True)
class UnknownName(Exception):  # noqa: N818 - caught by us, never shown as an error
    """A size names something that has no value (yet)."""

    name: str

    def __str__(self) -> str:
        return f"`{self.name}` is not known"


@lru_cache(maxsize=4096)
def axis(name: str) -> sympy.Symbol:
    """The symbol of a free axis: a positive integer."""
    return sympy.Symbol(name, integer=True, positive=True)


@lru_cache(maxsize=4096)
def parse(text: str) -> ast.expr:
    """The syntax tree of a size or of a `${...}` expression, restricted to arithmetic.

    Raises:
        ValueError: it is too long, or anything but arithmetic of numbers and names.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expression is longer than {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "4if" is a warning to Python
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, Warning, ValueError, RecursionError, MemoryError):
        raise ValueError(f"`{text}` is not an expression") from None
    for node in ast.walk(tree):
        allowed = (
            isinstance(node, ast.Name | ast.operator | ast.unaryop | ast.expr_context)
            or (isinstance(node, ast.Constant) and type(node.value) in (int, float))
            or (isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC)
            or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub))
            or (isinstance(node, ast.Call) and _call(node) is not None)
        )
        if not allowed:
            raise ValueError(f"`{text}` may hold only numbers, names and + - * / // % ** min() max()")
    return tree


def _call(node: ast.Call) -> str | None:
    if isinstance(node.func, ast.Name) and node.func.id in _CALLS and node.args and not node.keywords:
        return node.func.id
    return None


def names(tree: ast.expr) -> set[str]:
    """The names that an expression depends on."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_CALLS)


def evaluate(tree: ast.expr, values: Mapping[str, Any]) -> Any:
    """The value of an expression; numbers stay Python numbers, sympy sizes stay symbolic.

    Raises:
        UnknownName: it depends on a name without a value.
        ValueError: division by zero, an absurd power, or a value that is not a number.
    """
    match tree:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            if name not in values:
                raise UnknownName(name)
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, int | float | sympy.Expr):
                raise ValueError(f"`{name}` is {value!r}, not a number")
            return value
        case ast.UnaryOp(operand=operand):
            return -evaluate(operand, values)
        case ast.Call():
            numeric, symbolic = _CALLS[_call(tree) or ""]
            arguments = [evaluate(argument, values) for argument in tree.args]
            return (symbolic if any(isinstance(a, sympy.Expr) for a in arguments) else numeric)(*arguments)
        case ast.BinOp(left=left, op=op, right=right):
            return _apply(op, evaluate(left, values), evaluate(right, values))
    raise AssertionError(f"parse() let {ast.dump(tree)} through")


def _apply(op: ast.operator, a: Any, b: Any) -> Any:
    if isinstance(op, ast.Div | ast.FloorDiv | ast.Mod) and b == 0:
        raise ValueError("division by zero")
    if isinstance(op, ast.Pow) and (not isinstance(b, int | float) or abs(b) > MAX_EXPONENT):
        raise ValueError(f"a power above {MAX_EXPONENT} is not allowed")
    if isinstance(op, ast.FloorDiv) and (isinstance(a, sympy.Expr) or isinstance(b, sympy.Expr)):
        return sympy.floor(sympy.Rational(1) * a / b) if isinstance(b, int) else sympy.floor(a / b)
    try:
        result = _ARITHMETIC[type(op)](a, b)
    except (OverflowError, ZeroDivisionError) as error:
        raise ValueError(str(error)) from None
    if isinstance(result, sympy.Expr) and _terms(result) > MAX_TERMS:
        raise ValueError("the size is too complex")
    if isinstance(result, complex):
        raise ValueError("the result is not a real number")
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError("the result is not a finite number")
    if isinstance(result, int) and abs(result) > 10**40:
        raise ValueError("the result is beyond 10^40")
    return result


def _terms(size: Size) -> int:
    """How many terms come out, at most, when brackets are multiplied out; too many for too high a power."""
    if isinstance(size, sympy.Pow) and size.exp.is_Integer:
        times = abs(int(size.exp))
        return MAX_TERMS + 1 if times > MAX_EXPONENT else _terms(size.base) ** times
    parts = [_terms(part) for part in size.args]
    return sum(parts) if isinstance(size, sympy.Add) else math.prod(parts)


def equal(a: Size, b: Size) -> bool:
    """Whether two sizes are the same for every value of their axes."""
    return bool(a == b) or sympy.expand(a - b) == 0


def least(size: Size, ranges: Mapping[Size, tuple[int, int]]) -> tuple[Size, str]:
    """The smallest value of a size at the ends of the ranges of its axes, and these ends as `height = 2`.

    Raises:
        ValueError: it is not a number at some end, or depends on too many axes.
    """
    axes = sorted(size.free_symbols, key=str)
    if len(axes) > MAX_AXES:
        raise ValueError(f"a size that depends on more than {MAX_AXES} axes is not allowed")
    found: list[tuple[Size, str]] = []
    for numbers in itertools.product(*(ranges[axis] for axis in axes)):
        at = ", ".join(f"{axis} = {number}" for axis, number in zip(axes, numbers, strict=True))
        try:
            value = size.subs(dict(zip(axes, numbers, strict=True)))
        except ZeroDivisionError:
            value = sympy.zoo
        if not value.is_real:
            raise ValueError(f"it divides by zero at {at}")
        found.append((value, at))
    return min(found, key=operator.itemgetter(0))


def solve(tree: ast.expr, values: Mapping[str, Any], size: Size) -> tuple[str, Size] | None:
    """The value that the single unknown name of an expression must have for the expression to equal `size`.

    None where the expression has no unknown, several, or no unique whole positive solution.
    """
    unknown = names(tree) - values.keys()
    if len(unknown) != 1:
        return None
    name = unknown.pop()
    symbol = sympy.Symbol(f"_{name}", integer=True, positive=True)
    try:
        formula = sympy.sympify(evaluate(tree, {**values, name: symbol}))
        polynomial = sympy.Poly(formula - size, symbol)
    except (sympy.PolynomialError, ValueError):
        return None
    if polynomial.degree() != 1:
        return None
    slope, offset = polynomial.all_coeffs()
    solution = sympy.cancel(-offset / slope)
    return (name, solution) if solution.is_integer is not False else None


class _Printer(StrPrinter):  # type: ignore[misc]  # sympy has no types
    """Writes floor(a/b) as a//b, in parentheses within a product."""

    def _print_floor(self, expr: sympy.floor) -> str:
        above, below = sympy.fraction(sympy.together(expr.args[0]))
        return f"{self.parenthesize(above, PRECEDENCE['Mul'])}//{self.parenthesize(below, PRECEDENCE['Pow'])}"

    def parenthesize(self, item: sympy.Basic, level: int, strict: bool = False) -> str:
        if isinstance(item, sympy.floor) and level >= PRECEDENCE["Add"]:
            return f"({self._print(item)})"
        return str(super().parenthesize(item, level, strict))


def show(size: Size | int) -> str:
    """A size as a reader writes it: `4*d_model`, `(height//16)*(width//16)`."""
    return str(_Printer().doprint(sympy.sympify(size)))
