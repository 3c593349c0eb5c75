"""What a compiled program takes and gives: named tensors with sizes in named axes, checked before every call."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.core.names import close

BATCH, CAPACITY = "batch", "capacity"
"""The axis of independent rows, and that of the positions in a cache."""

Array = NDArray[Any]
Axes = Mapping[str, tuple[int, int]]
"""The sizes that each axis may have, both ends included."""

_ARITHMETIC: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


_WRITTEN = re.compile(r"(?!.*\b[0-9]+[A-Za-z_])[A-Za-z0-9_ +*/()-]{1,200}")


@dataclass(frozen=True)
class Port:
    """A tensor by name. Each size is a number, the name of an axis, or arithmetic of axes (`samples//160 + 1`)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a program, in order. `memory` says of an input which output takes its place in the next
    call: the caches of a decoder."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    memory: Mapping[str, str]

    @property
    def given(self) -> tuple[Port, ...]:
        """The inputs that come from outside."""
        return tuple(port for port in self.inputs if port.name not in self.memory)

    def check(self, feeds: Mapping[str, Array], axes: Axes) -> dict[str, int]:
        """The size of every axis that the feeds have.

        Raises:
            AtinukeError: an input is missing, unknown or of another dtype or rank, an axis has two sizes, or a size is
                outside what the program was compiled for; the message names the axis.
        """
        known = {port.name: port for port in self.inputs}
        for name in feeds:
            if name not in known:
                raise fail(f"the model has no input `{name}`", f"it takes {', '.join(known)}", fix=close(name, known))
        sizes: dict[str, int] = {}
        for port in self.inputs:
            if port.name not in feeds:
                raise fail(f"input `{port.name}` is missing", f"it is {port}", fix=f"give `{port.name}`")
            _bind(port, feeds[port.name], axes, sizes)
        for port in self.inputs:
            for at, (size, got) in enumerate(zip(port.shape, feeds[port.name].shape, strict=True)):
                expected = size if isinstance(size, int) else work_out(size, sizes)
                if got != expected:
                    raise fail(f"axis {at} of `{port.name}` must be {size} = {expected}", f"got {got}")
        return sizes


def _bind(port: Port, array: Array, axes: Axes, sizes: dict[str, int]) -> None:
    """Notes the sizes of the axes that a port names."""
    if array.dtype != np.dtype(port.dtype):
        raise fail(f"input `{port.name}` must be {port.dtype}", f"got {array.dtype}")
    if len(array.shape) != len(port.shape):
        raise fail(f"input `{port.name}` must have {len(port.shape)} axes", f"it is {port}", f"got {array.shape}")
    for size, got in zip(port.shape, array.shape, strict=True):
        if not isinstance(size, str) or size not in axes:
            continue
        low, high = axes[size]
        if not low <= got <= high:
            raise fail(
                f"axis `{size}` must be {low}..{high}",
                f"`{port.name}` has {got}",
                fix="cut or pad the input, or compile with other axes",
            )
        if sizes.setdefault(size, got) != got:
            raise fail(f"axis `{size}` has two sizes", f"{sizes[size]}, and {got} in `{port.name}`")


def work_out(size: str, sizes: Mapping[str, int]) -> int:
    """The value of a size such as `samples//160 + 1`; raises ValueError for anything but arithmetic of known axes."""
    return sizes[size] if size in sizes else _value(_parse(size), sizes)


def axes_of(size: int | str) -> frozenset[str]:
    """The axes that a size depends on; raises ValueError for anything but arithmetic of names, where only what is above
    0 divides."""
    tree = _parse(str(size))
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    _value(tree, dict.fromkeys(names, 1))
    return names


@lru_cache(maxsize=1024)
def _parse(size: str) -> ast.expr:
    if not _WRITTEN.fullmatch(size):
        raise ValueError(f"`{size[:80]}` is not arithmetic of axes")
    try:
        return ast.parse(size, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"`{size}` is not arithmetic of axes") from None


def settled(size: int | str, axes: Axes) -> int | None:
    """The one value that a size can have; None where an axis in it is free."""
    single = {name: low for name, (low, high) in axes.items() if low == high}
    return work_out(str(size), single) if axes_of(size) <= single.keys() else None


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    match tree:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            if not isinstance(op, ast.FloorDiv) or _is_positive(right):
                return _ARITHMETIC[type(op)](_value(left, sizes), _value(right, sizes))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
    raise ValueError(f"`{ast.unparse(tree)}` is not arithmetic of axes")


def _is_positive(tree: ast.expr) -> bool:
    """Whether a size is above 0, whatever the axes are."""
    match tree:
        case ast.Constant(value=int(value)):
            return value > 0
        case ast.BinOp(left=left, op=ast.Mult() | ast.Add(), right=right):
            return _is_positive(left) and _is_positive(right)
    return isinstance(tree, ast.Name)
