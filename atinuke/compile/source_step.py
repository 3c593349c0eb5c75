"""Prints the incremental form of a class: `step` for new tokens and `state` for an empty cache.

The step of a whole graph takes `last`: where only one new token of each row is wanted (the end of a prompt), what comes
behind the last node that knows positions, such as the vocabulary head, is worked out for that token alone.
"""

from collections.abc import Mapping

from atinuke.compile.printing import (
    INDENT,
    Names,
    Printed,
    Wires,
    arguments,
    block_key,
    first_values,
    in_tuple,
    indent,
    input_wires,
    loop,
    results,
    tensors,
    value,
)
from atinuke.compile.step import StepPlan
from atinuke.core.checked import CheckedNode
from atinuke.core.graph import Wire

Blocks = Mapping[tuple[str, str], Printed]


def state(cls: Printed, plan: StepPlan) -> list[str]:
    """The method that makes an empty cache."""
    parts: list[str] = []
    for name, count in plan.counts.items():
        node = cls.body.nodes[name]
        if count and node.repeated:
            parts.append(f"*(tensor for block in self.{name} for tensor in block.state(batch, capacity))")
        elif count:
            parts.append(f"*self.{name}.state(batch, capacity)")
    head = "def state(self, batch: int, capacity: int) -> tuple[Tensor, ...]:"
    return [head, f"{INDENT}return {in_tuple(parts)}"]


def step(cls: Printed, plan: StepPlan, blocks: Blocks) -> list[str]:
    """The method that takes new tokens."""
    return _Step(cls, plan, blocks).lines()


class _Step:
    def __init__(self, cls: Printed, plan: StepPlan, blocks: Blocks) -> None:
        self.cls, self.plan, self.blocks = cls, plan, blocks
        self.names = Names({*cls.body.body.inputs, "position", "state", "last", "new"})
        self.wires = input_wires(cls.body)
        self.selected: Wires = {}
        self.at = 0  # how many state tensors the nodes so far have
        self.new: list[str] = []  # the state tensors that they give back

    def lines(self) -> list[str]:
        body, plan = self.cls.body, self.plan
        lines: list[str] = []
        for name, count in plan.counts.items():
            node = body.nodes[name]
            if self.cls.root and name in plan.tail:
                lines += self.tail(node)
            elif name not in plan.reached:
                lines += self.constant(node)
            elif node.instances:
                lines += self.block(node, plan.blocks[name])
            else:
                lines += self.component(node, count)
            self.at += count
        wanted = [body.body.outputs[name] for name in plan.outputs]
        values = [self.select(wire, lines) if self.cls.root else value(self.wires, wire) for wire in wanted]
        returns = tensors(len(values))
        result = values[0] if len(values) == 1 else f"({', '.join(values)})"
        if self.cls.root:
            returns = "Output" if len(plan.outputs) == len(body.outputs) else "StepOutput"
            result = f"{returns}({', '.join(values)})"
        lines.append(f"return {result}, {in_tuple(self.new)}")
        return [f"def step({self.signature()}) -> tuple[{returns}, tuple[Tensor, ...]]:", *indent(lines)]

    def signature(self) -> str:
        given = [f"{name}: Tensor" for name in step_inputs(self.cls, self.plan)]
        last = ["last: Tensor | None = None"] if self.cls.root else []
        return ", ".join(["self", *given, "position: Tensor", "state: tuple[Tensor, ...]", *last])

    def constant(self, node: CheckedNode) -> list[str]:
        """A node that no new token reaches."""
        calls = arguments(node, self.wires)
        got = results(node, self.wires, self.names)
        if node.repeated:
            return loop(node, got, calls, self.names)
        return [f"{', '.join(got.values())} = self.{node.name}({', '.join(calls)})"]

    def component(self, node: CheckedNode, count: int) -> list[str]:
        assert node.signature is not None
        if not node.signature.steps:
            return self.constant(node)
        feeds = {port: value(self.wires, wires[0]) for port, wires in node.feeds.items() if self.is_there(wires[0])}
        got = results(node, self.wires, self.names)
        first, *others = feeds
        calls = [feeds[first], "position"]
        fresh = [self.names.new(f"{node.name}_state_{i}") for i in range(count)]
        if fresh:
            calls.append(f"*state[{self.at}:{self.at + count}]")
        calls += [f"{port}={feeds[port]}" for port in others]
        self.new += fresh
        return [f"{', '.join([*got.values(), *fresh])} = self.{node.name}.step({', '.join(calls)})"]

    def is_there(self, wire: Wire) -> bool:
        """Whether a wire carries something in the step form: optional inputs of the graph, such as masks, do not."""
        return wire.node in self.plan.counts or wire.node in step_inputs(self.cls, self.plan)

    def block(self, node: CheckedNode, inner: StepPlan) -> list[str]:
        got = results(node, self.wires, self.names, keep=inner.outputs)
        given = step_inputs(self.blocks[block_key(node)], inner)
        calls = [f"{port}={value(self.wires, node.feeds[port][0])}" for port in node.feeds if port in given]
        targets = ", ".join(got.values())
        targets = f"({targets})" if len(got) > 1 else targets
        state = self.names.new(f"{node.name}_state")
        self.new.append(f"*{state}")
        width = inner.tensors
        if not node.repeated:
            piece = f"state[{self.at}:{self.at + width}]"
            return [f"{targets}, {state} = self.{node.name}.step({', '.join(calls)}, position=position, state={piece})"]
        fed = {port: wires for port, wires in node.feeds.items() if port in given}
        lines, inside = first_values(node, got, calls, list(fed))
        instance, index = self.names.new(node.node.use), self.names.new("index")
        start = f"{self.at} + {width} * {index}" if self.at else f"{width} * {index}"
        return [
            *lines,
            f"{state} = ()",
            f"for {index}, {instance} in enumerate(self.{node.name}):",
            f"{INDENT}piece = state[{start} : {start} + {width}]",
            f"{INDENT}{targets}, new = {instance}.step({', '.join(inside)}, position=position, state=piece)",
            f"{INDENT}{state} = (*{state}, *new)",
        ]

    def tail(self, node: CheckedNode) -> list[str]:
        """A node behind the last one that knows positions: it sees the selected tokens only."""
        lines: list[str] = []
        calls = [self.select(wire, lines) for wires in node.feeds.values() for wire in wires]
        got = results(node, self.wires, self.names)
        return [*lines, f"{', '.join(got.values())} = self.{node.name}({', '.join(calls)})"]

    def select(self, wire: Wire, lines: list[str]) -> str:
        """The variable of a wire, with only the wanted token of each row; selects where the wire enters the tail."""
        variable = value(self.wires, wire)
        if wire.node in self.plan.tail or wire.node not in {*self.plan.reached, *self.plan.inputs}:
            return variable
        key = (wire.node, wire.output or "")
        if key not in self.selected:
            self.selected[key] = self.names.new(f"{variable}_last")
            rows = f"torch.arange({variable}.shape[0], device={variable}.device)"
            lines.append(f"{self.selected[key]} = {variable} if last is None else {variable}[{rows}, last][:, None]")
        return self.selected[key]


def step_inputs(cls: Printed, plan: StepPlan) -> list[str]:
    """The inputs of a class in its step form: the stepped ones, and in a block the others that its nodes use."""
    used = {wire.node for name in plan.counts for wires in cls.body.nodes[name].feeds.values() for wire in wires}
    others = [name for name in cls.body.inputs if name in used and name not in plan.inputs and not cls.root]
    return [*plan.inputs, *others]
