"""Quantised ONNX models say what numpy says of them, run on the kernels that they are written for, and are no worse
than those of ONNX Runtime's own tool."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from atinuke.compile.onnx_graph import OnnxGraph, split_gemms, written_once
from atinuke.compile.quantise import LIMITS, WEIGHTS, group_of, quantise, to_grid
from atinuke.compile.ranges import ranges
from atinuke.core.errors import AtinukeError

VOCABULARY, WIDTH, HIDDEN = 40, 64, 96


def tied_model(d_type: type = np.float32) -> Any:
    """An embedding, a layer and a head that is tied to the embedding, as the exporter writes them."""
    rng = np.random.default_rng(0)
    stored = {
        "E": rng.standard_normal((VOCABULARY, WIDTH)),
        "up": rng.standard_normal((WIDTH, HIDDEN)) * np.linspace(0.05, 2, HIDDEN),
        "scale": np.array(2.0),
        "bias": rng.standard_normal(HIDDEN),
        "down": rng.standard_normal((HIDDEN, WIDTH)),
    }
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["e"], "E/gather"),
        helper.make_node("Mul", ["e", "scale"], ["x"], "E/scale"),
        helper.make_node("MatMul", ["x", "up"], ["u"], "F.up/matmul"),
        helper.make_node("Add", ["u", "bias"], ["h"], "F.up/add"),
        helper.make_node("Relu", ["h"], ["r"], "F/relu"),
        helper.make_node("MatMul", ["r", "down"], ["d"], "F.down/matmul"),
        helper.make_node("Transpose", ["E"], ["Et"], "O/transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["d", "Et"], ["logits"], "O/matmul"),
    ]
    return _model(nodes, {name: array.astype(d_type) for name, array in stored.items()}, "ids", "logits")


def _model(nodes: Sequence[Any], stored: dict[str, Any], given: str, output: str) -> Any:
    whole = given == "ids"
    inputs = [helper.make_tensor_value_info(given, TensorProto.INT64 if whole else TensorProto.FLOAT, ["b", "s"])]
    kind = helper.np_dtype_to_tensor_dtype(next(iter(stored.values())).dtype)
    outputs = [helper.make_tensor_value_info(output, kind, ["b", "s", "o"] if whole else ["b", "o"])]
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def made(precision: str, tables: bool = True, float32: Sequence[str] = (), calibrated: bool = False) -> Any:
    model = tied_model()
    seen = ranges(model, [{"ids": IDS}]) if calibrated else None
    quantise(model, precision, float32, seen, tables)
    onnx.checker.check_model(model)
    return model


IDS = np.arange(24).reshape(2, 12)


def run(model: Any, ids: Any = IDS) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"ids": ids})[0]


def error(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def kernels(model: Any, tmp_path: Path) -> Counter[str]:
    """The operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@given(
    arrays(np.float32, (3, 32), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from(["int8", "int4"]),
    st.sampled_from([8, 16, 32]),
)
@settings(max_examples=60, deadline=None)
def test_no_weight_is_further_from_the_grid_than_half_a_step(rows: Any, kind: str, group: int) -> None:
    numbers, scales = to_grid(rows, kind, group)
    back = numbers.astype(np.float64).reshape(3, -1, group) * scales[..., None]
    off = np.abs(back - rows.reshape(3, -1, group))
    assert (off <= scales[..., None] * (0.5 + 1e-4)).all()
    largest = np.abs(numbers.astype(np.float64)).reshape(3, -1, group).max(-1)
    assert (largest[np.abs(rows).reshape(3, -1, group).max(-1) > 1e-30] == LIMITS[kind]).all()


def test_fp8_is_within_its_three_bits_of_mantissa() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    numbers, scales = to_grid(rows, "float8_e4m3fn", 64)
    back = numbers.astype(np.float32) * scales
    normal = np.abs(rows) > scales * 2.0**-6
    assert (np.abs(back - rows) <= np.abs(rows) / 16 * (1 + 1e-5))[normal].all()
    assert np.isfinite(back).all()


@pytest.mark.parametrize(("inputs", "group"), [(768, 32), (48, 16), (8, None), (100, None)])
def test_groups_divide_the_input_axis(inputs: int, group: int | None) -> None:
    assert group_of(inputs) == group


@pytest.mark.parametrize(
    ("precision", "calibrated", "most"),
    # A step is 2/255 of the largest magnitude of normal numbers, which is about 3 deviations: 1 % a rounding, and three
    # products round both sides; 2/15 in 4 bits, of which groups of 32 have 2 deviations.
    [("int8", False, 0.04), ("int8", True, 0.04), ("int8-weights", False, 0.03), ("int4-weights", False, 0.2)],
)
@pytest.mark.parametrize("tables", [False, True])
def test_says_what_the_model_says_and_what_onnx_itself_says(
    precision: str, calibrated: bool, most: float, tables: bool
) -> None:
    model = made(precision, tables, calibrated=calibrated)
    expected, found = run(tied_model()), run(model)
    assert 1e-4 < error(found, expected) < most
    # ONNX Runtime rounds activations in groups where weights alone are quantised; ONNX itself does not.
    rounding = 0.02 if precision.endswith("-weights") else 0.005
    assert error(found, ReferenceEvaluator(model).run(None, {"ids": IDS})[0]) < rounding


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_weights_alone_are_what_numpy_makes_of_them(precision: str) -> None:
    model, plain = made(precision, tables=False), OnnxGraph(tied_model())
    found = ReferenceEvaluator(model).run(None, {"ids": IDS})[0]

    def rounded(name: str, kind: str) -> Any:
        rows = plain.array(name) if name == "E" else plain.array(name).T
        numbers, scales = to_grid(np.ascontiguousarray(rows), kind, 32)
        return (numbers.astype(np.float32).reshape(*scales.shape, 32) * scales[..., None]).reshape(rows.shape)

    kind = WEIGHTS[precision]
    h = np.maximum(2 * plain.array("E")[IDS] @ rounded("up", kind).T + plain.array("bias"), 0)
    assert error(found, h @ rounded("down", kind).T @ rounded("E", "int8").T) < 1e-5


def test_is_no_worse_than_the_tool_of_onnx_runtime(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.save(tied_model(), tmp_path / "plain.onnx")
    quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "peer.onnx", weight_type=QuantType.QInt8)
    ids = np.arange(VOCABULARY)[None]
    expected = run(tied_model(), ids)
    ours, peer = (
        np.square(run(model, ids) - expected).mean() for model in (made("int8"), onnx.load(tmp_path / "peer.onnx"))
    )
    assert ours < peer


@pytest.mark.parametrize("tables", [False, True])
def test_onnx_runtime_has_one_kernel_for_each_product(tables: bool, tmp_path: Path) -> None:
    dynamic = kernels(made("int8", tables), tmp_path)
    assert dynamic["DynamicQuantizeMatMul"] == 3
    assert not {"MatMul", "MatMulInteger", "Cast", "Add"} & dynamic.keys()
    for precision in ("int8-weights", "int4-weights"):
        alone = kernels(made(precision, tables), tmp_path)
        assert alone["MatMulNBits"] == 3
        assert not {"MatMul", "FusedMatMul", "Transpose"} & alone.keys()


def test_a_tied_table_is_stored_once_in_8_bits() -> None:
    for precision in ("int8", "int8-weights", "int4-weights"):
        stored = {tensor.name: tensor for tensor in made(precision).graph.initializer}
        tables = [tensor for tensor in stored.values() if np.prod(tensor.dims) == VOCABULARY * WIDTH]
        assert [tensor.data_type for tensor in tables] == [TensorProto.INT8]
        assert "E" not in stored
    apart = {tensor.name for tensor in made("int8", tables=False).graph.initializer}
    assert "E" in apart


def test_nodes_by_path_stay_in_float() -> None:
    stored = {tensor.name for tensor in made("int8", float32=["F.up", "O"]).graph.initializer}
    assert "up" in stored
    assert "down" not in stored
    assert error(run(made("int8", float32=["F", "O", "E"])), run(tied_model())) == 0
    # A path is whole: `F.u` is not `F.up`.
    assert "up" not in {tensor.name for tensor in made("int8", float32=["F.u"]).graph.initializer}


def test_few_outputs_stay_in_float() -> None:
    stored = {"w": np.ones((64, 8), np.float32)}
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], "router/matmul")], stored, "x", "y")
    quantise(model, "int8")
    assert [node.op_type for node in model.graph.node] == ["MatMul"]


