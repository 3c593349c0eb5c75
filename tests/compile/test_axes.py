"""One declaration of axes, in the graph, drives what is exported, ONNX names, TensorRT profiles and Triton's dims."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atinuke.compile.export import export
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.compile.onnx_file import onnx_model
from atinuke.compile.programs import Program, programs
from atinuke.compile.samples import draw, example
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.triton import export_triton
from tests.compile.deploying import SMALL

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")


class Compiled:
    """What the four say of an encoder whose second axis has this name and these sizes."""

    def __init__(self, folder: Path, rows: int, name: str, low: int, high: int) -> None:
        text = dump(open_graph("encoder", [*SMALL, f"batch=1..{rows}", f"sequence={low}..{high}"]).graph)
        folder.mkdir()
        (folder / "graph.yaml").write_text(text.replace("sequence", name), encoding="utf-8")
        checked = open_graph(str(folder / "graph.yaml"))
        torch.manual_seed(0)
        self.program: Program = programs(checked, build(checked).eval())["forward"]
        inputs = draw(checked, self.program, example(self.program.axes))
        self.ranges = {
            (int(one.lower), int(one.upper)) for one in export(self.program, inputs).range_constraints.values()
        }
        model = onnx_model(self.program, inputs)
        self.onnx = {value.name: _sizes(value) for value in [*model.graph.input, *model.graph.output]}
        bundle = Bundle(
            folder, "little", self.program.axes, {"forward": self.program.interface}, None, {}, {}, ("onnx/fp32",)
        )
        bundle.place("onnx/fp32").mkdir(parents=True)
        onnx.save(model, bundle.place("onnx/fp32") / "forward.onnx")
        export_triton(bundle, "onnx/fp32", folder / "models")
        self.triton = (folder / "models" / "little" / "config.pbtxt").read_text(encoding="utf-8")


def _sizes(value: Any) -> list[Any]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(tmp_path_factory.mktemp("axes") / "first", 3, "sequence", 1, 16)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(tmp_path_factory.mktemp("axes") / "second", 5, "words", 2, 24)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(tmp_path_factory.mktemp("axes") / "single", 3, "words", 8, 8)


def test_what_is_exported_has_the_ranges(first: Compiled, second: Compiled, single: Compiled) -> None:
    assert first.ranges == {(1, 3), (1, 16)}
    assert second.ranges == {(1, 5), (2, 24)}
    assert single.ranges == {(1, 3)}


def test_onnx_files_have_the_names(first: Compiled, second: Compiled, single: Compiled) -> None:
    for found, size in ((first, "sequence"), (second, "words"), (single, 8)):
        assert found.onnx["input_ids"] == found.onnx["attention_mask"] == ["batch", size]
        assert found.onnx["last_hidden_state"] == ["batch", size, 16]


def test_tensorrt_profiles_have_the_ends(first: Compiled, second: Compiled, single: Compiled) -> None:
    tensorrt = pytest.importorskip("atinuke.compile.backends.tensorrt", reason="there is no TensorRT builder")
    ends = ((first, [1, 1], [3, 16]), (second, [1, 2], [5, 24]), (single, [1, 8], [3, 8]))
    for found, least, most in ends:
        shapes = tensorrt.profile(found.program)["input_ids"]
        assert (shapes["min"], shapes["max"]) == (least, most)


def test_triton_has_the_rows_and_the_free_dims(first: Compiled, second: Compiled, single: Compiled) -> None:
    told = ((first, 3, "sequence 1..16", -1), (second, 5, "words 2..24", -1), (single, 3, "words 8..8", 8))
    for found, rows, sizes, dim in told:
        assert f"max_batch_size: {rows}\n" in found.triton
        assert sizes in found.triton
        assert 'name: "input_ids"' in found.triton
        assert f"dims: [ {dim} ]\n" in found.triton
        assert f"dims: [ {dim}, 16 ]\n" in found.triton


def test_a_size_outside_is_refused_with_the_name_of_its_axis(first: Compiled, second: Compiled) -> None:
    for found, rows, length, told in (
        (first, 4, 16, "axis `batch` must be 1..3"),
        (first, 3, 17, "axis `sequence` must be 1..16"),
        (second, 5, 25, "axis `words` must be 2..24"),
        (second, 5, 1, "axis `words` must be 2..24"),
    ):
        interface = found.program.interface
        feeds = {port.name: np.zeros((rows, length), port.dtype) for port in interface.inputs}
        with pytest.raises(AtinukeError, match=told):
            interface.check(feeds, found.program.axes)
