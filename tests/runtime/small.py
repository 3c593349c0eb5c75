"""Small bundles of shipped graphs, built but not certified."""

from pathlib import Path

import torch

from atinuke.compile.backends.onnx import OnnxBuilder
from atinuke.compile.builder import Work
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import Program, programs
from atinuke.compile.samples import draw, example
from atinuke.core.checked import CheckedGraph
from atinuke.runtime.bundle import Bundle, write_config
from tests.graphs.test_padding import CASES


def small_programs(name: str, *sets: str) -> tuple[CheckedGraph, dict[str, Program]]:
    """The programs of a shipped graph with few and small layers."""
    case = CASES[name]
    checked = open_graph(name, [*case.sets, *sets], case.swaps)
    torch.manual_seed(0)
    return checked, programs(checked, build(checked).eval())


def small_bundle(folder: Path, name: str, *sets: str) -> Bundle:
    """A bundle of such a graph with its ONNX files in float32."""
    checked, made = small_programs(name, *sets)
    axes = {axis: range_ for program in made.values() for axis, range_ in program.axes.items()}
    interfaces = {one: program.interface for one, program in made.items()}
    bundle = Bundle(folder, checked.graph.name, axes, interfaces, None, {}, {}, ("onnx/fp32",))
    place = bundle.place("onnx/fp32")
    place.mkdir(parents=True)
    inputs = {one: draw(checked, program, example(program.axes)) for one, program in made.items()}
    OnnxBuilder().build(Work(made, inputs, "fp32"), place)
    write_config(bundle)
    return bundle
