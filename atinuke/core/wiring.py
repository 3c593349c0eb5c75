"""The wires of one body (a graph, or an instance of a block) while it is being checked."""

from collections.abc import Mapping

from atinuke.core.checked import ABSENT
from atinuke.core.errors import Place, Report
from atinuke.core.fit import Fit, MisfitError, Type
from atinuke.core.graph import Block, Node, Wire, frozen
from atinuke.core.names import close
from atinuke.core.signature import Port

Feeds = Mapping[str, tuple[Wire, ...]]


class Wiring:
    """Knows what each node above gives: `types` has None where that is unknown because of an earlier mistake.

    `used` collects the names that some wire begins at.
    """

    def __init__(self, title: str, body: Block, report: Report) -> None:
        self.title = title
        self.body = body
        self.report = report
        self.types: dict[str, Mapping[str, Type] | None] = {}
        self.used: set[str] = set()

    def wire(self, wire: Wire, where: Place | None, port: str) -> Type | None:
        """What a wire carries; None when that is a mistake, or follows from one."""
        self.used.add(wire.node)
        if not wire.node:
            return None
        if wire.node not in self.types:
            below = wire.node in self.body.nodes
            what = f"`{port}` is fed by `{wire.node}`, which {'stands below' if below else 'does not exist'}"
            fix = "move it above; cycles are not allowed" if below else close(wire.node, self.types)
            self.report.wrong(where, what, fix=fix)
            return None
        outputs = self.types[wire.node]
        if outputs is None:
            return None
        if wire.output is None:
            return next(iter(outputs.values()))
        if wire.output not in outputs:
            known = [name for name in outputs if name not in ("", "return")]
            self.report.wrong(where, f"`{wire.node}` has no output `{wire.output}`", fix=close(wire.output, known))
            return None
        return outputs[wire.output]

    def place(self, node: Node, port: str) -> Place | None:
        """Where the wire to a port is written."""
        return node.places.get(f"in.{port}") or node.place("in")

    def touch(self, node: Node) -> None:
        """Counts the wires of a node that cannot be checked as used, so that one mistake is one message."""
        wires = node.inputs.values() if isinstance(node.inputs, Mapping) else node.inputs
        self.used.update(wire.node for wire in wires)

    def feeds(self, title: str, node: Node, ports: Mapping[str, tuple[bool, bool]]) -> Feeds | None:
        """The wires by port. `ports` says of each whether it is optional and whether it takes many."""
        given: dict[str, tuple[Wire, ...]] = {}
        wrong = len(self.report.mistakes)
        if isinstance(node.inputs, Mapping):
            for port, wire in node.inputs.items():
                given[port] = (wire,)
                if port not in ports:
                    what = f"{title}: {node.use} has no port `{port}`"
                    self.report.wrong(self.place(node, port), what, fix=close(port, ports))
        else:
            for port, wire in zip(_in_order(ports, len(node.inputs)), node.inputs, strict=False):
                given[port] = (*given.get(port, ()), wire)
            if sum(map(len, given.values())) < len(node.inputs):
                what = f"{title}: {node.use} takes {len(ports)} wires, but is fed {len(node.inputs)}"
                fix = f"its ports are: {', '.join(ports)}" if ports else "it takes none"
                self.report.wrong(node.place("in"), what, fix=fix)
        if len(self.report.mistakes) == wrong:
            for port, (optional, _) in ports.items():
                if port not in given and not optional:
                    fix = f"wire something to `{port}`"
                    self.report.wrong(node.place("in"), f"{title}: port `{port}` is not fed", fix=fix)
        return frozen(given) if len(self.report.mistakes) == wrong else None

    def connect(self, title: str, node: Node, port: Port, wire: Wire, fit: Fit | None) -> Type | None:
        """What a wire brings to a port, if it fits; without a `fit`, only whether there is such a wire."""
        given = self.wire(wire, self.place(node, port.name), f"{title}.{port.name}")
        if given is None or fit is None or self.accepts(title, node, port, wire, given, fit):
            return given
        return None

    def accepts(self, title: str, node: Node, port: Port, wire: Wire, given: Type, fit: Fit) -> bool:
        """Whether a port takes what a wire carries; unifies the sizes."""
        where = self.place(node, port.name)
        if self.is_optional(wire) and not port.optional:
            what = f"{title}: port `{port.name}` needs `{wire}`, which may be absent"
            self.report.wrong(where, what, fix=f"remove the `?` from input `{wire}`")
            return False
        if given is ABSENT:
            return True
        try:
            fit.feed(port, given)
        except MisfitError as error:
            details = (*error.args, f"fed by {self.origin(wire)}")
            what = f"{title}: port `{port.name}` does not fit"
            self.report.wrong(where, what, *details, fix=_remedy(fit, port, given))
            return False
        return True

    def is_optional(self, wire: Wire) -> bool:
        """Whether a wire begins at an input that may be absent."""
        return wire.node in self.body.inputs and self.body.inputs[wire.node].optional

    def origin(self, wire: Wire) -> str:
        """`mel` (line 25, audio.logmel)"""
        if wire.node in self.body.nodes:
            node = self.body.nodes[wire.node]
            place, what = node.where, node.use
        else:
            source = self.body.inputs[wire.node]
            place, what = source.where, f"input {source}"
        return f"`{wire}` ({f'line {place.line}, ' if place else ''}{what})"


def _in_order(ports: Mapping[str, tuple[bool, bool]], count: int) -> list[str]:
    """The ports that wires given by position go to; one that takes many takes all that follow."""
    order: list[str] = []
    for port, (_, many) in ports.items():
        order += [port] * (max(0, count - len(order)) if many else 1)
    return order[:count]


def _remedy(fit: Fit, port: Port, given: Type) -> str:
    """What to try: the setting that would make the sizes meet, or a component between them."""
    for dim, size in zip(reversed(port.shape.dims), reversed(given.shape), strict=False):
        wanted = fit.settings.get(dim.text) if dim.settings else None
        if wanted is not None and size.is_Integer and wanted != size:
            return f"put a component between them, or set {dim.text} to {size}"
    return f"feed `{port.name}` with {port}"
