"""Proves every size and dtype on every wire of a graph, before a weight exists; finds every mistake at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import sympy

from atinuke.core import dims
from atinuke.core.component import Component
from atinuke.core.dims import Size, UnknownName
from atinuke.core.errors import AtinukeError, Mistake, Place, raise_all
from atinuke.core.fit import Fit, MisfitError, Type
from atinuke.core.graph import Block, Graph, Input, Node, Wire, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.signature import Dim, Port, Shape, Signature, read_signature
from atinuke.core.spec import reference

MAX_NODES = 100_000


class Probe(Protocol):
    """Builds a component without weights, so that its constructor can object and its parameters can be measured."""

    def parameters(self, cls: type, settings: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the parameters and buffers by name; raises ValueError or TypeError as the constructor does."""


@dataclass(frozen=True)
class CheckedNode:
    """A node with everything resolved. A block has `instances` (one, or one a repetition); a component has a class."""

    name: str
    node: Node
    outputs: Mapping[str, Type]
    feeds: Mapping[str, tuple[Wire, ...]]
    settings: Mapping[str, Any] = field(default_factory=frozen)
    component: Component | None = None
    cls: type | None = None
    signature: Signature | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=frozen)
    instances: tuple["CheckedBody", ...] = ()
    carried: Mapping[str, str] = field(default_factory=frozen)

    @property
    def repeated(self) -> bool:
        return self.node.repeat is not None


@dataclass(frozen=True)
class CheckedBody:
    """The nodes of a graph, or of one instance of a block, with what each wire carries."""

    block: str | None
    body: Block
    scope: Mapping[str, Any]
    inputs: Mapping[str, Type]
    nodes: Mapping[str, CheckedNode]
    outputs: Mapping[str, Type]

    def type_of(self, wire: Wire) -> Type:
        """What a wire of this body carries."""
        if wire.node in self.inputs:
            return self.inputs[wire.node]
        outputs = self.nodes[wire.node].outputs
        return outputs[wire.output or next(iter(outputs))]


@dataclass(frozen=True)
class CheckedGraph:
    """A graph that holds together."""

    graph: Graph
    dims: Mapping[str, Any]
    body: CheckedBody


def check(graph: Graph, registry: Registry, probe: Probe | None = None) -> CheckedGraph:
    """Checks a graph.

    Raises:
        AtinukeError: with every mistake, in the order of the file.
    """
    checked, mistakes = inspect_graph(graph, registry, probe)
    raise_all(mistakes)
    assert checked is not None
    return checked


def inspect_graph(
    graph: Graph, registry: Registry, probe: Probe | None = None
) -> tuple[CheckedGraph | None, list[Mistake]]:
    """The checked graph, or None and the mistakes."""
    checker = _Checker(graph, registry, probe)
    checked = checker.run()
    mistakes = list(dict.fromkeys(checker.mistakes))
    mistakes.sort(key=lambda mistake: mistake.where.line if isinstance(mistake.where, Place) else 0)
    return (None if mistakes else checked), mistakes


ABSENT = Type("absent", ())  # what an optional input carries where nothing feeds it


