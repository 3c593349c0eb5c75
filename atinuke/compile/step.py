"""Which nodes of a graph are stepped, so that new tokens cost only their own work (a KV cache).

The stepped input is the graph's first input of whole numbers, `[batch, sequence]`. A node that it reaches is stepped
through the component's `step`; where the component treats the sequence axis as one of its independent `*lead` axes, it
is called as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from atinuke.compile.meta import build_meta
from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.fit import Type
from atinuke.core.signature import INTS, Shape

SEQUENCE_AXIS = 1


@dataclass(frozen=True)
class StepPlan:
    """How a body is stepped.

    `inputs` are the stepped ones, `outputs` those that remain; `counts` has the nodes that run and the number of their
    state tensors; `reached` are those that new tokens reach, and `tail` those of them behind which no node knows
    positions.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    counts: Mapping[str, int]
    blocks: Mapping[str, "StepPlan"]
    reached: frozenset[str]
    tail: frozenset[str]

    @property
    def tensors(self) -> int:
        """The number of state tensors of one instance of the body."""
        return sum(self.counts.values())


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


class _Planner:
    def __init__(self, checked: CheckedGraph) -> None:
        inputs = checked.graph.inputs
        stepped = next((name for name, i in inputs.items() if i.dtype in INTS and len(i.shape) == 2), None)
        if stepped is None:
            raise fail(
                f"graph `{checked.graph.name}` cannot be stepped",
                "it has no input such as int64[batch, sequence]",
                fix="step a graph that reads tokens",
            )
        for name, declared in inputs.items():
            if name != stepped and not declared.optional:
                raise fail(f"graph `{checked.graph.name}` cannot be stepped", f"input `{name}` is needed at every step")
        self.name = checked.graph.name
        self.length = checked.body.inputs[stepped].shape[SEQUENCE_AXIS]
        self.plan = self.body(checked.body, (stepped,), "")
        if not self.plan.outputs:
            raise fail(f"graph `{self.name}` cannot be stepped", "none of its outputs has an answer for every position")

    def carries(self, given: Type) -> bool:
        """Whether a wire has the stepped axis."""
        return len(given.shape) > SEQUENCE_AXIS and dims.equal(given.shape[SEQUENCE_AXIS], self.length)

    def body(self, body: CheckedBody, stepped: tuple[str, ...], title: str) -> StepPlan:
        outputs = tuple(name for name, given in body.outputs.items() if self.carries(given))
        needed = self.needed(body, outputs)
        reached = set(stepped)
        counts: dict[str, int] = {}
        blocks: dict[str, StepPlan] = {}
        for name, node in body.nodes.items():
            if name not in needed:
                continue
            touched = [port for port, wires in node.feeds.items() if any(wire.node in reached for wire in wires)]
            if not touched:
                counts[name] = 0
                continue
            reached.add(name)
            if node.instances:
                blocks[name] = self.body(node.instances[0], tuple(touched), f"{title}{name}.")
                counts[name] = blocks[name].tensors * len(node.instances)
            else:
                self.require(body, node, touched, f"{title}{name}")
                counts[name] = self.tensors(node, f"{title}{name}")
        reached -= set(stepped)
        return StepPlan(stepped, outputs, counts, blocks, frozenset(reached), self.tail(body, reached, counts))

    def tail(self, body: CheckedBody, reached: set[str], counts: Mapping[str, int]) -> frozenset[str]:
        """The nodes behind the last ones that know positions: components without a step that feed only such nodes."""
        found: set[str] = set()
        for name in reversed(list(counts)):
            node = body.nodes[name]
            readers = {n for n in counts for wires in body.nodes[n].feeds.values() if name in {w.node for w in wires}}
            if name in reached and node.signature and not node.signature.steps and readers <= found:
                found.add(name)
        return frozenset(found)

    def needed(self, body: CheckedBody, outputs: tuple[str, ...]) -> set[str]:
        """The nodes that some remaining output depends on."""
        found: set[str] = set()
        waiting = [body.body.outputs[name].node for name in outputs]
        while waiting:
            name = waiting.pop()
            if name in body.nodes and name not in found:
                found.add(name)
                waiting += [wire.node for wires in body.nodes[name].feeds.values() for wire in wires]
        return found

    def require(self, body: CheckedBody, node: CheckedNode, touched: list[str], title: str) -> None:
        assert node.signature is not None
        if node.signature.steps:
            if any(len(wires) > 1 for wires in node.feeds.values()):
                raise fail(
                    f"{title}: {node.node.use} cannot be stepped",
                    "its step() takes one wire a port",
                    where=node.node.where,
                    fix="join the wires before it",
                )
            for port in touched:
                if [dim.name for dim in node.signature.inputs[port].shape.dims[:2]] != ["batch", "sequence"]:
                    raise fail(
                        f"{title}: {node.node.use} cannot be stepped",
                        f"its port `{port}` grows with the text",
                        where=node.node.where,
                        fix=f"feed `{port}` from what does not depend on the text",
                    )
            return
        ports = [
            (node.signature.inputs[port].shape, body.type_of(wire)) for port in touched for wire in node.feeds[port]
        ]
        ports += [(port.shape, node.outputs[name]) for name, port in node.signature.outputs.items()]
        if all(_independent(shape, given) or not given.shape for shape, given in ports) and self.carries(
            next(iter(node.outputs.values()))
        ):
            return
        raise fail(
            f"{title}: {node.node.use} cannot be stepped",
            "it may mix positions, and it has no step()",
            where=node.node.where,
            fix="give the component a step(), or use one that has it",
        )

    def tensors(self, node: CheckedNode, title: str) -> int:
        assert node.signature is not None
        assert node.cls is not None
        if not node.signature.remembers:
            return 0
        try:
            return len(build_meta(node.cls, node.settings).state(2, 2))  # type: ignore[operator]
        except Exception as error:  # a third party's state() may raise anything
            raise fail(f"{title}: {node.node.use} cannot be stepped", str(error), where=node.node.where) from None


def _independent(shape: Shape, given: Type) -> bool:
    """Whether the sequence axis is one of the `*lead` axes, which a component promises to treat independently."""
    lead = len(given.shape) - len(shape.dims)
    return shape.lead is not None and shape.at <= SEQUENCE_AXIS < shape.at + lead
