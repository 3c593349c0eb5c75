"""Proves every size and dtype on every wire of a graph, before a weight exists; finds every mistake at once."""

from collections.abc import Mapping
from math import prod
from typing import Any

import sympy

from atinuke.core import dims
from atinuke.core.body import Body
from atinuke.core.check_component import ComponentChecker
from atinuke.core.checked import ABSENT, CheckedBody, CheckedGraph, CheckedNode, Probe
from atinuke.core.errors import Mistake, Place, Report, raise_all
from atinuke.core.fit import Fit, MisfitError, Type
from atinuke.core.graph import BROKEN, Block, Graph, Input, Node, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.scope import Scope, dim_values, input_type, names_index, resolve
from atinuke.core.signature import Dim, Port, Shape
from atinuke.core.wiring import Feeds, Wiring

MAX_NODES = 20_000
MAX_DEPTH = 32  # of blocks
MAX_PARAMETERS = 10**15


def check(graph: Graph, registry: Registry, probe: Probe | None = None) -> CheckedGraph:
    """Checks a graph. Without a probe, what only a constructor can object to is not found.

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
    mistakes = list(dict.fromkeys(checker.report.mistakes))  # instances of a block repeat theirs
    mistakes.sort(key=lambda mistake: mistake.where.line if isinstance(mistake.where, Place) else 0)
    return (None if mistakes else checked), mistakes


class _Checker:
    def __init__(self, graph: Graph, registry: Registry, probe: Probe | None) -> None:
        self.graph = graph
        self.registry = registry
        self.report = Report()
        self.wrong = self.report.wrong
        self.count = 0  # of nodes so far
        self.parameters = 0
        self.ranges = {dims.axis(name): (axis.low, axis.high) for name, axis in graph.axes.items()}
        self.levels = {name: level for level, name in enumerate(graph.blocks)}
        self.components = ComponentChecker(registry, probe, self.report, self.ranges)

    def run(self) -> CheckedGraph | None:
        graph = self.graph
        scope = dim_values(graph, self.report)
        self.blocks_are_used()
        sizes = {**scope, **{name: dims.axis(name) for name in graph.axes}}
        inputs = {name: self.input(name, value, sizes) for name, value in graph.inputs.items()}
        body = self.body("", graph.body(None), scope, inputs, level=len(self.levels))
        for name, given in graph.slots.items():
            self.slot(name, given, sizes, body)
        if self.parameters > MAX_PARAMETERS:
            what = f"the graph has {self.parameters:,} parameters, more than {MAX_PARAMETERS:,}"
            self.wrong(graph.where, what, fix="make its dims smaller: no machine can hold it")
        return CheckedGraph(graph, frozen(scope), body) if body else None

    def input(self, name: str, value: Input, sizes: Scope) -> Type | None:
        """The type of an input of the graph, whose sizes are whole and at least 1 wherever its axes are."""
        given = input_type(name, value, sizes, self.report)
        for text, size in zip(value.shape, given.shape, strict=True) if given else ():
            try:
                least, at = dims.least(size, self.ranges)
                got = f"`{text}` is {least}{' at ' + at if at else ''}" if least < 1 else None
            except ValueError as error:
                got = f"`{text}`: {error}"
            if size.is_integer is False or (size.is_integer is None and got is None):
                got = f"`{text}` is not whole"
            if got:
                fix = "change the size, or the range of its axis"
                self.wrong(value.where, f"input `{name}` needs sizes that are whole and at least 1", got, fix=fix)
                return None
        return given

    def blocks_are_used(self) -> None:
        bodies = [self.graph.nodes, *(block.nodes for block in self.graph.blocks.values())]
        used = {node.use for nodes in bodies for node in nodes.values()}
        for name, block in self.graph.blocks.items():
            if name in self.registry.components():
                self.wrong(block.where, f"block `{name}` has the name of a component", fix="rename the block")
            elif name not in used and not self.graph.slots:  # with a slot, it is there to be swapped in
                self.wrong(block.where, f"block `{name}` is not used", fix="use it or delete it")

    def slot(self, name: str, given: Mapping[str, Input], sizes: Scope, body: CheckedBody | None) -> None:
        """A slot's node must give what the slot says; names that are neither dims nor axes stand for any size."""
        where = self.graph.place(f"slots.{name}")
        if name not in self.graph.nodes:
            self.wrong(where, f"slot `{name}` is of no node", fix=close(name, self.graph.nodes))
        if body is None or name not in self.graph.nodes:
            return
        outputs = body.nodes[name].outputs
        known = {
            size: sympy.sympify(value) for size, value in sizes.items() if not isinstance(value, str | bool | float)
        }
        fit = Fit({}, names={size: value for size, value in known.items() if value.is_integer})
        for at, (output, declared) in enumerate(given.items()):
            found = next(iter(outputs.values())) if at == 0 else outputs.get(output)
            if found is None:
                self.wrong(
                    where,
                    f"node `{name}` does not fill its slot",
                    f"it gives no `{output}`",
                    fix=close(output, outputs),
                )
            elif declared.dtype:
                try:
                    fit.feed(_port(output, declared), found)
                except MisfitError as error:
                    details = f"given {found}", f"by {body.nodes[name].node.use}"
                    what = f"node `{name}` does not fill its slot" + (f": `{output}`" if output else "")
                    self.wrong(
                        where, what, *error.args, *details, fix="swap in what gives this size, or change the slot"
                    )

    def body(
        self, title: str, block: Block, scope: Scope, inputs: Mapping[str, Type | None], level: int
    ) -> CheckedBody | None:
        """Checks a graph or an instance of a block, fed with `inputs` (None where they are not known)."""
        state = Body(Wiring(title, block, self.report), scope, level)
        wiring = state.wiring
        wiring.types.update({name: None if given is None else {"": given} for name, given in inputs.items()})
        for name, node in block.nodes.items():
            if self.count > MAX_NODES:
                return None
            checked = self.node(state, name, node)
            wiring.types[name] = checked.outputs if checked else None
            if checked:
                state.checked[name] = checked
        outputs = {
            name: wiring.wire(wire, block.place(f"outputs.{name}" if name else "outputs"), f"{title}outputs")
            for name, wire in block.outputs.items()
        }
        if not block.outputs:
            self.wrong(
                block.where, f"{title.rstrip('.') or 'the graph'} has no outputs", fix="name at least one output"
            )
        for name, node in block.nodes.items():
            if name not in wiring.used and block.outputs:
                self.wrong(node.where, f"node `{title}{name}` is not used by anything", fix="wire it or delete it")
        known = {name: given for name, given in outputs.items() if given is not None}
        if len(state.checked) < len(block.nodes) or len(known) < max(1, len(outputs)) or None in inputs.values():
            return None
        given = {name: given for name, given in inputs.items() if given is not None}
        return CheckedBody(block, frozen(scope), frozen(given), frozen(state.checked), frozen(known))

    def node(self, state: Body, name: str, node: Node) -> CheckedNode | None:
        self.count += 1
        if self.count > MAX_NODES:
            if self.count == MAX_NODES + 1:
                fix = "repeat fewer layers, or nest fewer blocks"
                self.wrong(node.where, f"the graph has more than {MAX_NODES:,} nodes", fix=fix)
        elif node.use in self.graph.blocks:
            return self.block_node(state, name, node)
        if node.use:
            checked = self.components.node(state, name, node)
            if checked:
                self.parameters += sum(prod(shape) for own, shape in checked.parameters.items() if own not in node.tie)
            return checked
        state.wiring.touch(node)
        return None

    def block_node(self, state: Body, name: str, node: Node) -> CheckedNode | None:
        block, title, wiring = self.graph.blocks[node.use], state.title(name), state.wiring
        if len(title.split(".")) > MAX_DEPTH:
            self.wrong(
                node.place("use"), f"{title}: blocks are nested deeper than {MAX_DEPTH}", fix="nest fewer blocks"
            )
            wiring.touch(node)
            return None
        if self.levels[node.use] >= state.level:
            fix = "blocks may use only blocks above them"
            self.wrong(node.place("use"), f"{title}: block `{node.use}` is not above", fix=fix)
            wiring.touch(node)
            return None
        for own in node.tie:
            self.wrong(node.place(f"tie.{own}"), f"{title}: a block cannot be tied", fix="tie the nodes inside it")
        if node.lora:
            self.wrong(
                node.place("lora"), f"{title}: a block has no linear maps", fix="give lora to the nodes inside it"
            )
        if names_index(node.repeat) or any(map(names_index, node.settings.values())):
            fix = "put what differs into the settings of components"
            self.wrong(node.place("use"), f"{title}: a block inside a block cannot depend on `$index`", fix=fix)
            wiring.touch(node)
            return None
        overrides = self.overrides(state, title, node)
        times = self.times(state, title, node)
        feeds = wiring.feeds(title, node, {port: (given.optional, False) for port, given in block.inputs.items()})
        if overrides is None or times is None or feeds is None:
            wiring.touch(node)
            return None
        scope = dim_values(self.graph, self.report, overrides) if overrides else dict(state.scope)
        given = {
            port: wiring.wire(wire, wiring.place(node, port), f"{title}.{port}") for port, (wire,) in feeds.items()
        }
        carried = _carried(block)
        instances: list[CheckedBody] = []
        for index in range(times):
            self.count += not block.nodes  # an empty one takes time too
            inside = {**scope, "index": index}
            inputs = self.block_inputs(state, title, node, inside, given, feeds)
            inner = self.body(f"{title}.", block, inside, inputs, self.levels[node.use])
            if inner is None:
                return None
            instances.append(inner)
            given = {**given, **{port: inner.outputs[output] for output, port in carried.items()}}
        stack = (sympy.Integer(times),)
        outputs = {
            output: result if node.repeat is None or output in carried else Type(result.dtype, stack + result.shape)
            for output, result in instances[-1].outputs.items()
        }
        return CheckedNode(
            name, node, frozen(outputs), feeds, frozen(overrides), instances=tuple(instances), carried=frozen(carried)
        )

    def overrides(self, state: Body, title: str, node: Node) -> dict[str, Any] | None:
        """Other values for dims, which a block is given with `with`."""
        found: dict[str, Any] = {}
        for key, value in node.settings.items():
            where = node.place(f"with.{key}")
            if key not in self.graph.dims:
                what = f"{title}: block `{node.use}` can be given only dims, not `{key}`"
                self.wrong(where, what, fix=close(key, self.graph.dims))
            else:
                found[key] = resolve(state.scope, self.report, f"{title}: dim `{key}`", value, where)
        return None if len(found) < len(node.settings) or BROKEN in found.values() else found

    def times(self, state: Body, title: str, node: Node) -> int | None:
        """How many instances a block has; a graph that would be too large is refused before it is expanded."""
        if node.repeat is None:
            return 1
        where = node.place("repeat")
        times = resolve(state.scope, self.report, f"{title}: repeat", node.repeat, where)
        if times is BROKEN:
            return None
        if type(times) is not int or times < 1:
            self.wrong(where, f"{title}: repeat must be a whole number, at least 1", f"got {times}")
            return None
        nodes = self.count + times * max(1, len(self.graph.blocks[node.use].nodes))
        if nodes > MAX_NODES:
            what = f"{title}: the graph would have {nodes:,} nodes, more than {MAX_NODES:,}"
            self.wrong(where, what, fix="repeat it fewer times")
            return None
        return times

    def block_inputs(
        self,
        state: Body,
        title: str,
        node: Node,
        scope: Scope,
        given: Mapping[str, Type | None],
        feeds: Feeds,
    ) -> dict[str, Type | None]:
        """What comes into an instance. Sizes that are not dims are the block's own names, unified as a component's."""
        fit = Fit({}, names={name: sympy.sympify(value) for name, value in scope.items() if type(value) is int})
        result: dict[str, Type | None] = {}
        for port, declared in self.graph.blocks[node.use].inputs.items():
            if port not in feeds:
                result[port] = ABSENT
                continue
            value, wire = given[port], feeds[port][0]
            fits = (
                value is not None
                and declared.dtype
                and state.wiring.accepts(title, node, _port(port, declared), wire, value, fit)
            )
            result[port] = value if fits else None
        return result


def _carried(block: Block) -> dict[str, str]:
    """Outputs of a block that feed its next instance: output name -> input name."""
    if set(block.outputs) == {""}:
        return {"": next(iter(block.inputs))} if block.inputs else {}
    return {name: name for name in block.outputs if name in block.inputs}


def _port(name: str, declared: Input) -> Port:
    """An input of a block as the port it is to the node that uses the block."""
    sizes = tuple(Dim(text, dims.parse(text)) for text in declared.shape)
    return Port(name, frozenset({declared.dtype}), Shape(sizes), declared.optional)
