"""The files of the target onnx: any tool opens them, programs share weights, and what cannot be is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atinuke.compile.backends.onnx import OnnxBuilder
from atinuke.compile.onnx_precision import PRECISIONS, onnx_in
from atinuke.compile.onnx_save import PAGE, save_shared
from atinuke.core.errors import AtinukeError
from atinuke.runtime.onnx import IN_PLACE, OnnxRunner
from atinuke.runtime.sizes import sizes
from tests.compile.deploying import Tiny

MOST = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.05, "int8-weights": 0.04, "int4-weights": 0.25}


@pytest.fixture(scope="module")
def decoder() -> Tiny:
    return Tiny("gpt2", "d_model=32", "vocab_size=64", only=["decode"])


@pytest.fixture(scope="module")
def built(decoder: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    for precision in MOST:
        (folder / precision).mkdir()
        OnnxBuilder().build(decoder.work(precision), folder / precision)
    return folder


@pytest.mark.parametrize("precision", MOST)
def test_every_precision_says_what_the_model_says(precision: str, decoder: Tiny, built: Path) -> None:
    runner = OnnxRunner(built / precision, decoder.interfaces, decoder.axes, precision, 1)
    assert decoder.worst(runner, 1, 5) < MOST[precision]


def test_a_narrower_precision_takes_less_room(built: Path) -> None:
    found = sizes(built)
    assert list(found) == sorted(MOST)
    assert found["fp32"] > found["fp16"]
    assert found["int8"] > found["int4-weights"]
    assert found["fp32"] == sum(file.stat().st_size for file in (built / "fp32").iterdir())


def test_files_pass_the_checker_and_name_their_nodes(built: Path, decoder: Tiny) -> None:
    for file in built.glob("*/*.onnx"):
        onnx.checker.check_model(file)
        names = [node.name for node in onnx.load(file, load_external_data=False).graph.node]
        assert len(names) == len(set(names))
        assert any(name.startswith("stack.0.H.qkv/") for name in names)


def test_caches_are_marked_where_they_may_be_written_into(built: Path, decoder: Tiny) -> None:
    def marked(precision: str) -> list[str]:
        model = onnx.load(built / precision / "decode.onnx", load_external_data=False)
        return {entry.key: entry.value for entry in model.metadata_props}[IN_PLACE].split()

    assert marked("fp32") == list(decoder.interfaces["decode"].memory)
    assert marked("int8") == list(decoder.interfaces["decode"].memory)
    assert marked("fp16") == []  # caches in float32 are cast on their way in and out


def test_float32_nodes_are_left_in_float32(decoder: Tiny) -> None:
    program, inputs = decoder.programs["decode"], decoder.work("fp32").inputs["decode"]
    model = onnx_in(program, inputs, "int8", ["stack.0.F"])
    stored = {node.name.partition("/")[0] for node in model.graph.node if node.op_type == "MatMulInteger"}
    plain = {node.name.partition("/")[0] for node in model.graph.node if node.op_type == "MatMul"}
    assert {"stack.0.H.qkv", "stack.0.H.output", "O"} == stored
    assert {"stack.0.F.up", "stack.0.F.down"} <= plain


def test_what_onnx_runtime_cannot_do_is_refused(decoder: Tiny) -> None:
    for precision in PRECISIONS:
        refusal = OnnxBuilder().refusal(decoder.work(precision))
        assert (refusal is None) == (precision in OnnxBuilder.precisions)
    program, inputs = decoder.programs["decode"], decoder.work("fp32").inputs["decode"]
    with pytest.raises(AtinukeError, match="no precision `int2`"):
        onnx_in(program, inputs, "int2")
    with pytest.raises(AtinukeError, match="the rest in fp32"):
        onnx_in(program, inputs, "int8", rest="fp16")


def test_equal_arrays_are_on_disk_once(tmp_path: Path) -> None:
    same = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    def model(name: str, *arrays: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> onnx.ModelProto:
        stored = [numpy_helper.from_array(array, f"{name}{i}") for i, array in enumerate(arrays)]
        nodes = [helper.make_node("Identity", [tensor.name], [f"out.{tensor.name}"]) for tensor in stored]
        outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes]
        return helper.make_model(helper.make_graph(nodes, name, [], outputs, stored))

    save_shared({"a": model("a", same, same + 1), "b": model("b", same + 1, same, same + 2)}, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "weights.bin"]
    weights = (tmp_path / "weights.bin").stat().st_size
    assert weights == 3 * same.nbytes
    assert same.nbytes % PAGE == 0
    read = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer]
    for found, expected in zip(read, (same + 1, same, same + 2), strict=True):
        np.testing.assert_array_equal(found, expected)

    alone = tmp_path / "alone"
    alone.mkdir()
    save_shared({"forward": model("a", same)}, alone)
    assert [file.name for file in alone.iterdir()] == ["forward.onnx"]
