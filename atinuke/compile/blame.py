"""Which node it is whose output leaves the budget: every node's output becomes an output of the program, the program is
built once more like that, and the first one that is off, in the order of execution, is named."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.builder import Builder, Work
from atinuke.compile.certificate import Feeds
from atinuke.compile.module import exchange, parts
from atinuke.compile.programs import Program
from atinuke.core.checked import CheckedBody, CheckedGraph
from atinuke.core.errors import Place
from atinuke.runtime.comparison import differ
from atinuke.runtime.interface import Port
from atinuke.runtime.parity import Difference
from atinuke.runtime.runner import Runner


@dataclass(frozen=True)
class Blame:
    """The first node that is off. `path` leads to it (`stack.3.H`), `kind` to it in all instances of repeated blocks
    (`stack.*.H`)."""

    path: str
    kind: str
    use: str
    where: Place | None
    difference: Difference

    def __str__(self) -> str:
        return f"{self.path} ({self.use})"


def first_off(
    checked: CheckedGraph,
    program: Program,
    feeds: Feeds,
    budget: float,
    builder: Builder,
    work: Work,
    folder: Path,
    open_runner: Callable[[Mapping[str, Program], Path], Runner],
) -> Blame | None:
    """The first node of a program whose output leaves the budget in a build for the same target, or None: then what is
    off is not there when every node's output is looked at. `folder` is empty and may be written to."""
    taps = Taps()
    tensors = tuple(torch.from_numpy(feeds[port.name]) for port in program.interface.inputs)
    tapped = with_taps(program, tensors, taps)
    with torch.no_grad():
        wanted = tapped.module(*tensors)
    builder.build(replace(work, programs={program.name: tapped}), folder)
    got = open_runner({program.name: tapped}, folder).run(program.name, feeds)
    nodes = known_nodes(checked.body)
    ports = zip(tapped.interface.outputs, wanted, strict=True)
    for port, tensor in list(ports)[len(program.interface.outputs) :]:
        found = differ(port, tensor.numpy(), got[port.name])
        if found.fault or not found.relative <= budget:
            path = taps.names[port.name]
            use, where = nodes[path]
            return Blame(path, kind_of(path), use, where, found)
    return None


def kind_of(path: str) -> str:
    """A path without the numbers of instances: `stack.3.H` is `stack.*.H`."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def paths_of(checked: CheckedGraph, kind: str) -> frozenset[str]:
    """The paths of all nodes of a kind."""
    return frozenset(path for path in known_nodes(checked.body) if kind_of(path) == kind)


def known_nodes(body: CheckedBody, title: str = "") -> dict[str, tuple[str, Place | None]]:
    """The component of every path, and where the graph's file says so."""
    found: dict[str, tuple[str, Place | None]] = {}
    for name, node in body.nodes.items():
        if node.cls is not None:
            found[f"{title}{name}"] = (node.node.use, node.node.where)
        for number, inner in enumerate(node.instances):
            found |= known_nodes(inner, f"{title}{name}.{number}." if node.repeated else f"{title}{name}.")
    return found


class Taps:
    """What the nodes gave in one call, in order; the same object in every copy of a program."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Tensor]] = []
        self.names: dict[str, str] = {}

    def __deepcopy__(self, memo: Any) -> "Taps":
        return self

    def note(self, path: str, value: Any) -> None:
        for tensor in value if isinstance(value, tuple) else (value,):
            self.found.append((path, tensor.clone()))  # a later node may write into it


def with_taps(program: Program, inputs: tuple[Tensor, ...], taps: Taps) -> Program:
    """The program with the outputs of all nodes behind its own, in the order of execution; `taps.names` has the node of
    each new output."""
    module: Any = copy.deepcopy(program.module, {id(weight): weight for weight in program.module.parameters()})
    for path, component in list(parts(module.model)):
        exchange(module.model, path, _Tap(path, component, taps))
    taps.found.clear()
    with torch.no_grad():
        module(*inputs)
    ports = []
    for place, (path, tensor) in enumerate(taps.found):
        name = f"tap_{place}"
        dtype = "float32" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
        ports.append(Port(name, dtype, tuple(f"{name}_{axis}" for axis in range(tensor.ndim))))
        taps.names[name] = path
    interface = replace(program.interface, outputs=(*program.interface.outputs, *ports))
    return replace(program, module=_Tapped(module, taps), interface=interface)


class _Tapped(nn.Module):
    def __init__(self, program: Any, taps: Taps) -> None:
        super().__init__()
        self.program = program
        self.taps = taps

    @property
    def model(self) -> Any:
        return self.program.model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self.taps.found.clear()
        outputs = tuple(self.program(*tensors))
        found = tuple(tensor for _, tensor in self.taps.found)
        self.taps.found.clear()
        return (*outputs, *found)


class _Tap(nn.Module):
    def __init__(self, path: str, component: Any, taps: Taps) -> None:
        super().__init__()
        self.path = path
        self.component = component
        self.taps = taps

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self._note(self.component(*inputs, **named))

    def step(self, *inputs: Any, **named: Any) -> Any:
        return self._note(self.component.step(*inputs, **named))

    def prepare(self, *inputs: Any, **named: Any) -> Any:
        return self._note(self.component.prepare(*inputs, **named))

    def state(self, batch: int, capacity: int) -> Any:
        return self.component.state(batch, capacity)

    def _note(self, value: Any) -> Any:
        self.taps.note(self.path, value)
        return value
