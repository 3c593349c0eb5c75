"""ONNX Runtime's own attention says what the operators said that it stands for, and stands for nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from atinuke.compile.onnx_attention import attend_in_place
from atinuke.compile.onnx_graph import written_once
from atinuke.compile.onnx_precision import onnx_in
from atinuke.runtime.interface import Array
from atinuke.runtime.onnx import IN_PLACE, OnnxRunner
from tests.compile.deploying import Tiny


@pytest.fixture(scope="module")
def decoder() -> Tiny:
    return Tiny("llama", "d_model=32", "heads=4", "kv_heads=2", "layers=2", only=["decode"])


@pytest.fixture(scope="module")
def plain(decoder: Tiny) -> Any:
    return onnx_in(decoder.programs["decode"], decoder.work("fp32").inputs["decode"], "fp32")


def copied(model: Any) -> Any:
    return onnx.ModelProto.FromString(model.SerializeToString())


def runner(decoder: Tiny, model: Any, folder: Path) -> OnnxRunner:
    folder.mkdir()
    memory = decoder.interfaces["decode"].memory
    safe = [name for name in memory if written_once(model, name, memory[name])]
    model.metadata_props.add(key=IN_PLACE, value=" ".join(safe))
    onnx.save(model, folder / "decode.onnx")
    return OnnxRunner(folder, decoder.interfaces, decoder.axes, "fp32", 1)


def test_says_what_the_operators_said(decoder: Tiny, plain: Any, tmp_path: Path) -> None:
    fused = copied(plain)
    assert attend_in_place(fused) == 2
    onnx.checker.check_model(fused)
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("GroupQueryAttention") == 2
    assert not {"ScatterND", "Softmax", "Where", "Range"} & set(kinds)

    one, other = runner(decoder, copied(plain), tmp_path / "plain"), runner(decoder, fused, tmp_path / "fused")
    rng = np.random.default_rng(0)
    for capacity, position in ((9, [3, 0, 8]), (9, [0, 0, 0]), (1, [0]), (70, [69, 2, 33, 64])):
        empty = one.begin("decode", {"batch": len(position), "capacity": capacity})
        full = {name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in empty.items()}
        caches: list[dict[str, Array]] = [{name: array.copy() for name, array in full.items()} for _ in range(2)]
        feeds = {"input_ids": rng.integers(0, 31, (len(position), 1)), "position": np.array(position)}
        expected, found = (r.step("decode", feeds, c)["logits"] for r, c in zip((one, other), caches, strict=True))
        np.testing.assert_allclose(found, expected, atol=2e-6)
        for name in full:
            np.testing.assert_allclose(caches[1][name], caches[0][name], atol=1e-6)
            changed = {(row, place) for row, _, place, _ in np.argwhere(caches[1][name] != full[name])}
            assert changed == set(enumerate(position))


def constant(model: Any, value: float, other: float) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size == 1 and array.item() == value:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, other), tensor.name))


def kind(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        if node.op_type == old:
            node.op_type = new


def other_places(model: Any) -> None:
    """Caches are written somewhere else than at the position."""
    scatter = next(node for node in model.graph.node if node.op_type == "ScatterND")
    parts = next(node for node in model.graph.node if node.output[0] == scatter.input[1])
    parts.input[2] = parts.input[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: constant(model, float("-inf"), -1.0),
        lambda model: kind(model, "GreaterOrEqual", "Greater"),
        lambda model: kind(model, "Softmax", "LogSoftmax"),
        other_places,
    ],
)
def test_stands_for_nothing_else(plain: Any, change: Any) -> None:
    model = copied(plain)
    change(model)
    before = [node.op_type for node in model.graph.node]
    assert attend_in_place(model) == 0
    assert [node.op_type for node in model.graph.node] == before


@pytest.mark.parametrize(("sets", "window"), [(["layers=1"], 3), (["layers=1", "heads=4"], None)])
def test_windows_and_small_heads_are_left_as_they_are(sets: list[str], window: int | None) -> None:
    other = Tiny("gpt2", *sets, only=["decode"])
    for module in other.model.modules():
        if window and hasattr(module, "window"):
            module.window = window  # type: ignore[assignment]
    program, inputs = other.programs["decode"], other.work("fp32").inputs["decode"]
    assert attend_in_place(onnx_in(program, inputs, "fp32")) == 0
