"""Prints a checked graph as the source of an ordinary `nn.Module` class: one class a block, one line a node.

What is printed is what runs: no registry, no YAML and no loop over nodes is left, only a loop over the instances of a
repeated block, which all share one class so that `torch.compile` compiles it once.
"""

import ast
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atinuke.compile.step import StepPlan
from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.graph import Wire
from atinuke.core.spec import reference

INDENT = "    "


@dataclass
class Source:
    """Generated source: `text`, the name of the class for the whole graph, and the classes that it imports by name."""

    text: str
    name: str
    imports: Mapping[str, type]


def emit(checked: CheckedGraph, plan: StepPlan | None) -> Source:
    """The source of a graph; with a step plan its classes have `step` and `state` beside `forward`."""
    return _Emitter(checked, plan).source()


@dataclass
class _Class:
    """A class to be printed: a body, how it is stepped, and whether it depends on its index."""

    name: str
    body: CheckedBody
    plan: StepPlan | None
    indexed: bool


@dataclass
class _Names:
    """Gives every thing a name of its own within a scope."""

    taken: set[str] = field(default_factory=set)

    def new(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.taken or keyword.iskeyword(name):
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name


class _Emitter:
    def __init__(self, checked: CheckedGraph, plan: StepPlan | None) -> None:
        self.checked = checked
        self.names = _Names({"Output", "StepOutput", "NamedTuple", "Tensor", "nn", "torch"})
        self.components: dict[type, str] = {}
        self.classes: dict[tuple[str, str], _Class] = {}
        self.root = _Class(self.names.new(_camel(checked.graph.name)), checked.body, plan, indexed=False)

    def source(self) -> Source:
        self.collect(self.root)
        parts = [self.outputs("Output", self.checked.body.outputs)]
        plan = self.root.plan
        self.step_output = "Output"
        if plan and set(plan.outputs) != set(self.checked.body.outputs):
            self.step_output = "StepOutput"
            parts.append(self.outputs("StepOutput", {name: self.checked.body.outputs[name] for name in plan.outputs}))
        parts += [self.print_class(cls) for cls in (*self.classes.values(), self.root)]
        used = "\n".join(parts)
        head = ["from typing import NamedTuple", ""]
        head += ["import torch"] if "torch." in used else []
        head += ["from torch import Tensor, nn", ""]
        modules: dict[str, list[str]] = {}
        for cls, name in self.components.items():
            alias = cls.__name__ if cls.__name__ == name else f"{cls.__name__} as {name}"
            modules.setdefault(cls.__module__, []).append(alias)
        head += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(modules.items())]
        doc = f'"""Graph `{self.checked.graph.name}`, printed by Atinuke."""\n'
        text = "\n".join([doc, *head]) + "\n\n\n" + "\n\n\n".join(parts) + "\n"
        return Source(text, self.root.name, {name: cls for cls, name in self.components.items()})

    def collect(self, cls: _Class) -> None:
        """Finds the classes that a class needs, innermost first."""
        for name, node in cls.body.nodes.items():
            if node.cls is not None:
                if node.cls not in self.components:
                    self.components[node.cls] = self.names.new(node.cls.__name__)
                continue
            key = self.key(node)
            if key not in self.classes:
                inner = node.instances[0]
                plan = cls.plan.blocks.get(name) if cls.plan else None
                block = _Class(self.names.new(_camel(node.node.use)), inner, plan, _depends_on_index(inner))
                self.collect(block)
                self.classes[key] = block

    def key(self, node: CheckedNode) -> tuple[str, str]:
        return node.node.use, repr(sorted(node.settings.items()))

    def outputs(self, name: str, outputs: Mapping[str, Any]) -> str:
        lines = [f"class {name}(NamedTuple):"]
        lines += [f"{INDENT}{output}: Tensor  # {given}" for output, given in outputs.items()]
        return "\n".join(lines)

    def print_class(self, cls: _Class) -> str:
        lines = [f"class {cls.name}(nn.Module):", *_indent(self.init(cls)), "", *_indent(self.forward(cls))]
        if cls.plan is not None:
            lines += ["", *_indent(self.step(cls, cls.plan)), "", *_indent(self.state(cls, cls.plan))]
        return "\n".join(lines)

    # __init__

    def init(self, cls: _Class) -> list[str]:
        lines = [f"def __init__(self{', index: int' if cls.indexed else ''}) -> None:", f"{INDENT}super().__init__()"]
        for name, node in cls.body.nodes.items():
            lines.append(f"{INDENT}self.{name} = {self.construct(cls, node)}")
            lines += [f"{INDENT}self.{name}.{own} = self.{target}" for own, target in node.node.tie.items()]
        return lines

    def construct(self, cls: _Class, node: CheckedNode) -> str:
        if node.cls is not None:
            assert node.signature is not None
            given = {
                k: v for k, v in node.settings.items() if k in node.node.settings or node.signature.settings[k].required
            }
            arguments = [f"{k}={self.setting(cls, node.node.settings.get(k), v)}" for k, v in given.items()]
            return f"{self.components[node.cls]}({', '.join(arguments)})"
        block = self.classes[self.key(node)]
        if not node.repeated:
            return f"{block.name}({'0' if block.indexed else ''})"
        index = "index" if block.indexed else "_"
        return (
            f"nn.ModuleList({block.name}({index if block.indexed else ''}) for {index} in range({len(node.instances)}))"
        )

    def setting(self, cls: _Class, written: Any, value: Any) -> str:
        """A setting as Python; one that depends on the index of the instance stays an expression in `index`."""
        text = reference(written) if isinstance(written, str) else None
        if text is None or "index" not in dims.names(dims.parse(text)):
            return repr(list(value) if isinstance(value, tuple) else value)
        tree = _Substitute(cls.body.scope).visit(ast.parse(text.strip(), mode="eval"))
        return ast.unparse(tree)

    # forward

    def forward(self, cls: _Class) -> list[str]:
        names = _Names(set(cls.body.body.inputs))
        required = [f"{name}: Tensor" for name, i in cls.body.body.inputs.items() if not i.optional]
        optional = [f"{name}: Tensor | None = None" for name, i in cls.body.body.inputs.items() if i.optional]
        returns = "Output" if cls is self.root else _returns(len(cls.body.outputs))
        lines = [f"def forward({', '.join(['self', *required, *optional])}) -> {returns}:"]
        wires: dict[tuple[str, str], str] = {(name, ""): name for name in cls.body.body.inputs}
        for name, node in cls.body.nodes.items():
            arguments = self.arguments(node, wires)
            results = self.results(node, name, wires, names)
            if not node.repeated:
                call = f"{', '.join(results.values())} = self.{name}({', '.join(arguments)})"
                lines.append(f"{INDENT}{call}  # {_types(node)}")
            else:
                lines += _indent(self.loop(node, name, names, results, arguments, wires))
        values = [wires[_source(wire)] for wire in cls.body.body.outputs.values()]
        if cls is self.root:
            values = [f"Output({', '.join(values)})"]
        lines.append(f"{INDENT}return {', '.join(values)}")
        return lines

    def loop(
        self,
        node: CheckedNode,
        name: str,
        names: _Names,
        results: Mapping[str, str],
        arguments: list[str],
        wires: Mapping[tuple[str, str], str],
    ) -> list[str]:
        """A repeated block: carried outputs go from instance to instance, the others are collected and stacked."""
        instance = names.new(node.node.use)
        lines: list[str] = []
        fed = self.carry(node, results, arguments, wires, lines)
        stacked = {output: var for output, var in results.items() if output not in node.carried}
        each = {output: names.new(f"each_{var}") for output, var in stacked.items()}
        lines += [f"{var} = []" for var in stacked.values()]
        targets = [each.get(output, var) for output, var in results.items()]
        lines.append(f"for {instance} in self.{name}:")
        lines.append(f"{INDENT}{', '.join(targets)} = {instance}({', '.join(fed)})  # {_types(node)}")
        lines += [f"{INDENT}{var}.append({each[output]})" for output, var in stacked.items()]
        lines += [f"{var} = torch.stack({var})" for var in stacked.values()]
        return lines

    def carry(
        self,
        node: CheckedNode,
        results: Mapping[str, str],
        arguments: list[str],
        wires: Mapping[tuple[str, str], str],
        lines: list[str],
    ) -> list[str]:
        """Assigns the carried variables their first values; returns the arguments of the call inside the loop."""
        fed = list(arguments)
        ports = list(node.feeds)
        for output, port in node.carried.items():
            first = arguments[ports.index(port)].rpartition("=")[2]
            lines.append(f"{results[output]} = {first}")
            at = ports.index(port)
            fed[at] = fed[at].removesuffix(first) + results[output]
        return fed

    def arguments(self, node: CheckedNode, wires: Mapping[tuple[str, str], str]) -> list[str]:
        """The arguments of a call: positional as long as the ports follow one another, then by name."""
        order = list(node.signature.inputs) if node.signature else list(node.instances[0].body.inputs)
        found: list[str] = []
        positional = True
        for port in order:
            if port not in node.feeds:
                positional = False
                continue
            for wire in node.feeds[port]:
                value = wires[_source(wire)]
                found.append(value if positional else f"{port}={value}")
        return found

    def results(
        self,
        node: CheckedNode,
        name: str,
        wires: dict[tuple[str, str], str],
        names: _Names,
        keep: Iterable[str] | None = None,
    ) -> dict[str, str]:
        """Names for what a node gives; registers them as wires."""
        outputs = list(node.outputs)
        found: dict[str, str] = {}
        for i, output in enumerate(outputs):
            if keep is not None and output not in keep:
                continue
            variable = names.new(name if i == 0 else f"{name}_{output}")
            found[output] = variable
            wires[(name, output)] = variable
            if i == 0:
                wires[(name, "")] = variable
        return found

    # step

    def step(self, cls: _Class, plan: StepPlan) -> list[str]:
        names = _Names({*cls.body.body.inputs, "position", "state", "new"})
        inputs = [f"{name}: Tensor" for name in plan.inputs]
        others = [
            f"{name}: Tensor"
            for name in cls.body.body.inputs
            if name not in plan.inputs and self.constant(cls, plan, name)
        ]
        returns = self.step_output if cls is self.root else _returns(len(plan.outputs))
        signature = ", ".join(["self", *inputs, *others, "position: Tensor", "state: tuple[Tensor, ...]"])
        lines = [f"def step({signature}) -> tuple[{returns}, tuple[Tensor, ...]]:"]
        wires: dict[tuple[str, str], str] = {(name, ""): name for name in cls.body.body.inputs}
        at = 0
        news: list[str] = []
        for name, count in plan.counts.items():
            node = cls.body.nodes[name]
            if node.instances:
                lines += _indent(self.step_block(node, name, plan.blocks.get(name), wires, names, at, news))
            else:
                lines += _indent(self.step_component(node, name, count, plan, wires, names, at, news))
            at += count
        values = [wires[_source(cls.body.body.outputs[name])] for name in plan.outputs]
        result = f"{self.step_output}({', '.join(values)})" if cls is self.root else ", ".join(values)
        if cls is not self.root and len(values) > 1:
            result = f"({result})"
        lines.append(f"{INDENT}return {result}, {_tuple(news)}")
        return lines

    def constant(self, cls: _Class, plan: StepPlan, name: str) -> bool:
        """Whether a block's input that is not stepped is used in its step form."""
        used = {wire.node for node in plan.counts for wires in cls.body.nodes[node].feeds.values() for wire in wires}
        return name in used and cls is not self.root

    def step_component(
        self,
        node: CheckedNode,
        name: str,
        count: int,
        plan: StepPlan,
        wires: dict[tuple[str, str], str],
        names: _Names,
        at: int,
        news: list[str],
    ) -> list[str]:
        assert node.signature is not None
        stepped = any(wire.node in plan.inputs or wire.node in plan.counts for ws in node.feeds.values() for wire in ws)
        feeds = {
            port: ws
            for port, ws in node.feeds.items()
            if all(
                (wire.node in plan.inputs) or (wire.node in plan.counts) or not node.signature.inputs[port].optional
                for wire in ws
            )
        }
        values = {port: [wires[_source(wire)] for wire in ws] for port, ws in feeds.items()}
        results = self.results(node, name, wires, names)
        if not (node.signature.steps and stepped):
            arguments = [value for port in values.values() for value in port]
            return [f"{', '.join(results.values())} = self.{name}({', '.join(arguments)})"]
        first, *rest = values
        arguments = [*values[first], "position"]
        fresh: list[str] = []
        if count:
            arguments.append(f"*state[{at}:{at + count}]")
            fresh = [names.new(f"{name}_state_{i}") for i in range(count)]
        arguments += [f"{port}={values[port][0]}" for port in rest]
        news += fresh
        return [f"{', '.join([*results.values(), *fresh])} = self.{name}.step({', '.join(arguments)})"]

    def step_block(
        self,
        node: CheckedNode,
        name: str,
        inner: StepPlan | None,
        wires: dict[tuple[str, str], str],
        names: _Names,
        at: int,
        news: list[str],
    ) -> list[str]:
        block = self.classes[self.key(node)]
        if inner is None:  # nothing stepped comes in
            results = self.results(node, name, wires, names)
            arguments = self.arguments(node, wires)
            if not node.repeated:
                return [f"{', '.join(results.values())} = self.{name}({', '.join(arguments)})"]
            return self.loop(node, name, names, results, arguments, wires)
        results = self.results(node, name, wires, names, keep=inner.outputs)
        order = [*inner.inputs, *(p for p in node.feeds if p not in inner.inputs and self.constant(block, inner, p))]
        arguments = [wires[_source(node.feeds[port][0])] for port in order]
        width = inner.tensors
        targets = ", ".join(results.values())
        if len(results) > 1:
            targets = f"({targets})"
        if not node.repeated:
            state = names.new(f"{name}_state")
            news.append(f"*{state}")
            return [
                f"{targets}, {state} = self.{name}.step({', '.join(arguments)}, position, state[{at}:{at + width}])"
            ]
        lines: list[str] = []
        fed = list(arguments)
        for output, port in node.carried.items():
            if output in results and port in order:
                lines.append(f"{results[output]} = {arguments[order.index(port)]}")
                fed[order.index(port)] = results[output]
        stacked = [output for output in results if output not in node.carried]
        if stacked:
            raise AssertionError("a stacked output cannot carry the stepped axis")
        state, instance = names.new(f"{name}_state"), names.new(node.node.use)
        index = names.new("index")
        start = f"{at} + {width} * {index}" if at else f"{width} * {index}"
        lines.append(f"{state} = ()")
        lines.append(f"for {index}, {instance} in enumerate(self.{name}):")
        piece = f"state[{start} : {start} + {width}]"
        lines.append(f"{INDENT}{targets}, new = {instance}.step({', '.join(fed)}, position, {piece})")
        lines.append(f"{INDENT}{state} = (*{state}, *new)")
        news.append(f"*{state}")
        return lines

    def state(self, cls: _Class, plan: StepPlan) -> list[str]:
        parts: list[str] = []
        for name, count in plan.counts.items():
            node = cls.body.nodes[name]
            if not count:
                continue
            if node.repeated:
                block = node.node.use
                parts.append(f"*(tensor for {block} in self.{name} for tensor in {block}.state(batch, capacity))")
            else:
                parts.append(f"*self.{name}.state(batch, capacity)")
        lines = ["def state(self, batch: int, capacity: int) -> tuple[Tensor, ...]:"]
        return [*lines, f"{INDENT}return {_tuple(parts)}"]


class _Substitute(ast.NodeTransformer):
    """Puts the values of the dims into an expression, all but `index`."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node if node.id == "index" or node.id not in self.scope else ast.Constant(self.scope[node.id])


def _depends_on_index(body: CheckedBody) -> bool:
    """Whether some setting in a body names `$index`."""
    written = [value for node in body.nodes.values() if node.cls for value in node.node.settings.values()]
    texts = [text for value in written if isinstance(value, str) and (text := reference(value)) is not None]
    return any("index" in dims.names(dims.parse(text)) for text in texts)


def _source(wire: Wire) -> tuple[str, str]:
    return wire.node, wire.output or ""


def _types(node: CheckedNode) -> str:
    return ", ".join(map(str, node.outputs.values()))


def _returns(count: int) -> str:
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"


def _tuple(parts: list[str]) -> str:
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name) if part)


def _indent(lines: Iterable[str]) -> list[str]:
    return [INDENT + line if line else line for line in lines]
