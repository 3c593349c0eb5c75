"""Proves one node that uses a component: its settings, wires, sizes, parameters, low-rank updates and ties."""

from collections.abc import Mapping
from typing import Any

import sympy

from atinuke.core import dims
from atinuke.core.body import Body
from atinuke.core.checked import CheckedNode, Probe
from atinuke.core.errors import AtinukeError, Report
from atinuke.core.fit import Fit, MisfitError, Type
from atinuke.core.graph import BROKEN, Node, frozen
from atinuke.core.lora import LinearMap, LoRA, misfit, read_lora
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.scope import names_index, resolve, settings_of
from atinuke.core.signature import Signature, read_signature
from atinuke.core.wiring import Feeds

Shapes = Mapping[str, tuple[int, ...]]


class ComponentChecker:
    """Tells the mistakes to `report`. `ranges` are the lowest and highest sizes of the axes; what a constructor says to
    the same settings is asked for once."""

    def __init__(
        self, registry: Registry, probe: Probe | None, report: Report, ranges: Mapping[sympy.Symbol, tuple[int, int]]
    ) -> None:
        self.registry = registry
        self.probe = probe
        self.report = report
        self.wrong = report.wrong
        self.ranges = ranges
        self.highs = {axis: high for axis, (_, high) in ranges.items()}
        self.probed: dict[tuple[type, str], Shapes | str] = {}
        self.maps: dict[tuple[type, str], Mapping[str, LinearMap]] = {}

    def node(self, state: Body, name: str, node: Node) -> CheckedNode | None:
        """The checked node, or None and what is wrong in the report."""
        title = state.title(name)
        if node.repeat is not None:
            self.wrong(node.place("repeat"), f"{title}: only a block can be repeated", fix="put it into a block")
        try:
            component = self.registry.component(node.use)
            cls = self.registry.load(node.use)
            signature = read_signature(cls)
        except AtinukeError as error:
            for mistake in error.mistakes:
                origin = (str(mistake.where),) if mistake.where else ()
                self.wrong(node.place("use"), f"{title}: {mistake.what}", *mistake.details, *origin, fix=mistake.fix)
            state.wiring.touch(node)
            return None
        settings = settings_of(title, node, signature, state.scope, self.report)
        feeds = state.wiring.feeds(
            title, node, {port.name: (port.optional, port.many) for port in signature.inputs.values()}
        )
        if feeds is None:
            state.wiring.touch(node)
            return None
        parameters = None if settings is None else self.build(title, node, cls, settings)
        outputs = self.fit(state, title, node, signature, None if parameters is None else settings, feeds)
        if settings is None or outputs is None or parameters is None:
            return None
        maps = self.linear_maps(cls, settings) if node.lora else {}
        lora = self.lora(state, title, node, maps)
        if lora is None:
            return None
        for inner, on in maps.items():
            shapes = lora[inner].shapes(on) if inner in lora else {}
            parameters = {**parameters, **{f"{inner}.{own}": shape for own, shape in shapes.items()}}
        self.tie(state, title, node, parameters)
        return CheckedNode(
            name,
            node,
            frozen(outputs),
            feeds,
            frozen(settings),
            component,
            cls,
            signature,
            frozen(parameters),
            frozen(lora),
        )

    def lora(self, state: Body, title: str, node: Node, maps: Mapping[str, LinearMap]) -> dict[str, LoRA] | None:
        """The low-rank updates of a component with these linear maps; None where it cannot have them."""
        found: dict[str, LoRA] = {}
        for name, written in node.lora.items():
            where = node.place(f"lora.{name}")
            if any(map(names_index, written.values())):
                self.wrong(where, f"{title}: lora cannot depend on `$index`", fix="give every layer the same")
                continue
            values = {
                key: resolve(state.scope, self.report, f"{title}: lora of `{name}`", value, where)
                for key, value in written.items()
            }
            if BROKEN in values.values():
                continue
            try:
                lora = read_lora(values)
            except ValueError as error:
                self.wrong(where, f"{title}: lora of `{name}`: {error}", fix="correct its `lora`")
                continue
            wrong = misfit(name, lora, maps) if self.probe else None
            if wrong:
                self.wrong(where, f"{title}: {node.use} {wrong[0]}", fix=wrong[1])
            else:
                found[name] = lora
        return found if len(found) == len(node.lora) else None

    def linear_maps(self, cls: type, settings: Mapping[str, Any]) -> Mapping[str, LinearMap]:
        if self.probe is None:
            return {}
        key = _made(cls, settings)
        if key not in self.maps:
            self.maps[key] = self.probe.linear_maps(cls, settings)
        return self.maps[key]

    def fit(
        self,
        state: Body,
        title: str,
        node: Node,
        signature: Signature,
        settings: Mapping[str, Any] | None,
        feeds: Feeds,
    ) -> dict[str, Type] | None:
        """The types of the outputs, once every wire fits its port; None where that cannot be told."""
        fit = None if settings is None else Fit(settings)
        fits = [
            state.wiring.connect(title, node, signature.inputs[port], wire, fit)
            for port, wires in feeds.items()
            for wire in wires
        ]
        if None in fits or fit is None or settings is None:
            return None
        try:
            outputs = {port: fit.give(signature.outputs[port]) for port in signature.outputs}
        except MisfitError as error:
            self.wrong(node.where, f"{title}: {error}", fix="correct the component's annotations")
            return None
        within = self.within_limits(title, node, signature, settings, fit)
        return outputs if within and self.never_empty(title, node, outputs) else None

    def within_limits(
        self, title: str, node: Node, signature: Signature, settings: Mapping[str, Any], fit: Fit
    ) -> bool:
        """Whether no axis outgrows a limit that the component states."""
        for local, setting in signature.limits.items():
            most = fit.names[local].subs(self.highs) if local in fit.names else sympy.Integer(0)
            if type(settings[setting]) is not int:
                what = f"`limits` of {node.use} names {setting}, which must be a whole number"
                self.wrong(node.where, f"{title}: {what}", f"got {settings[setting]!r}", fix="correct the component")
                return False
            if most.is_number and most > settings[setting]:
                what = f"axis `{local}` goes up to {most}, beyond {setting} = {settings[setting]}"
                self.wrong(node.where, f"{title}: {what}", fix=f"lower the axis's range, or raise {setting}")
                return False
        return True

    def never_empty(self, title: str, node: Node, outputs: Mapping[str, Type]) -> bool:
        """Whether no size can vanish at an end of the ranges of the free axes."""
        for port, given in outputs.items():
            for axis, size in enumerate(given.shape):
                try:
                    least, at = dims.least(size, self.ranges)
                except ValueError as error:
                    self.wrong(node.where, f"{title}: axis {axis} of {_called(port)} cannot be told", str(error))
                    return False
                if least < 1:
                    what = f"axis {axis} of {_called(port)} would be {least}"
                    fix = "narrow the axis's range" if at else "change the settings"
                    self.wrong(node.where, f"{title}: {what}{' at ' + at if at else ''}", fix=fix)
                    return False
        return True

    def build(self, title: str, node: Node, cls: type, settings: Mapping[str, Any]) -> Shapes | None:
        """The shapes of a component's parameters; its constructor may object to the settings."""
        if self.probe is None:
            return {}
        key = _made(cls, settings)
        if key not in self.probed:
            try:
                self.probed[key] = self.probe.parameters(cls, settings)
            except (Exception, SystemExit) as error:  # a third party's constructor may raise anything
                said = (str(error) or type(error).__name__).splitlines()[0]
                self.probed[key] = "its tensors are beyond any memory" if "overflow" in said.lower() else said
        result = self.probed[key]
        if isinstance(result, str):
            self.wrong(
                node.place("with"), f"{title}: {node.use} refuses its settings", result, fix="change the settings"
            )
            return None
        return result

    def tie(self, state: Body, title: str, node: Node, parameters: Shapes) -> None:
        """Tied parameters must exist, stand above, and have the same shape."""
        for own, target in node.tie.items() if self.probe else ():
            where = node.place(f"tie.{own}")
            name, _, theirs = target.partition(".")
            source = state.checked.get(name)
            if own not in parameters:
                self.wrong(where, f"{title}: {node.use} has no parameter `{own}`", fix=close(own, parameters))
            elif name not in state.wiring.types or name in state.wiring.body.inputs:
                self.wrong(where, f"{title}: tie to `{name}`, which is no node above", fix=close(name, state.checked))
            elif source is None:
                continue  # what is wrong with that node has been said
            elif theirs not in source.parameters:
                fix = close(theirs, source.parameters)
                self.wrong(where, f"{title}: `{name}` has no parameter `{theirs}`", fix=fix)
            elif source.parameters[theirs] != parameters[own]:
                shapes = f"`{own}` is {list(parameters[own])}, `{target}` is {list(source.parameters[theirs])}"
                self.wrong(where, f"{title}: tied parameters differ in shape", shapes, fix="make their sizes equal")


def _made(cls: type, settings: Mapping[str, Any]) -> tuple[type, str]:
    """Equal for components that are made alike."""
    return cls, repr(sorted(settings.items()))


def _called(port: str) -> str:
    return "its output" if port == "return" else port
