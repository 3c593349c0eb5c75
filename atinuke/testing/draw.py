"""What a law is tried on: Hypothesis draws settings, sizes for every free name, and which ports are fed."""

import ast
import contextlib
import itertools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import hypothesis
import sympy
from hypothesis import strategies as st

from atinuke.core import dims
from atinuke.core.component import Component, import_target
from atinuke.core.dims import UnknownName
from atinuke.core.errors import fail
from atinuke.core.fit import Fit, MisfitError
from atinuke.core.signature import Dim, Port, Setting, Signature, read_signature

LARGEST = 7
MOST_AXES = 3
MOST_WIRES = 3
# Small numbers with small divisors; what Hypothesis tries first and shrinks towards comes first.
WHOLE_NUMBERS = (4, 2, 3, 1, 6, 8)
REAL_NUMBERS = (0.5, 0.1, 1.0, 2.0)


@dataclass(frozen=True)
class Sizes:
    """The size of every free name, and of the axes of every `*lead`."""

    names: Mapping[str, int]
    leads: Mapping[str, tuple[int, ...]]

    def __str__(self) -> str:
        leads = (f"*{name}={list(sizes)}" for name, sizes in self.leads.items())
        return ", ".join([*(f"{name}={size}" for name, size in self.names.items()), *leads]) or "none"

    def but(self, **names: int) -> "Sizes":
        """The same with other sizes for some names."""
        return replace(self, names={**self.names, **names})

    def fit(self, settings: Mapping[str, Any]) -> Fit:
        """What works out the contract's sizes."""
        names = {name: sympy.Integer(size) for name, size in self.names.items()}
        leads = {name: tuple(map(sympy.Integer, sizes)) for name, sizes in self.leads.items()}
        return Fit(settings, names, leads)

    def shape(self, port: Port, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape that a port promises.

        Raises:
            MisfitError: a size of the port cannot be told.
        """
        sizes = self.fit(settings).give(port).shape
        if not all(size.is_Integer for size in sizes):
            raise MisfitError(f"[{port.shape}] is not a row of whole numbers")
        return tuple(map(int, sizes))


@dataclass(frozen=True)
class Case:
    """One thing to try: `ports` are those that are fed, with the number of wires; `seed` decides weights and inputs."""

    settings: Mapping[str, Any]
    sizes: Sizes
    others: tuple[Sizes, ...]
    ports: Mapping[str, int]
    seed: int

    def lines(self) -> Iterable[str]:
        """The case as people read it."""
        yield "with settings " + (", ".join(f"{name}={value!r}" for name, value in self.settings.items()) or "none")
        yield f"with sizes {self.sizes}" + "".join(f"; then {sizes}" for sizes in self.others)
        ports = (name if count == 1 else f"{count} of {name}" for name, count in self.ports.items())
        yield f"with ports {', '.join(ports) or 'none'}; seed {self.seed}"

    def with_ports(self, signature: Signature, every: bool) -> "Case":
        """The same with every optional port fed, or with none."""
        given = {name for name, port in signature.inputs.items() if every or not port.optional}
        return replace(self, ports={name: self.ports.get(name, 1) for name in signature.inputs if name in given})

    def with_and_without(self, signature: Signature) -> list["Case"]:
        """With every optional port fed and, where there are any, with none."""
        optional = any(port.optional for port in signature.inputs.values())
        return [self.with_ports(signature, every) for every in ((True, False) if optional else (True,))]


@dataclass(frozen=True)
class Contract:
    """A component together with what its annotations promise."""

    component: Component
    cls: type
    signature: Signature

    @staticmethod
    def of(component: Component) -> "Contract":
        """Loads a component; AtinukeError where it cannot be imported or its annotations cannot be read."""
        cls = component.load()
        return Contract(component, cls, read_signature(cls))


@st.composite
def cases(draw: st.DrawFn, contract: Contract, low: int, others: int, other_low: int) -> Case:
    """Cases whose sizes are distinct and start at `low`; of `others` more sizes the first are all `other_low`."""
    signature = contract.signature
    settings = draw(settings_of(contract))
    leads = sorted({port.shape.lead for port in signature.inputs.values() if port.shape.lead})
    ranks = {lead: draw(st.integers(low - 1, MOST_AXES)) for lead in leads}
    # Compilers treat 1 apart: an axis of an input may be 1 by itself, but they cannot be asked that an image may have a
    # single row of patches.
    least = 2 if others else 1
    sizes = [_sizes(draw, signature, settings, ranks, low, least)]
    for place in range(others):
        sizes.append(_sizes(draw, signature, settings, ranks, other_low, least, smallest=place == 0))
    ports = {
        name: draw(st.integers(1, MOST_WIRES)) if port.many else 1
        for name, port in signature.inputs.items()
        if not port.optional or draw(st.booleans())
    }
    return Case(settings, sizes[0], tuple(sizes[1:]), ports, draw(st.integers(0, 2**16)))


def settings_of(contract: Contract) -> st.SearchStrategy[dict[str, Any]]:
    """Complete settings that the constructor accepts.

    Raises:
        AtinukeError: the record has no strategy and an annotation does not say what to draw.
    """
    component, signature = contract.component, contract.signature
    if component.strategy is not None:
        drawn: st.SearchStrategy[dict[str, Any]] = import_target(component.strategy)()
    else:
        drawn = st.fixed_dictionaries({name: _setting(component.name, s) for name, s in signature.settings.items()})

    def complete(given: dict[str, Any]) -> dict[str, Any] | None:
        unknown = [f"there is no setting `{name}`" for name in given.keys() - signature.settings.keys()]
        values, wrong = signature.validate(given)
        if component.strategy is not None and (wrong or unknown):
            raise fail(f"strategy `{component.strategy}` draws settings that do not fit", *wrong, *unknown)
        return None if wrong or not _accepted(contract.cls, values) else values

    return drawn.map(complete).filter(lambda values: values is not None)  # type: ignore[return-value]


def _accepted(cls: type, settings: Mapping[str, Any]) -> bool:
    """Whether the constructor takes the settings; what else goes wrong in it is for the laws to report."""
    try:
        cls(**settings)
    except ValueError:
        return False
    except Exception:
        return True
    return True


def _setting(component: str, setting: Setting) -> st.SearchStrategy[Any]:
    values = _values(setting.annotation)
    if values is None and setting.required:
        raise fail(
            f"`{component}`: setting `{setting.name}` cannot be drawn",
            f"its annotation is {setting.annotation!r}",
            fix="give the component a strategy",
        )
    if setting.required:
        assert values is not None
        return values
    return st.just(setting.default) if values is None else st.just(setting.default) | values


def _values(annotation: Any) -> st.SearchStrategy[Any] | None:
    """Values of an annotation; None where it does not say what to draw."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.sampled_from(WHOLE_NUMBERS),
        float: st.sampled_from(REAL_NUMBERS),
        None: st.none(),
        types.NoneType: st.none(),
    }
    if annotation in plain:
        return plain[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is typing.Annotated:
        return _values(arguments[0])
    if origin in (typing.Union, types.UnionType):
        choices = [choice for choice in map(_values, arguments) if choice is not None]
        return st.one_of(choices) if choices else None
    if origin is list:
        items = _values(arguments[0])
        return None if items is None else st.lists(items, min_size=1, max_size=MOST_WIRES)
    return None


def open_names(dim: Dim) -> list[str]:
    """The names in a size that are not settings."""
    return sorted(dims.names(dim.tree) - {f"self_{setting}" for setting in dim.settings})


def free_names(signature: Signature) -> dict[str, list[Dim]]:
    """The names that the inputs leave open, with every size of the contract that depends on them."""

    def names(ports: Iterable[Port]) -> Iterable[tuple[str, Dim]]:
        for dim in itertools.chain.from_iterable(port.shape.dims for port in ports):
            for name in open_names(dim):
                yield name, dim

    found: dict[str, list[Dim]] = {name: [] for name, _ in names(signature.inputs.values())}
    for name, dim in names([*signature.inputs.values(), *signature.outputs.values()]):
        if name in found:
            found[name].append(dim)
    return found


def _sizes(
    draw: st.DrawFn,
    signature: Signature,
    settings: Mapping[str, Any],
    ranks: Mapping[str, int],
    low: int,
    least: int,
    smallest: bool = False,
) -> Sizes:
    """Sizes that are all distinct, so that no axis passes for another; or all `low`, but for those in arithmetic."""
    used: set[int] = set()

    def size(highest: int, of: Iterable[Dim] = ()) -> int:
        if smallest and all(dim.name for dim in of):
            return low
        choices = [number for number in range(low, highest + 1) if number not in used]
        if not choices:
            hypothesis.reject()
        number: int = draw(st.sampled_from(choices))
        used.add(number)
        return number

    free = free_names(signature)
    highest = {name: _highest(name, of, signature, settings) for name, of in free.items()}
    names = {name: size(highest[name], free[name]) for name in sorted(highest, key=lambda name: highest[name])}
    leads = {lead: tuple(size(LARGEST) for _ in range(rank)) for lead, rank in ranks.items()}
    sizes = Sizes({name: names[name] for name in free}, leads)
    if not possible(sizes, signature, settings, least):
        hypothesis.reject()
    return sizes


def _highest(name: str, of: list[Dim], signature: Signature, settings: Mapping[str, Any]) -> int:
    """The largest size to draw: well beyond what a name is divided by or lessened by, and within its limit."""
    numbers = [0]
    for dim in of:
        if dim.name is None:
            found = [node.value for node in ast.walk(dim.tree) if isinstance(node, ast.Constant)]
            found += [settings[setting] for setting in dim.settings]
            numbers += [number for number in found if isinstance(number, int)]
    highest = LARGEST + 4 * max(numbers)
    return min(highest, settings[signature.limits[name]]) if name in signature.limits else highest


def possible(sizes: Sizes, signature: Signature, settings: Mapping[str, Any], least: int = 1) -> bool:
    """Whether no port is empty, and nothing that is worked out from free names is below `least`.

    What an output cannot tell is for the laws to report.
    """
    fit = sizes.fit(settings)

    def fits(dim: Dim) -> bool:
        parts = (
            node for node in ast.walk(dim.tree) if isinstance(node, ast.BinOp) and dims.names(node) & sizes.names.keys()
        )
        derived = [fit.size(part) for part in parts if not isinstance(part.op, ast.Mod)] if least > 1 else []
        return fit.size(dim.tree) >= 1 and all(size >= least for size in derived)

    try:
        if not all(fits(dim) for port in signature.inputs.values() for dim in port.shape.dims):
            return False
    except (UnknownName, ValueError):
        return False
    with contextlib.suppress(UnknownName, ValueError):
        return all(fits(dim) for port in signature.outputs.values() for dim in port.shape.dims)
    return True
