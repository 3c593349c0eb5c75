"""Prints a checked graph as the source of an ordinary `nn.Module` class: one class a block, one line a node.

What is printed is what runs: no registry, no YAML and no loop over nodes is left, only a loop over the instances of a
repeated block, which all share one class so that `torch.compile` compiles it once.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atinuke.compile import source_step
from atinuke.compile.lora import LoRALinear
from atinuke.compile.printing import (
    Names,
    Printed,
    block_key,
    camel,
    indent,
    input_wires,
    parameters,
    run,
    tensors,
    value,
)
from atinuke.compile.step import StepPlan
from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.fit import Type
from atinuke.core.lora import LoRA
from atinuke.core.scope import names_index
from atinuke.core.spec import reference


@dataclass
class Source:
    """Generated source: `text`, the name of the class for the whole graph, and the classes that it imports by name."""

    text: str
    name: str
    imports: Mapping[str, type]


def emit(checked: CheckedGraph, plan: StepPlan | None) -> Source:
    """The source of a graph; with a step plan its classes have `step` and `state` beside `forward`, and `prepare` where
    something is worked out once."""
    return _Emitter(checked, plan).source()


class _Emitter:
    def __init__(self, checked: CheckedGraph, plan: StepPlan | None) -> None:
        self.checked = checked
        self.names = Names({"Output", "StepOutput", "NamedTuple", "Tensor", "nn", "torch"})
        self.components: dict[type, str] = {}
        self.blocks: dict[tuple[str, str], Printed] = {}
        name = self.names.new(camel(checked.graph.name))
        self.root = Printed(name, checked.body, plan, indexed=False, root=True)
        self.collect(self.root)

    def collect(self, cls: Printed) -> None:
        """Finds the classes that a class needs, innermost first."""
        for name, node in cls.body.nodes.items():
            if node.cls is not None:
                if node.cls not in self.components:
                    self.components[node.cls] = self.names.new(node.cls.__name__)
                if node.lora and LoRALinear not in self.components:
                    self.components[LoRALinear] = self.names.new(LoRALinear.__name__)
            elif block_key(node) not in self.blocks:
                inner, plan = node.instances[0], cls.plan.blocks.get(name) if cls.plan else None
                block = Printed(self.names.new(camel(node.node.use)), inner, plan, _depends_on_index(inner))
                self.collect(block)
                self.blocks[block_key(node)] = block

    def source(self) -> Source:
        outputs, plan = self.checked.body.outputs, self.root.plan
        parts = [_named_tuple("Output", outputs)]
        if plan and len(plan.outputs) < len(outputs):
            parts.append(_named_tuple("StepOutput", {name: outputs[name] for name in plan.outputs}))
        parts += map(self.print, (*self.blocks.values(), self.root))
        text = "\n\n\n".join(["\n".join(self.head(parts)), *parts]) + "\n"
        return Source(text, self.root.name, {name: cls for cls, name in self.components.items()})

    def head(self, parts: list[str]) -> list[str]:
        """The docstring and the imports."""
        modules: dict[str, list[str]] = {}
        for cls, name in self.components.items():
            alias = cls.__name__ if cls.__name__ == name else f"{cls.__name__} as {name}"
            modules.setdefault(cls.__module__, []).append(alias)
        return [
            f'"""Graph `{self.checked.graph.name}`, printed by Atinuke."""',
            "",
            "from typing import NamedTuple",
            "",
            *(["import torch"] if any("torch." in part for part in parts) else []),
            "from torch import Tensor, nn",
            "",
            *(f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(modules.items())),
        ]

    def print(self, cls: Printed) -> str:
        lines = [*self.init(cls), "", *self.forward(cls)]
        if cls.plan is not None:
            lines += ["", *source_step.step(cls, cls.plan), "", *source_step.state(cls, cls.plan)]
            if cls.plan.width:
                lines += ["", *source_step.prepare(cls, cls.plan)]
        return "\n".join([f"class {cls.name}(nn.Module):", *indent(lines)])

    def init(self, cls: Printed) -> list[str]:
        lines = ["super().__init__()"]
        for name, node in cls.body.nodes.items():
            lines.append(f"self.{name} = {self.construct(cls, node)}")
            lines += [self.low_rank(name, *update) for update in node.lora.items()]
            lines += [f"self.{name}.{own} = self.{target}" for own, target in node.node.tie.items()]
        return [f"def __init__(self{', index: int' if cls.indexed else ''}) -> None:", *indent(lines)]

    def construct(self, cls: Printed, node: CheckedNode) -> str:
        if node.cls is not None:
            written = node.node.settings
            given = [f"{name}={_setting(cls, written[name], node.settings[name])}" for name in written]
            return f"{self.components[node.cls]}({', '.join(given)})"
        block = self.blocks[block_key(node)]
        if not node.repeated:
            return f"{block.name}({'0' if block.indexed else ''})"
        index = "index" if block.indexed else "_"
        one = f"{block.name}({index if block.indexed else ''})"
        return f"nn.ModuleList({one} for {index} in range({len(node.instances)}))"

    def low_rank(self, node: str, name: str, lora: LoRA) -> str:
        """The line that gives a linear map of a component its low-rank update."""
        path = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in (node, *name.split(".")))
        more = f", parts={list(lora.parts)}" if lora.parts else ""
        more += f", dropout={lora.dropout}" if lora.dropout else ""
        update = f"{self.components[LoRALinear]}(self{path}, rank={lora.rank}, alpha={lora.alpha}{more})"
        return f"self{path} = {update}"

    def forward(self, cls: Printed) -> list[str]:
        names = Names(set(cls.body.body.inputs))
        wires = input_wires(cls.body)
        given = parameters(cls.body, cls.body.body.inputs)
        lines = [line for node in cls.body.nodes.values() for line in run(node, wires, names)]
        values = ", ".join(value(wires, wire) for wire in cls.body.body.outputs.values())
        lines.append(f"return Output({values})" if cls.root else f"return {values}")
        returns = "Output" if cls.root else tensors(len(cls.body.outputs))
        return [f"def forward({', '.join(['self', *given])}) -> {returns}:", *indent(lines)]


def _named_tuple(name: str, outputs: Mapping[str, Type]) -> str:
    lines = [f"{output}: Tensor  # {given}" for output, given in outputs.items()]
    return "\n".join([f"class {name}(NamedTuple):", *indent(lines)])


def _setting(cls: Printed, written: Any, given: Any) -> str:
    """A setting as Python; one that depends on the index of the instance stays an expression in `index`."""
    if isinstance(written, tuple):
        return f"[{', '.join(_setting(cls, part, value) for part, value in zip(written, given, strict=True))}]"
    text = reference(written) if isinstance(written, str) else None
    if text is None or "index" not in dims.names(dims.parse(text)):
        return repr(given)
    return ast.unparse(_Substitute(cls.body.scope).visit(ast.parse(text.strip(), mode="eval")))


class _Substitute(ast.NodeTransformer):
    """Puts the values of the dims into an expression, all but `index`."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node if node.id == "index" or node.id not in self.scope else ast.Constant(self.scope[node.id])


def _depends_on_index(body: CheckedBody) -> bool:
    """Whether some setting in a body names `$index`."""
    written = [setting for node in body.nodes.values() if node.cls for setting in node.node.settings.values()]
    return any(names_index(setting) for setting in written)
