"""Whether what comes on a node's wires fits its ports, and what then goes out: names are unified per node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from atinuke.core import dims
from atinuke.core.dims import Size, UnknownName
from atinuke.core.signature import Port, Shape, describe


@dataclass(frozen=True)
class Type:
    """What a wire carries: a dtype of the graph language (`float` is the model's own) and a size for each axis."""

    dtype: str
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(dims.show, self.shape))}]"


class MisfitError(Exception):
    """A wire does not fit a port; the arguments are the lines that say how."""


@dataclass
class Fit:
    """Binds the names in one node's contract while its ports are fed, one after another.

    `settings` are the node's settings; `names` and `leads` fill up: a name stands for one size, a `*lead` for several.
    """

    settings: Mapping[str, Any]
    names: dict[str, Size] = field(default_factory=dict)
    leads: dict[str, tuple[Size, ...]] = field(default_factory=dict)

    def feed(self, port: Port, given: Type) -> None:
        """Unifies a port with what a wire carries.

        Raises:
            MisfitError: dtype, number of axes or a size do not fit.
        """
        if given.dtype not in port.kinds:
            raise MisfitError(f"must be {describe(port.kinds)}, but is {given.dtype}")
        try:
            self._shape(port.shape, given.shape)
        except ValueError as error:
            raise MisfitError(f"[{port.shape}] cannot be worked out: {error}") from None

    def _shape(self, shape: Shape, given: Sequence[Size]) -> None:
        extra = len(given) - len(shape.dims)
        if extra < 0 or (extra and shape.lead is None):
            axes = f"{len(shape.dims)} axes" + (" or more" if shape.lead else "")
            came = f"[{', '.join(map(dims.show, given))}]"
            raise MisfitError(f"must have {axes} [{', '.join(str(shape).split())}], but is {came}")
        if shape.lead is not None:
            lead = tuple(given[shape.at : shape.at + extra])
            known = self.leads.setdefault(shape.lead, lead)
            if len(known) != len(lead) or not all(map(dims.equal, known, lead)):
                raise MisfitError(
                    f"axes `*{shape.lead}` must be [{', '.join(map(dims.show, known))}],"
                    f" but are [{', '.join(map(dims.show, lead))}]"
                )
        for index, dim in enumerate(shape.dims):
            axis = index if shape.lead is None or index < shape.at else index + extra
            size = given[axis]
            if dim.name is not None and dim.name not in self.names:
                self.names[dim.name] = size
                continue
            try:
                expected = self.size(dim.tree)
            except UnknownName:
                solution = dims.solve(dim.tree, self.values(), size) or self._axis(dim.tree, size)
                if solution is None:
                    raise MisfitError(f"axis {axis} cannot be read as {dim.text} from {dims.show(size)}") from None
                self.names[solution[0]] = solution[1]
                continue
            if not dims.equal(expected, size):
                what = dims.show(expected) if dim.text == dims.show(expected) else f"{dim.text} = {dims.show(expected)}"
                raise MisfitError(f"axis {axis} must be {what}, but is {dims.show(size)}")

    def _axis(self, tree: Any, size: Size) -> tuple[str, Size] | None:
        """The only unknown name, where taking it for the graph's axis of that name gives the size: `sequence//2`."""
        unknown = dims.names(tree) - self.values().keys()
        if len(unknown) != 1:
            return None
        name = unknown.pop()
        taken = dims.evaluate(tree, {**self.values(), name: dims.axis(name)})
        return (name, dims.axis(name)) if dims.equal(sympy.sympify(taken), size) else None

    def values(self) -> dict[str, Any]:
        """Everything that a size may refer to: names, and settings as `self_name`."""
        return {**self.names, **{f"self_{name}": value for name, value in self.settings.items()}}

    def size(self, tree: Any) -> Size:
        """The value of a size.

        Raises:
            UnknownName: it depends on a name that nothing has bound.
            ValueError: it is not a number.
        """
        value = dims.evaluate(tree, self.values())
        if isinstance(value, float):
            raise ValueError(f"{value} is not a whole number")
        return sympy.sympify(value)

    def give(self, port: Port) -> Type:
        """The type of an output.

        Raises:
            MisfitError: its size cannot be told from the inputs and settings.
        """
        try:
            sizes = [self.size(dim.tree) for dim in port.shape.dims]
            if port.shape.lead is not None:
                if port.shape.lead not in self.leads:
                    raise UnknownName(f"*{port.shape.lead}")
                sizes[port.shape.at : port.shape.at] = self.leads[port.shape.lead]
        except (UnknownName, ValueError) as error:
            raise MisfitError(f"output `{port.name}` [{port.shape}] cannot be told: {error}") from None
        return Type(dtype_of(port.kinds), tuple(sizes))


def dtype_of(kinds: frozenset[str]) -> str:
    """The dtype of an output port: exact where it names one, else the graph's float, int64 or bool."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if "float" in kinds else "int64" if "int64" in kinds else min(kinds)
