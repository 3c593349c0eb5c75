"""Prints the incremental form of a class: `step` for new tokens, `state` for an empty cache, and `prepare` for what is
worked out once.

The step of a whole graph takes `last`: where only one new token of each row is wanted (the end of a prompt), what comes
behind the last node that knows positions, such as the vocabulary head, is worked out for that token alone.
"""

from functools import partial

from atinuke.compile.printing import (
    ABSENT,
    INDENT,
    Names,
    Printed,
    Wires,
    arguments,
    first_values,
    in_tuple,
    indent,
    input_wires,
    loop,
    parameters,
    results,
    run,
    tensors,
    value,
)
from atinuke.compile.step import StepPlan
from atinuke.core.checked import CheckedNode
from atinuke.core.graph import Wire


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


def prepare(cls: Printed, plan: StepPlan) -> list[str]:
    """The method that works out what does not depend on new tokens."""
    body = cls.body
    names, wires = Names(set(body.body.inputs)), input_wires(body, plan.given)
    lines = [line for name in plan.prepared for line in run(body.nodes[name], wires, names)]
    parts = [value(wires, wire) for wire in plan.kept]
    for name in plan.widths:
        node = body.nodes[name]
        ports = plan.blocks[name].given if node.instances else node.signature.prepares if node.signature else ()
        fed = ((port, value(wires, node.feeds[port][0])) for port in ports if port in node.feeds)
        calls = ", ".join(f"{port}={variable}" for port, variable in fed if variable != ABSENT)
        if node.repeated:
            parts.append(f"*(tensor for block in self.{name} for tensor in block.prepare({calls}))")
        else:
            parts.append(f"*self.{name}.prepare({calls})")
    head = f"def prepare({', '.join(['self', *parameters(body, plan.given)])}) -> tuple[Tensor, ...]:"
    return [head, *indent([*lines, f"return {in_tuple(parts)}"])]


def step(cls: Printed, plan: StepPlan) -> list[str]:
    """The method that takes new tokens."""
    return _Step(cls, plan).lines()


class _Step:
    def __init__(self, cls: Printed, plan: StepPlan) -> None:
        self.cls, self.plan = cls, plan
        reserved = {"position", "state", "last", "new", *(["prepared"] if plan.width else [])}
        self.names = Names({*cls.body.body.inputs, *reserved})
        self.wires = input_wires(cls.body, {*plan.inputs, *plan.others})
        self.selected: Wires = {}
        self.at = 0  # how many state tensors the nodes so far have
        self.taken = 0  # how many prepared tensors they have
        self.new: list[str] = []  # the state tensors that they give back

    def lines(self) -> list[str]:
        body, plan = self.cls.body, self.plan
        lines = self.keep()
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
            self.taken += plan.widths.get(name, 0)
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
        given = [f"{name}: Tensor" for name in (*self.plan.inputs, *self.plan.others)]
        memory = [f"{name}: tuple[Tensor, ...]" for name in ("state", *(["prepared"] if self.plan.width else []))]
        last = ["last: Tensor | None = None"] if self.cls.root else []
        return ", ".join(["self", *given, "position: Tensor", *memory, *last])

    def keep(self) -> list[str]:
        """Gives what `prepare` kept its variables back."""
        for wire in self.plan.kept:
            wanted = f"{wire.node}_{wire.output}" if wire.output else wire.node
            variable = wire.node if wire.node in self.cls.body.inputs else self.names.new(wanted)
            self.wires[(wire.node, wire.output or "")] = variable
        self.taken = len(self.plan.kept)
        names = [value(self.wires, wire) for wire in self.plan.kept]
        return [f"{in_tuple(names)} = prepared[:{self.taken}]"] if names else []

    def pieces(self, state: str, prepared: str) -> list[str]:
        """The arguments of a block's step beside its inputs."""
        found = ["position=position", f"state={state}"]
        return [*found, f"prepared={prepared}"] if prepared else found

    def constant(self, node: CheckedNode) -> list[str]:
        """A node that no new token reaches."""
        calls = arguments(node, partial(value, self.wires))
        got = results(node, self.wires, self.names)
        if node.repeated:
            return loop(node, got, calls, self.names)
        return [f"{', '.join(got.values())} = self.{node.name}({', '.join(calls)})"]

    def component(self, node: CheckedNode, count: int) -> list[str]:
        assert node.signature is not None
        if not node.signature.steps:
            return self.constant(node)
        ports = [port for port in node.feeds if port not in node.signature.prepares]
        feeds = {port: value(self.wires, node.feeds[port][0]) for port in ports}
        got = results(node, self.wires, self.names)
        first, *others = feeds
        calls = [feeds[first], "position"]
        fresh = [self.names.new(f"{node.name}_state_{i}") for i in range(count)]
        if fresh:
            calls.append(f"*state[{self.at}:{self.at + count}]")
        if width := self.plan.widths.get(node.name):
            calls.append(f"*prepared[{self.taken}:{self.taken + width}]")
        calls += [f"{port}={feeds[port]}" for port in others if feeds[port] != ABSENT]
        self.new += fresh
        return [f"{', '.join([*got.values(), *fresh])} = self.{node.name}.step({', '.join(calls)})"]

    def block(self, node: CheckedNode, inner: StepPlan) -> list[str]:
        got = results(node, self.wires, self.names, keep=inner.outputs)
        fed = [port for port in node.feeds if port in inner.inputs or port in inner.others]
        calls = [f"{port}={value(self.wires, node.feeds[port][0])}" for port in fed]
        targets = ", ".join(got.values())
        targets = f"({targets})" if len(got) > 1 else targets
        state = self.names.new(f"{node.name}_state")
        self.new.append(f"*{state}")
        many, wide = inner.tensors, inner.width
        if not node.repeated:
            piece = f"state[{self.at}:{self.at + many}]"
            prepared = f"prepared[{self.taken}:{self.taken + wide}]" if wide else ""
            calls += self.pieces(piece, prepared)
            return [f"{targets}, {state} = self.{node.name}.step({', '.join(calls)})"]
        lines, inside = first_values(node, got, calls, fed)
        instance, index = self.names.new(node.node.use), self.names.new("index")
        start = f"{self.at} + {many} * {index}" if self.at else f"{many} * {index}"
        lines += [
            f"{state} = ()",
            f"for {index}, {instance} in enumerate(self.{node.name}):",
            f"{INDENT}piece = state[{start} : {start} + {many}]",
        ]
        prepared = ""
        if wide:
            start = f"{self.taken} + {wide} * {index}" if self.taken else f"{wide} * {index}"
            prepared = self.names.new("known")
            lines.append(f"{INDENT}{prepared} = prepared[{start} : {start} + {wide}]")
        inside += self.pieces("piece", prepared)
        return [
            *lines,
            f"{INDENT}{targets}, new = {instance}.step({', '.join(inside)})",
            f"{INDENT}{state} = (*{state}, *new)",
        ]

    def tail(self, node: CheckedNode) -> list[str]:
        """A node behind the last one that knows positions: it sees the selected tokens only."""
        lines: list[str] = []
        calls = arguments(node, partial(self.select, lines=lines))
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