@dataclass
class _Body:
    """A body while it is being checked: `types` has None for what is unknown because of an earlier mistake."""

    title: str
    body: Block
    scope: Mapping[str, Any]
    types: dict[str, Mapping[str, Type] | None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    checked: dict[str, CheckedNode] = field(default_factory=dict)


class _Checker:
    def __init__(self, graph: Graph, registry: Registry, probe: Probe | None) -> None:
        self.graph = graph
        self.registry = registry
        self.probe = probe
        self.mistakes: list[Mistake] = []
        self.count = 0
        self.lows = {dims.axis(name): axis.low for name, axis in graph.axes.items()}
        self.highs = {dims.axis(name): axis.high for name, axis in graph.axes.items()}
        self.blocks_seen = {name: i for i, name in enumerate(graph.blocks)}
        self.probed: dict[Any, Any] = {}

    def wrong(self, where: Place | None, what: str, *details: str, fix: str | None = None) -> None:
        self.mistakes.append(Mistake(what, where, details, fix))

    def run(self) -> CheckedGraph | None:
        scope = self.dims({})
        for name, block in self.graph.blocks.items():
            if name in self.registry.components():
                self.wrong(block.where, f"block `{name}` has the name of a component", fix="rename the block")
        axes = {name: dims.axis(name) for name in self.graph.axes}
        inputs = {name: self.input(name, value, {**scope, **axes}) for name, value in self.graph.inputs.items()}
        body = self.body("", self.graph.body(None), scope, inputs, depth=-1)
        for name in self.graph.blocks:
            if name not in self.used_blocks:
                self.unused_block(name)
        return CheckedGraph(self.graph, frozen(scope), body) if body else None

    @property
    def used_blocks(self) -> set[str]:
        bodies = [self.graph.nodes, *(block.nodes for block in self.graph.blocks.values())]
        return {node.use for nodes in bodies for node in nodes.values()}

    def unused_block(self, name: str) -> None:
        self.wrong(self.graph.blocks[name].where, f"block `{name}` is not used", fix="use it or delete it")

    def dims(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the dims, in the order of the file; a block's `with` may give other values."""
        values: dict[str, Any] = {}
        for name, value in self.graph.dims.items():
            value = overrides.get(name, value)
            if isinstance(value, str):
                try:
                    value = dims.evaluate(dims.parse(value), values)
                except (UnknownName, ValueError) as error:
                    where = self.graph.place(f"dims.{name}")
                    self.wrong(where, f"dim `{name}` has no value", str(error), fix=self.hint(error, values))
                    value = None
            values[name] = value
        return values

    def hint(self, error: Exception, known: Mapping[str, Any]) -> str | None:
        return close(error.name, known) if isinstance(error, UnknownName) else None

    def input(self, name: str, value: Input, scope: Mapping[str, Any]) -> Type | None:
        """The type of an input of the graph."""
        sizes: list[Size] = []
        for text in value.shape:
            try:
                size = dims.evaluate(dims.parse(text), scope)
            except (UnknownName, ValueError) as error:
                self.wrong(
                    value.where,
                    f"input `{name}` has an unknown size `{text}`",
                    str(error),
                    fix=self.hint(error, scope) or "declare it under dims or axes",
                )
                return None
            if size is None:
                return None
            sizes.append(sympy.sympify(size))
        return Type(value.dtype, tuple(sizes))

    # Bodies

    def body(
        self, title: str, block: Block, scope: Mapping[str, Any], inputs: Mapping[str, Type | None], depth: int
    ) -> CheckedBody | None:
        state = _Body(title, block, scope)
        for name, given in inputs.items():
            state.types[name] = None if given is None else {"": given}
        for name, node in block.nodes.items():
            checked = self.node(state, name, node, depth)
            state.types[name] = checked.outputs if checked else None
            if checked:
                state.checked[name] = checked
        outputs: dict[str, Type | None] = {}
        for name, wire in block.outputs.items():
            where = block.place(f"outputs.{name}" if name else "outputs")
            outputs[name] = self.wire(state, wire, where, f"{title}outputs.{name}".rstrip("."))
        for name, node in block.nodes.items():
            if name not in state.used:
                self.wrong(node.where, f"node `{title}{name}` is not used by anything", fix="wire it or delete it")
        if not block.outputs:
            self.wrong(block.where, f"{title or 'the graph'} has no outputs", fix="name at least one output")
        if len(state.checked) < len(block.nodes) or None in outputs.values():
            return None
        return CheckedBody(
            None,
            block,
            frozen(scope),
            frozen({name: given for name, given in inputs.items() if given}),
            frozen(state.checked),
            frozen(outputs),
        )

    def wire(self, state: _Body, wire: Wire, where: Place | None, port: str) -> Type | None:
        """What a wire carries; None when that is a mistake, or follows from one."""
        state.used.add(wire.node)
        if wire.node not in state.types:
            if wire.node in state.body.nodes:
                self.wrong(
                    where,
                    f"`{port}` is fed by `{wire.node}`, which stands below",
                    fix="move it above; cycles are not allowed",
                )
            else:
                self.wrong(
                    where, f"`{port}` is fed by `{wire.node}`, which does not exist", fix=close(wire.node, state.types)
                )
            return None
        outputs = state.types[wire.node]
        if outputs is None:
            return None
        if wire.output is None:
            return next(iter(outputs.values()))
        if wire.output not in outputs:
            known = [name for name in outputs if name not in ("", "return")]
            self.wrong(where, f"`{wire.node}` has no output `{wire.output}`", fix=close(wire.output, known))
            return None
        return outputs[wire.output]

    def node(self, state: _Body, name: str, node: Node, depth: int) -> CheckedNode | None:
        self.count += 1
        if self.count > MAX_NODES:
            if self.count == MAX_NODES + 1:
                self.wrong(node.where, f"the graph has more than {MAX_NODES:,} nodes", fix="repeat fewer layers")
            return None
        if not node.use:
            self.feed_anyway(state, node)
            return None
        if node.use in self.graph.blocks:
            return self.block_node(state, name, node, depth)
        if node.repeat is not None:
            self.wrong(
                node.place("repeat"), f"{state.title}{name}: only a block can be repeated", fix="put it into a block"
            )
        try:
            component = self.registry.component(node.use)
            cls = self.registry.load(node.use)
            signature = read_signature(cls)
        except AtinukeError as error:
            for mistake in error.mistakes:
                origin = (str(mistake.where),) if mistake.where else ()
                where = node.place("use")
                what = f"{state.title}{name}: {mistake.what}"
                self.wrong(where, what, *mistake.details, *origin, fix=mistake.fix)
            self.feed_anyway(state, node)
            return None
        settings = self.settings(state, name, node, signature)
        ports = {port.name: (port.optional, port.many) for port in signature.inputs.values()}
        feeds = self.feeds(state, name, node, ports)
        outputs = self.fit(state, name, node, signature, settings, feeds) if settings is not None else None
        parameters = self.build(state, name, node, cls, settings) if settings is not None else None
        if outputs is None or parameters is None or settings is None or feeds is None:
            return None
        self.tie(state, name, node, parameters)
        return CheckedNode(
            name, node, frozen(outputs), feeds, frozen(settings), component, cls, signature, frozen(parameters)
        )

    def feed_anyway(self, state: _Body, node: Node) -> None:
        """Counts the wires of a node that cannot be checked as used, so that one mistake is one message."""
        wires = node.inputs.values() if isinstance(node.inputs, Mapping) else node.inputs
        state.used.update(wire.node for wire in wires)

    # Settings

    def settings(self, state: _Body, name: str, node: Node, signature: Signature) -> dict[str, Any] | None:
        given: dict[str, Any] = {}
        good = True
        for key, value in node.settings.items():
            where = node.place(f"with.{key}")
            if key not in signature.settings:
                fix = close(key, signature.settings) or f"{node.use} has no settings"
                self.wrong(where, f"{state.title}{name}: {node.use} has no setting `{key}`", fix=fix)
                good = False
                continue
            resolved = self.resolve(state, f"{state.title}{name}: setting `{key}`", value, where)
            if resolved is None and value is not None:
                good = False
            given[key] = resolved
        if not good:
            return None
        values, wrong = signature.validate(given)
        for text in wrong:
            key = text.split("`")[1]
            self.wrong(
                node.place(f"with.{key}"), f"{state.title}{name}: {text}", fix=f"see `atinuke plugins show {node.use}`"
            )
        return None if wrong else values

    def resolve(self, state: _Body, what: str, value: Any, where: Place | None) -> Any:
        """A setting's value with `$name` and `${expression}` replaced; None when that fails."""
        if isinstance(value, tuple):
            items = [self.resolve(state, what, item, where) for item in value]
            return None if any(a is None and b is not None for a, b in zip(items, value, strict=True)) else items
        text = reference(value) if isinstance(value, str) else None
        if text is None:
            return value
        if text in state.scope:
            return state.scope[text]
        try:
            return dims.evaluate(dims.parse(text), state.scope)
        except UnknownName as error:
            self.wrong(where, f"{what}: `{error.name}` is not a dim", fix=close(error.name, state.scope))
        except ValueError as error:
            if None not in state.scope.values():
                self.wrong(where, f"{what} cannot be worked out", str(error))
        return None

    # Wires

    def feeds(
        self, state: _Body, name: str, node: Node, ports: Mapping[str, tuple[bool, bool]]
    ) -> Mapping[str, tuple[Wire, ...]] | None:
        """The wires by port. `ports` says of each whether it is optional and whether it takes many."""
        title = f"{state.title}{name}"
        given: dict[str, tuple[Wire, ...]] = {}
        good = True
        if isinstance(node.inputs, Mapping):
            for port, wire in node.inputs.items():
                if port not in ports:
                    fix = close(port, ports)
                    self.wrong(node.place(f"in.{port}"), f"{title}: {node.use} has no port `{port}`", fix=fix)
                    state.used.add(wire.node)
                    good = False
                else:
                    given[port] = (wire,)
        else:
            names = list(ports)
            many = next((port for port in names if ports[port][1]), None)
            for i, wire in enumerate(node.inputs):
                if many is not None and i >= names.index(many):
                    port = many
                elif i < len(names):
                    port = names[i]
                else:
                    self.wrong(
                        node.place("in"),
                        f"{title}: {node.use} takes {len(names)} wires, but is fed {len(node.inputs)}",
                        fix=f"its ports are: {', '.join(names)}" if names else "it takes none",
                    )
                    state.used.update(wire.node for wire in node.inputs)
                    good = False
                    break
                given[port] = (*given.get(port, ()), wire)
        for port, (optional, _) in ports.items():
            if good and port not in given and not optional:
                self.wrong(node.place("in"), f"{title}: port `{port}` is not fed", fix=f"wire something to `{port}`")
                good = False
        if not good:
            for wires in given.values():
                state.used.update(wire.node for wire in wires)
        return frozen(given) if good else None

    def fit(
        self,
        state: _Body,
        name: str,
        node: Node,
        signature: Signature,
        settings: Mapping[str, Any],
        feeds: Mapping[str, tuple[Wire, ...]] | None,
    ) -> dict[str, Type] | None:
        if feeds is None:
            return None
        fit = Fit(settings)
        title = f"{state.title}{name}"
        good = True
        for port, wires in feeds.items():
            where = node.places.get(f"in.{port}") or node.place("in")
            for wire in wires:
                given = self.wire(state, wire, where, f"{title}.{port}")
                good = good and given is not None
                if given is not None:
                    good = self.accepts(state, title, signature.inputs[port], wire, given, fit, where) and good
        if not good:
            return None
        try:
            outputs = {port: fit.give(signature.outputs[port]) for port in signature.outputs}
        except MisfitError as error:
            self.wrong(node.where, f"{state.title}{name}: {error}", fix="correct the component's annotations")
            return None
        return outputs if self.in_range(state, name, node, signature, settings, fit, outputs) else None

    def accepts(
        self, state: _Body, title: str, port: Port, wire: Wire, given: Type, fit: Fit, where: Place | None
    ) -> bool:
        if self.optional_wire(state, wire) and not port.optional:
            self.wrong(
                where,
                f"{title}: port `{port.name}` needs `{wire}`, which may be absent",
                fix=f"remove the `?` from input `{wire}`",
            )
            return False
        if given is ABSENT:
            return True
        try:
            fit.feed(port, given)
        except MisfitError as error:
            details = (*error.args, f"fed by {self.origin(state, wire)}")
            fix = self.remedy(fit, port, given)
            self.wrong(where, f"{title}: port `{port.name}` does not fit", *details, fix=fix)
            return False
        return True

    def optional_wire(self, state: _Body, wire: Wire) -> bool:
        return wire.node in state.body.inputs and state.body.inputs[wire.node].optional

    def origin(self, state: _Body, wire: Wire) -> str:
        """`mel` (line 25, audio.logmel)"""
        if wire.node in state.body.nodes:
            node = state.body.nodes[wire.node]
            line = f"line {node.where.line}, " if node.where else ""
            return f"`{wire}` ({line}{node.use})"
        source = state.body.inputs[wire.node]
        line = f"line {source.where.line}, " if source.where else ""
        return f"`{wire}` ({line}input {source})"

    def remedy(self, fit: Fit, port: Port, given: Type) -> str:
        """What to try: the setting that would make the sizes meet, or a component between them."""
        sizes = dict(zip(reversed(port.shape.dims), reversed(given.shape), strict=False))
        for dim, size in sizes.items():
            wanted = fit.settings.get(dim.text) if dim.settings else None
            if wanted is not None and size.is_Integer and wanted != size:
                return f"put a component between them, or set {dim.text} to {size}"
        return f"feed `{port.name}` with {port}"

    def in_range(
        self,
        state: _Body,
        name: str,
        node: Node,
        signature: Signature,
        settings: Mapping[str, Any],
        fit: Fit,
        outputs: Mapping[str, Type],
    ) -> bool:
        """Whether no size can vanish, and no axis outgrows a limit, anywhere in the ranges of the free axes."""
        for local, setting in signature.limits.items():
            size = fit.names.get(local)
            if size is None:
                continue
            most = size.subs(self.highs)
            if most.is_number and most > settings[setting]:
                self.wrong(
                    node.where,
                    f"{state.title}{name}: axis `{local}` goes up to {most}, beyond {setting} = {settings[setting]}",
                    fix=f"lower the axis's range, or raise {setting}",
                )
                return False
        for port, given in outputs.items():
            for axis, size in enumerate(given.shape):
                least = size if size.is_Symbol else size.subs(self.lows)
                if least.is_number and least < 1:
                    at = ", ".join(
                        f"{symbol} = {self.lows[symbol]}" for symbol in size.free_symbols if symbol in self.lows
                    )
                    what = f"axis {axis} of {'its output' if port == 'return' else port} would be {least}"
                    fix = "raise the lower end of the axis's range" if at else "change the settings"
                    self.wrong(node.where, f"{state.title}{name}: {what}{' at ' + at if at else ''}", fix=fix)
                    return False
        return True

    # Weights

    def build(
        self, state: _Body, name: str, node: Node, cls: type, settings: Mapping[str, Any]
    ) -> Mapping[str, tuple[int, ...]] | None:
        """The shapes of a component's parameters; its constructor may object to the settings."""
        if self.probe is None:
            return {}
        key = (cls, repr(sorted(settings.items())))
        if key not in self.probed:
            try:
                self.probed[key] = self.probe.parameters(cls, settings)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                self.probed[key] = str(error).splitlines()[0] if str(error) else type(error).__name__
        result = self.probed[key]
        if isinstance(result, str):
            where = node.places.get("with") or node.where
            self.wrong(
                where, f"{state.title}{name}: {node.use} refuses its settings", result, fix="change the settings"
            )
            return None
        return result  # type: ignore[no-any-return]

    def tie(self, state: _Body, name: str, node: Node, parameters: Mapping[str, tuple[int, ...]]) -> None:
        for own, target in node.tie.items():
            where = node.place(f"tie.{own}")
            title = f"{state.title}{name}"
            if self.probe is not None and own not in parameters:
                self.wrong(where, f"{title}: {node.use} has no parameter `{own}`", fix=close(own, parameters))
                continue
            other, _, theirs = target.partition(".")
            if other not in state.types or other in state.body.inputs:
                self.wrong(
                    where, f"{title}: tie to `{other}`, which is not a node above", fix=close(other, state.checked)
                )
                continue
            source = state.checked.get(other)
            if source is None or self.probe is None:
                continue
            if theirs not in source.parameters:
                self.wrong(
                    where, f"{title}: `{other}` has no parameter `{theirs}`", fix=close(theirs, source.parameters)
                )
            elif source.parameters[theirs] != parameters[own]:
                shapes = f"`{own}` is {list(parameters[own])}, `{target}` is {list(source.parameters[theirs])}"
                self.wrong(where, f"{title}: tied parameters differ in shape", shapes, fix="make their sizes equal")

    # Blocks

    def block_node(self, state: _Body, name: str, node: Node, depth: int) -> CheckedNode | None:
        block = self.graph.blocks[node.use]
        title = f"{state.title}{name}"
        if depth >= 0 and self.blocks_seen[node.use] >= depth:
            self.feed_anyway(state, node)
            self.wrong(
                node.place("use"),
                f"{title}: block `{node.use}` is not above",
                fix="blocks may use only blocks above them",
            )
            return None
        for port in node.tie:
            self.wrong(node.place(f"tie.{port}"), f"{title}: a block cannot be tied", fix="tie the nodes inside it")
        overrides: dict[str, Any] = {}
        good = True
        for key, value in node.settings.items():
            where = node.place(f"with.{key}")
            if key not in self.graph.dims:
                fix = close(key, self.graph.dims)
                self.wrong(where, f"{title}: block `{node.use}` can be given only dims, not `{key}`", fix=fix)
                good = False
                continue
            overrides[key] = self.resolve(state, f"{title}: dim `{key}`", value, where)
            good = good and overrides[key] is not None
        scope = self.dims(overrides) if overrides else {k: v for k, v in state.scope.items() if k != "index"}
        times = self.times(state, title, node)
        feeds = self.feeds(state, name, node, {port: (i.optional, False) for port, i in block.inputs.items()})
        if not good or times is None or feeds is None:
            self.feed_anyway(state, node)
            return None
        given: dict[str, Type | None] = {}
        for port, (wire,) in feeds.items():
            where = node.places.get(f"in.{port}") or node.place("in")
            given[port] = self.wire(state, wire, where, f"{title}.{port}")
            if given[port] and self.optional_wire(state, wire) and not block.inputs[port].optional:
                self.wrong(where, f"{title}: port `{port}` needs `{wire}`, which may be absent", fix="mark it with `?`")
                given[port] = None
        carried = self.carried(block)
        instances: list[CheckedBody] = []
        for index in range(times):
            inputs = self.block_inputs(state, title, node, block, {**scope, "index": index}, given, feeds)
            if inputs is None:
                return None
            inner = self.body(f"{title}.", block, {**scope, "index": index}, inputs, self.blocks_seen[node.use])
            if inner is None:
                return None
            instances.append(inner)
            given = {**given, **{port: inner.outputs[output] for output, port in carried.items()}}
        outputs = {
            output: result
            if node.repeat is None or output in carried
            else Type(result.dtype, (sympy.Integer(times), *result.shape))
            for output, result in instances[-1].outputs.items()
        }
        return CheckedNode(
            name, node, frozen(outputs), feeds, frozen(overrides), instances=tuple(instances), carried=frozen(carried)
        )

    def carried(self, block: Block) -> dict[str, str]:
        """Outputs of a block that feed its next instance: output name -> input name."""
        if set(block.outputs) == {""}:
            return {"": next(iter(block.inputs))} if block.inputs else {}
        return {name: name for name in block.outputs if name in block.inputs}

    def times(self, state: _Body, title: str, node: Node) -> int | None:
        if node.repeat is None:
            return 1
        where = node.place("repeat")
        times = self.resolve(state, f"{title}: repeat", node.repeat, where)
        if times is None:
            return None
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= MAX_NODES:
            self.wrong(where, f"{title}: repeat must be a whole number from 1 to {MAX_NODES:,}", f"got {times}")
            return None
        return times

    def block_inputs(
        self,
        state: _Body,
        title: str,
        node: Node,
        block: Block,
        scope: Mapping[str, Any],
        given: Mapping[str, Type | None],
        feeds: Mapping[str, tuple[Wire, ...]],
    ) -> dict[str, Type | None] | None:
        """What comes into an instance; sizes that are not dims are the block's own names, unified as a component's."""
        fit = Fit({}, names={name: sympy.sympify(value) for name, value in scope.items() if isinstance(value, int)})
        result: dict[str, Type | None] = {}
        for port, declared in block.inputs.items():
            value = given.get(port)
            if port not in feeds:
                result[port] = ABSENT
                continue
            where = node.places.get(f"in.{port}") or node.place("in")
            if value is None or not self.accepts(
                state, title, _port(port, declared), feeds[port][0], value, fit, where
            ):
                return None
            result[port] = value
        return result


def _port(name: str, declared: Input) -> Port:
    """An input of a block as the port it is to the node that uses the block."""
    sizes = tuple(Dim(text, dims.parse(text)) for text in declared.shape)
    return Port(name, frozenset({declared.dtype}), Shape(sizes), declared.optional)
