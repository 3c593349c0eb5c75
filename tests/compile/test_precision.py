"""Half precision with islands: what comes in and goes out is float32, and nothing else is widened."""

import pytest
import torch

from atinuke.compile.front import open_graph
from atinuke.compile.module import build, parts
from atinuke.compile.precision import Computing, narrow
from atinuke.compile.programs import programs
from atinuke.compile.samples import draw, example

TIED = ("encoder", "layers=1", "d_model=16", "heads=2", "vocab_size=31", "length=32", "sequence=1..32")
DECODER = ("encoder-decoder", "layers=1", "decoder_layers=1", "d_model=16", "heads=2", "vocab_size=31")


def made(name: str, *sets: str):
    torch.manual_seed(0)
    checked = open_graph(name, sets)
    return checked, programs(checked, build(checked))


@pytest.mark.parametrize("graph", [TIED, DECODER])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_nodes_in_float32_are_the_model_itself(graph: tuple[str, ...], dtype: torch.dtype) -> None:
    checked, found = made(*graph)
    for program in found.values():
        inputs = draw(checked, program, example(program.axes))
        inputs = tuple(t.to(dtype).float() if t.is_floating_point() else t for t in inputs)
        every = [path for path, _ in parts(program.module.model)]
        wanted = program.module(*inputs)
        for one, other in zip(wanted, narrow(program, dtype, every).module(*inputs), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("graph", [TIED, DECODER])
def test_a_narrow_program_gives_float32_of_what_it_says(graph: tuple[str, ...]) -> None:
    checked, found = made(*graph)
    for program in found.values():
        inputs = draw(checked, program, example(program.axes))
        wanted = program.module(*inputs)
        for port, one, other in zip(
            program.interface.outputs, wanted, narrow(program, torch.bfloat16).module(*inputs), strict=True
        ):
            assert other.dtype == one.dtype == getattr(torch, port.dtype)
            if one.is_floating_point():
                off = (one - other).abs().max() / one.abs().max()
                assert 0 < off < 3e-2 or "mask" in port.name or not one.any()


def test_an_island_has_its_own_weights_and_the_model_keeps_its_own() -> None:
    _, found = made(*TIED)
    (program,) = found.values()
    before = {name: tensor.clone() for name, tensor in program.module.model.state_dict().items()}
    model = narrow(program, torch.float16, ["O", "norm"]).module.program.model
    assert model.O.component.weight.dtype == torch.float32
    assert model.E.component.weight.dtype == torch.float16
    assert all(isinstance(component, Computing) for _, component in parts(model))
    for name, tensor in program.module.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    both = narrow(program, torch.float16, ["O", "E"]).module.program.model
    assert both.O.component.weight is both.E.component.weight