def test_calibrated_models_have_fixed_ranges_and_no_others() -> None:
    model = made("int8", tables=False, calibrated=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] == 3
    assert operators["DequantizeLinear"] == 6
    assert "DynamicQuantizeLinear" not in operators
    seen = ranges(tied_model(), [{"ids": IDS}, {"ids": np.array([[39]])}])
    reference = ReferenceEvaluator(tied_model())
    table = OnnxGraph(tied_model()).array("E")
    assert seen["x"] == 2 * np.abs(table[[*range(24), 39]]).max()
    assert reference.run(["d"], {"ids": IDS})[0].max() <= seen["d"] * (1 + 1e-6)


def test_fp8_wants_ranges() -> None:
    with pytest.raises(AtinukeError, match="fp8 needs the ranges"):
        made("fp8")
    kinds = {tensor.data_type for tensor in made("fp8", tables=False, calibrated=True).graph.initializer}
    assert TensorProto.FLOAT8E4M3FN in kinds


def test_what_is_not_finite_cannot_calibrate() -> None:
    stored = {"w": np.ones((64, 64), np.float32)}
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], "a/matmul")], stored, "x", "y")
    with pytest.raises(AtinukeError, match="not finite"):
        ranges(model, [{"x": np.full((2, 64), np.inf, np.float32)}])


