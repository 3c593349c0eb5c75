"""What torch.export makes of a program must take every size of its axes, not those that are like the example."""

import pytest
import torch
from torch.export import ExportedProgram

from atinuke.compile.export import export
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import Program, programs
from atinuke.compile.samples import draw, example
from atinuke.core.checked import CheckedGraph

SMALL = ["layers=1", "d_model=32", "heads=2", "mels=8", "rate=8000", "samples=800..4000"]


@pytest.fixture(scope="module")
def sound() -> tuple[CheckedGraph, Program, ExportedProgram]:
    checked = open_graph("audio-encoder", SMALL)
    torch.manual_seed(0)
    program = programs(checked, build(checked))["forward"]
    return checked, program, export(program, draw(checked, program, example(program.axes)))


@pytest.mark.parametrize("samples", [800, 801, 879, 880, 959, 960, 4000])
@torch.no_grad()
def test_a_recording_may_have_any_number_of_frames(
    sound: tuple[CheckedGraph, Program, ExportedProgram], samples: int
) -> None:
    checked, program, exported = sound
    inputs = draw(checked, program, {"batch": 2, "samples": samples})
    for found, expected in zip(exported.module()(*inputs), program.module(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
