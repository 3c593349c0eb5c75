"""The programs of a bundle, made again from its graph and its weights: no code comes out of a bundle."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor

from atinuke.compile.front import open_graph
from atinuke.compile.in_place import in_place
from atinuke.compile.inductor import compile_program
from atinuke.compile.module import build
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program, programs
from atinuke.core.errors import fail, first_line
from atinuke.runtime.bundle import GRAPH, WEIGHTS
from atinuke.runtime.interface import Interface


def open_programs(graph: Path, weights: Path, interfaces: Mapping[str, Interface]) -> dict[str, Program]:
    """The programs that have these interfaces, in float32.

    Raises:
        AtinukeError: the graph or the weights cannot be read, do not belong together, or make other programs.
    """
    checked = open_graph(str(graph))
    model = build(checked)
    try:
        load_model(model, weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise fail("the weights do not fit the graph", first_line(error), where=str(weights)) from None
    taken = {port.name for interface in interfaces.values() for port in interface.inputs}
    without = [name for name, given in checked.graph.inputs.items() if given.optional and name not in taken]
    made = programs(checked, model, "forward" not in interfaces, without)
    if {name: program.interface for name, program in made.items()} != dict(interfaces):
        raise fail("the graph makes other programs than the bundle has", where=str(graph), fix="compile again")
    return made


def compile_programs(
    bundle: Path, interfaces: Mapping[str, Interface], precision: str, float32: Collection[str]
) -> dict[str, Callable[..., tuple[Tensor, ...]]]:
    """The programs of a bundle for torch.compile; they write into their caches, and errors are those of
    `open_programs`."""
    made = open_programs(bundle / GRAPH, bundle / WEIGHTS, interfaces)
    if precision in HALVES:
        made = {name: narrow(program, HALVES[precision], float32) for name, program in made.items()}
    return {name: compile_program(in_place(program).module) for name, program in made.items()}