def test_scales_are_in_the_dtype_of_the_weights() -> None:
    model = tied_model(np.float16)
    quantise(model, "int8-weights")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["up.int8.scales"] == TensorProto.FLOAT16
    assert error(run(model).astype(np.float32), run(tied_model())) < 0.02


def test_a_gemm_is_quantised_as_the_product_it_is() -> None:
    rng = np.random.default_rng(2)
    stored = {"w": rng.standard_normal((96, 64)).astype(np.float32), "b": rng.standard_normal(96).astype(np.float32)}
    plain = _model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], "O/gemm", transB=1)], stored, "x", "y")
    x = rng.standard_normal((5, 64)).astype(np.float32)
    split = onnx.ModelProto.FromString(plain.SerializeToString())
    split_gemms(split)
    assert {node.op_type for node in split.graph.node} == {"Transpose", "MatMul", "Add"}
    expected = x @ stored["w"].T + stored["b"]
    assert error(ReferenceEvaluator(split).run(None, {"x": x})[0], expected) < 1e-6
    quantise(split, "int8")
    assert 0 < error(ReferenceEvaluator(split).run(None, {"x": x})[0], expected) < 0.02


def test_a_cache_may_be_written_into_only_where_nothing_else_reads_it() -> None:
    def caches(*more: Any) -> bool:
        nodes = [helper.make_node("ScatterND", ["old", "at", "new"], ["present"]), *more]
        model = helper.make_model(helper.make_graph(nodes, "g", [], []))
        return written_once(model, "old", "present")

    assert caches()
    assert caches(helper.make_node("Shape", ["old"], ["s"]))
    assert not caches(helper.make_node("Abs", ["old"], ["a"]))
    assert not written_once(
        helper.make_model(helper.make_graph([helper.make_node("Concat", ["old", "x"], ["present"])], "g", [], [])),
        "old",
        "present",
    )
