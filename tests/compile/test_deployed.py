"""The programs of a bundle are made of its graph and weights, or it is said what does not fit."""

from pathlib import Path

import pytest
import torch

from atinuke.compile.deployed import open_programs
from atinuke.compile.samples import draw
from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import GRAPH, WEIGHTS
from tests.compile.deploying import Tiny


@torch.no_grad()
def test_they_say_what_the_model_says(tmp_path: Path) -> None:
    tiny = Tiny("encoder-decoder")
    tiny.save(tmp_path)
    made = open_programs(tmp_path / GRAPH, tmp_path / WEIGHTS, tiny.interfaces)
    assert [*made] == ["prepare", "prefill", "decode"]
    for name, program in tiny.programs.items():
        inputs = draw(tiny.checked, program, tiny.sizes(name))
        for one, other in zip(made[name].module(*inputs), program.module(*inputs), strict=True):
            assert torch.equal(one, other)


def test_weights_and_programs_of_another_graph_are_refused(tmp_path: Path) -> None:
    tiny, other = Tiny("gpt2"), Tiny("gpt2", "d_model=32")
    tiny.save(tmp_path)
    with pytest.raises(AtinukeError, match="makes other programs"):
        open_programs(tmp_path / GRAPH, tmp_path / WEIGHTS, other.interfaces)
    (tmp_path / "other").mkdir()
    other.save(tmp_path / "other")
    with pytest.raises(AtinukeError, match="the weights do not fit the graph"):
        open_programs(tmp_path / GRAPH, tmp_path / "other" / WEIGHTS, tiny.interfaces)
    (tmp_path / WEIGHTS).write_bytes(b"\x80\x04no tensors")
    with pytest.raises(AtinukeError, match="the weights do not fit the graph"):
        open_programs(tmp_path / GRAPH, tmp_path / WEIGHTS, tiny.interfaces)
