"""Which nodes of a graph are stepped, so that new tokens cost only their own work (a KV cache).

One input of whole numbers, `[batch, sequence]`, is stepped. A node that it reaches is stepped through the component's
`step`; where the component treats the sequence axis as one of its independent `*lead` axes, it is called as it is.
What depends on other inputs alone (an encoder, the keys and values of cross-attention) is worked out once, by
`prepare`, before the first step.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from atinuke.compile.meta import build_meta
from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.fit import Type
from atinuke.core.graph import Wire
from atinuke.core.signature import INTS, Shape

SEQUENCE_AXIS = 1
TEXT = "input_ids"


@dataclass(frozen=True)
class StepPlan:
    """How a body is stepped.

    Of its inputs `inputs` are stepped, `others` are read at every step besides (in a block only), and `given` are read
    by `prepare`. `outputs` are those that remain. `counts` has the nodes that run in a step and the number of their
    state tensors; `reached` are those that new tokens reach, and `tail` those of them behind which no node knows
    positions. `prepared` are the nodes that run in `prepare`; it gives what is on the wires `kept`, and then as many
    tensors for each node as `widths` says.
    """

    inputs: tuple[str, ...]
    others: tuple[str, ...]
    given: tuple[str, ...]
    outputs: tuple[str, ...]
    counts: Mapping[str, int]
    blocks: Mapping[str, "StepPlan"]
    reached: frozenset[str]
    tail: frozenset[str]
    prepared: tuple[str, ...]
    kept: tuple[Wire, ...]
    widths: Mapping[str, int]

    @property
    def tensors(self) -> int:
        """The number of state tensors of one instance of the body."""
        return sum(self.counts.values())

    @property
    def width(self) -> int:
        """The number of tensors that `prepare` of one instance gives; without any there is no `prepare`."""
        return len(self.kept) + sum(self.widths.values())


def plan_steps(checked: CheckedGraph) -> StepPlan:
    """The step form of a graph.

    Raises:
        AtinukeError: the graph has nothing to step, or a node mixes positions and has no `step`.
    """
    return _Planner(checked).plan


def can_step(checked: CheckedGraph) -> bool:
    """Whether the graph has a step form."""
    try:
        plan_steps(checked)
    except AtinukeError:
        return False
    return True


@dataclass(frozen=True)
class _Inputs:
    """Inputs of a body: some are `stepped`; others have the stepped axis too, and are `absent`; some are `given` before
    the first step, of which the `doubtful` may be left out. The rest depends on no input of the graph."""

    stepped: frozenset[str]
    absent: frozenset[str]
    given: frozenset[str]
    doubtful: frozenset[str]


class _Planner:
    def __init__(self, checked: CheckedGraph) -> None:
        self.checked = checked
        inputs = checked.body.inputs
        stepped = self.stepped()
        self.length = inputs[stepped].shape[SEQUENCE_AXIS]
        grow = {name for name, given in inputs.items() if any(dims.equal(size, self.length) for size in given.shape)}
        optional = {name for name, declared in checked.graph.inputs.items() if declared.optional}
        for name in sorted(grow - optional - {stepped}):
            raise self.cannot(f"input `{name}` is needed at every step")
        given = inputs.keys() - grow
        known = _Inputs(*map(frozenset, ({stepped}, grow - {stepped}, given, given & optional)))
        self.plan = self.body(checked.body, known, "")
        if not self.plan.outputs:
            raise self.cannot("none of its outputs has an answer for every position")

    def cannot(self, why: str, fix: str | None = None) -> AtinukeError:
        return fail(f"graph `{self.checked.graph.name}` cannot be stepped", why, fix=fix)

    def stepped(self) -> str:
        """The input of whole numbers whose sequence axis outputs have; of several the one called `input_ids`."""
        graph, body = self.checked.graph, self.checked.body
        whole = [name for name, i in graph.inputs.items() if i.dtype in INTS and len(i.shape) == 2 and not i.optional]
        if not whole:
            raise self.cannot("it has no input such as int64[batch, sequence]", "step a graph that reads tokens")
        axes = {name: body.inputs[name].shape[SEQUENCE_AXIS] for name in whole}
        answered = [name for name in whole if any(_has(given, axes[name]) for given in body.outputs.values())]
        found = answered or whole
        if len(found) > 1 and TEXT not in found:
            raise self.cannot(f"any of {', '.join(found)} could be the text", f"call the text `{TEXT}`")
        return TEXT if TEXT in found else found[0]

    def carries(self, given: Type) -> bool:
        """Whether a wire has the stepped axis."""
        return _has(given, self.length)

    def body(self, body: CheckedBody, known: _Inputs, title: str) -> StepPlan:
        outputs = tuple(name for name, given in body.outputs.items() if self.carries(given))
        now = [body.body.outputs[name] for name in outputs]  # the wires that a step reads
        once: list[Wire] = []  # those that the components' own prepare() reads
        answering = _behind(body, now)
        needed = [name for name in body.nodes if name in answering]
        reached, given = self.divide(body, known, needed, title)
        growing = reached | known.stepped
        states: dict[str, int] = {}
        widths: dict[str, int] = {}
        blocks: dict[str, StepPlan] = {}
        for name in (name for name in needed if name in reached):
            node, path = body.nodes[name], f"{title}{name}"
            feeds = {port: wires for port, wires in node.feeds.items() if wires[0].node not in known.absent}
            touched = [port for port, wires in feeds.items() if any(wire.node in growing for wire in wires)]
            if node.instances:
                inner = blocks[name] = self.block(node, feeds, touched, given, known.doubtful, path)
                states[name], widths[name] = (n * len(node.instances) for n in (inner.tensors, inner.width))
                before, after = {*inner.given}, {*inner.inputs, *inner.others}
            else:
                assert node.signature is not None
                self.require(body, node, feeds, touched, known.doubtful, path)
                states[name], widths[name] = self.tensors(node, path), node.signature.prepared
                before, after = {*node.signature.prepares}, feeds.keys() - {*node.signature.prepares}
            once += [wire for port in feeds if port in before for wire in feeds[port]]
            now += [wire for port in feeds if port in after for wire in feeds[port]]
        inside = {wire for wire in now if wire.node in given and (wire.node in body.nodes or not title)}
        kept = tuple(dict.fromkeys(wire for wire in now if wire in inside))
        before_it = _behind(body, [*kept, *once])
        constant = _behind(
            body, [wire for wire in now if wire not in inside], stop=growing | (given & body.nodes.keys())
        )
        counts = {name: states.get(name, 0) for name in needed if name in reached | constant}
        return StepPlan(
            inputs=tuple(name for name in body.inputs if name in known.stepped),
            others=tuple(name for name in body.inputs if name in constant),
            given=tuple(name for name in body.inputs if name in before_it),
            outputs=outputs,
            counts=counts,
            blocks=blocks,
            reached=frozenset(reached),
            tail=self.tail(body, reached, counts),
            prepared=tuple(name for name in needed if name in before_it),
            kept=kept,
            widths={name: width for name, width in widths.items() if width},
        )

    def divide(self, body: CheckedBody, known: _Inputs, needed: Sequence[str], title: str) -> tuple[set[str], set[str]]:
        """The nodes that new tokens reach, and the inputs and nodes that are known before. The rest is constant."""
        reached: set[str] = set()
        given = set(known.given)
        for name in needed:
            node = body.nodes[name]
            sources = {wire.node for wires in node.feeds.values() for wire in wires}
            if sources & (reached | known.stepped):
                reached.add(name)
            elif sources & known.absent:
                why = f"input `{min(sources & known.absent)}` is not there in a step"
                raise fail(f"{title}{name}: {node.node.use} cannot be stepped", why, where=node.node.where)
            elif sources & given:
                given.add(name)
        return reached, given

    def block(
        self,
        node: CheckedNode,
        feeds: Mapping[str, Sequence[Wire]],
        touched: Sequence[str],
        given: Collection[str],
        doubtful: Collection[str],
        title: str,
    ) -> StepPlan:
        inner = node.instances[0]
        known = _Inputs(
            stepped=frozenset(touched),
            absent=frozenset(inner.inputs.keys() - feeds.keys()),
            given=frozenset(port for port, wires in feeds.items() if wires[0].node in given),
            doubtful=frozenset(port for port, wires in feeds.items() if wires[0].node in doubtful),
        )
        plan = self.body(inner, known, f"{title}.")
        for port in node.carried.values():
            if port in plan.others or port in plan.given:
                why = f"`{port}` goes from one instance to the next, but not with the text"
                raise fail(f"{title}: {node.node.use} cannot be stepped", why, where=node.node.where)
        return plan

    def tail(self, body: CheckedBody, reached: Collection[str], counts: Mapping[str, int]) -> frozenset[str]:
        """The nodes behind the last ones that know positions: components without a step that feed only such nodes."""
        found: set[str] = set()
        for name in reversed(list(counts)):
            node = body.nodes[name]
            readers = {n for n in counts for wires in body.nodes[n].feeds.values() if name in {w.node for w in wires}}
            if name in reached and node.signature and not node.signature.steps and readers <= found:
                found.add(name)
        return frozenset(found)

    def require(
        self,
        body: CheckedBody,
        node: CheckedNode,
        feeds: Mapping[str, Sequence[Wire]],
        touched: Sequence[str],
        doubtful: Collection[str],
        title: str,
    ) -> None:
        assert node.signature is not None

        def refuse(why: str, fix: str) -> AtinukeError:
            return fail(f"{title}: {node.node.use} cannot be stepped", why, where=node.node.where, fix=fix)

        for port in feeds.keys() - {*node.signature.prepares}:
            if any(wire.node in doubtful for wire in feeds[port]):
                raise refuse(f"its port `{port}` is read at every step and may be left out", "give it a prepare()")
        if node.signature.steps:
            if any(len(wires) > 1 for wires in feeds.values()):
                raise refuse("its step() takes one wire a port", "join the wires before it")
            for port in touched:
                axes = [dim.name for dim in node.signature.inputs[port].shape.dims[:2]]
                if axes != ["batch", "sequence"] or port in node.signature.prepares:
                    raise refuse(
                        f"its port `{port}` grows with the text", f"feed `{port}` from what does not depend on the text"
                    )
            return
        ports = [(node.signature.inputs[port].shape, body.type_of(wire)) for port in touched for wire in feeds[port]]
        ports += [(port.shape, node.outputs[name]) for name, port in node.signature.outputs.items()]
        if not all(_independent(shape, given) or not given.shape for shape, given in ports) or not self.carries(
            next(iter(node.outputs.values()))
        ):
            why = "it may mix positions, and it has no step()"
            raise refuse(why, "give the component a step(), or use one that has it")

    def tensors(self, node: CheckedNode, title: str) -> int:
        assert node.signature is not None
        assert node.cls is not None
        if not node.signature.remembers:
            return 0
        try:
            return len(build_meta(node.cls, node.settings).state(2, 2))  # type: ignore[operator]
        except Exception as error:  # a third party's state() may raise anything
            raise fail(f"{title}: {node.node.use} cannot be stepped", str(error), where=node.node.where) from None


def _behind(body: CheckedBody, wires: Iterable[Wire], stop: Collection[str] = ()) -> set[str]:
    """The nodes and inputs that wires depend on, without those of `stop` and what only these depend on."""
    found: set[str] = set()
    waiting = [wire.node for wire in wires]
    while waiting:
        name = waiting.pop()
        if name in found or name in stop:
            continue
        found.add(name)
        if name in body.nodes:
            waiting += [wire.node for wires in body.nodes[name].feeds.values() for wire in wires]
    return found


def _has(given: Type, length: dims.Size) -> bool:
    """Whether a wire has an axis of that length in the place of a text's."""
    return len(given.shape) > SEQUENCE_AXIS and dims.equal(given.shape[SEQUENCE_AXIS], length)


def _independent(shape: Shape, given: Type) -> bool:
    """Whether the sequence axis is one of the `*lead` axes, which a component promises to treat independently."""
    lead = len(given.shape) - len(shape.dims)
    return shape.lead is not None and shape.at <= SEQUENCE_AXIS < shape.at + lead
