"""A plugin whose components go wrong where they are deployed, and a target that is built in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.compile.builder import Builder, Work
from atinuke.compile.certificate import EagerRunner
from atinuke.compile.export import export
from atinuke.compile.front import check_graph
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.core.checked import CheckedGraph
from atinuke.core.component import Component
from atinuke.core.hookspecs import hookimpl
from atinuke.core.registry import Registry
from atinuke.core.spec import load_text
from atinuke.runtime.runner import Runner

WRONG_AT = 6


class OffByOne(nn.Module):
    """Exported, it is a position off: at one length only."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"]
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        if torch.compiler.is_exporting():
            length = torch.ones_like(x[0, :, 0]).sum()
            return torch.where(length == WRONG_AT, x.roll(1, 1), x)
        return x.clone()


class LargeSquares(nn.Module):
    """A norm whose squares are beyond float16."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        large = x * 1000
        return large * torch.rsqrt((large * large).mean(-1, keepdim=True))


class HalfInside(LargeSquares):
    """The same norm, which makes itself narrow where it is exported."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x.half()).to(x.dtype) if torch.compiler.is_exporting() else super().forward(x)


@hookimpl
def atinuke_components() -> Iterable[Component]:
    for name in ("off:OffByOne", "large:LargeSquares", "half:HalfInside"):
        variant, _, cls = name.partition(":")
        yield Component(f"fault.{variant}", f"tests.compile.faults:{cls}", "A fault")


GRAPH = """atinuke: 1
name: faulty
dims: {{d_model: 8}}
axes: {{batch: 1..2, sequence: 1..9}}
inputs:
  x: float[batch, sequence, d_model]
blocks:
  layer:
    inputs: {{x: "float[batch, sequence, d_model]"}}
    nodes:
      N: {{use: "faults:fault.{fault}", in: x, with: {{d_model: $d_model}}}}
      F: {{use: feedforward.gelu, in: N, with: {{d_model: $d_model, d_ff: 16}}}}
      R: {{use: add, in: [N, F]}}
    outputs: R
nodes:
  stack: {{use: layer, in: x, repeat: 2}}
  C: {{use: norm.layer, in: stack, with: {{d_model: $d_model}}}}
outputs:
  logits: C
"""


def faulty(fault: str) -> CheckedGraph:
    """A small graph with a fault in each of its layers."""
    registry = Registry([EntryPoint("faults", "tests.compile.faults", "atinuke")])
    graph, mistakes = load_text(GRAPH.format(fault=fault), "faulty.yaml")
    return check_graph(graph, registry, mistakes)


class MemoryBuilder(Builder):
    """Exports, and writes nothing but that it was here; what it made is run by torch."""

    precisions = ("fp32", "fp16", "bf16")

    def __init__(self) -> None:
        self.made: dict[str, Program] = {}
        self.built: list[frozenset[str]] = []

    def build(self, work: Work, folder: Path) -> None:
        self.built.append(work.float32)
        (folder / "made").write_text("")
        for name, program in work.programs.items():
            if work.precision in HALVES:
                program = narrow(program, HALVES[work.precision], work.float32)
            module = export(program, work.inputs[name]).module()
            self.made[name] = replace(program, module=_Row(module))

    def open_runner(self, made: Mapping[str, Program], folder: Path) -> Runner:
        assert (folder / "made").is_file()
        return EagerRunner({name: self.made[name] for name in made})


class _Row(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(*tensors))
