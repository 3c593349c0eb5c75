"""What a law is tried on: Hypothesis draws settings, sizes for every free name, and which ports are fed."""

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hypothesis import strategies as st

from atinuke.compile.meta import build_meta
from atinuke.core.component import Component, import_target
from atinuke.core.errors import fail
from atinuke.core.registry import Registry
from atinuke.core.signature import Setting, Signature, read_signature
from atinuke.testing.sizes import Sizes, draw_sizes

MOST_AXES = 3
MOST_WIRES = 3
# Small numbers with small divisors; what Hypothesis tries first and shrinks towards comes first.
WHOLE_NUMBERS = (4, 2, 3, 1, 6, 8)
REAL_NUMBERS = (0.5, 0.1, 1.0, 2.0)


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
    """A component, by the name that graph files use, together with what its annotations promise."""

    name: str
    component: Component
    cls: type
    signature: Signature

    @staticmethod
    def of(component: str | Component) -> "Contract":
        """Loads a component; AtinukeError where there is none, or its annotations cannot be read."""
        record = Registry().component(component) if isinstance(component, str) else component
        cls = record.load()
        return Contract(component if isinstance(component, str) else record.name, record, cls, read_signature(cls))


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
    sizes = [draw_sizes(draw, signature, settings, ranks, low, least)]
    for place in range(others):
        sizes.append(draw_sizes(draw, signature, settings, ranks, other_low, least, smallest=place == 0))
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
        drawn = st.fixed_dictionaries({name: _setting(contract.name, s) for name, s in signature.settings.items()})

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
        build_meta(cls, settings)
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
