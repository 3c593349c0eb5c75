"""Model repositories for Triton: parsed back with Triton's own `model_config.proto`, and held against the files."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import Interface, Port, settled
from atinuke.runtime.triton import Scheduling, export_triton, most_rows
from tests.runtime.programs import AXES, ROWS, STEPS, bundle_of


@pytest.fixture(scope="session")
def proto() -> ModuleType:
    """Triton's configuration as a protobuf message. The package around it would import gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient is not installed")
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(proto: ModuleType, folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), proto.ModelConfig())


def shape(tensor: Any) -> list[int]:
    """The shape without the batch that the model has behind the interface."""
    return list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)


def test_a_configuration_says_what_the_interface_says(tmp_path: Path, proto: ModuleType) -> None:
    served = export_triton(bundle_of(tmp_path / "b", ROWS), "onnx/fp32", tmp_path / "models", Scheduling(2, "cpu", 300))
    assert [(one.name, one.program, one.rows) for one in served] == [("little", "forward", 4)]
    config = parsed(proto, tmp_path / "models" / "little")
    assert (config.name, config.backend, config.platform) == ("little", "onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 4
    assert [(one.count, one.kind) for one in config.instance_group] == [(2, proto.ModelInstanceGroup.KIND_CPU)]
    assert config.dynamic_batching.max_queue_delay_microseconds == 300
    pixels, mask = config.input
    assert (pixels.name, pixels.data_type, shape(pixels)) == ("pixels", proto.TYPE_UINT8, [3, -1])
    assert (mask.data_type, list(mask.dims), shape(mask)) == (proto.TYPE_BOOL, [1], [])
    scores, frames, best = config.output
    assert (scores.data_type, shape(scores)) == (proto.TYPE_FP32, [4])
    assert (frames.data_type, shape(frames)) == (proto.TYPE_FP32, [-1])
    assert (best.data_type, list(best.dims), shape(best)) == (proto.TYPE_INT64, [1], [])
    assert (tmp_path / "models" / "little" / "1" / "model.onnx").is_file()


def test_an_encoder_and_the_first_step_are_an_ensemble(tmp_path: Path, proto: ModuleType) -> None:
    """The rules of Triton's ensemble scheduler: every input of a step is fed once, with the type and shape that the
    model declares, and every output has one source."""
    export_triton(bundle_of(tmp_path / "b", STEPS), "onnx/fp32", tmp_path / "models")
    models = {path.name: parsed(proto, path) for path in (tmp_path / "models").iterdir()}
    assert set(models) == {"little_prepare", "little_prefill", "little_decode", "little_begin"}
    whole = models["little_begin"]
    assert whole.platform == "ensemble"
    assert not whole.instance_group
    assert not whole.HasField("dynamic_batching")
    assert (tmp_path / "models" / "little_begin" / "1").is_dir()
    known = {one.name: (one.data_type, list(one.dims)) for one in whole.input}
    for step in whole.ensemble_scheduling.step:
        model = models[step.model_name]
        assert whole.max_batch_size <= model.max_batch_size
        assert set(step.input_map) == {one.name for one in model.input}
        for one in model.input:
            assert known[step.input_map[one.name]] == (one.data_type, list(one.dims))
        for one in model.output:
            assert step.output_map[one.name] not in known
            known[step.output_map[one.name]] = (one.data_type, list(one.dims))
    given = {one.name: (one.data_type, list(one.dims)) for one in whole.output}
    assert given.items() <= known.items()
    needed = {one.name for one in models["little_decode"].input} - {"input_ids", "position", "past.0"}
    assert needed <= given.keys(), "what decode goes on from"
    assert not any(one.HasField("reshape") for one in whole.input), "Triton compares an ensemble's reshape with dims"


@pytest.mark.parametrize(
    "wrong",
    [
        Port("pixels", "float32", ("batch", 3, "sequence")),
        Port("pixels", "uint8", ("batch", 3)),
        Port("pixels", "uint8", ("batch", 5, "sequence")),
        Port("pixels", "uint8", ("batch", "free", "sequence")),
        Port("pixels", "uint8", ("batch", 3, "length")),
        Port("frames", "float32", ("batch", "sequence")),
        Port("scores", "float32", ("batch", 5)),
        Port("scores", "int64", ("batch", "fixed + 1")),
        Port("best", "int64", (1,)),
    ],
    ids=str,
)
def test_one_wrong_tensor_is_an_error_and_leaves_nothing(tmp_path: Path, wrong: Port) -> None:
    bundle = bundle_of(tmp_path / "b", ROWS, **{wrong.name: wrong})
    with pytest.raises(AtinukeError, match=f"`{wrong.name}: .*is another in the file"):
        export_triton(bundle, "onnx/fp32", tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_missing_and_an_unknown_tensor_are_told_at_once(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "b", ROWS)
    pixels, mask = ROWS["forward"].inputs
    renamed = replace(ROWS["forward"], inputs=(replace(pixels, name="pixel_values"), mask))
    with pytest.raises(AtinukeError) as error:
        export_triton(replace(bundle, programs={"forward": renamed}), "onnx/fp32", tmp_path / "models")
    assert "has input `pixels" in str(error.value)
    assert "has no input `pixel_values" in str(error.value)


def test_weights_beside_the_model_make_it_a_folder(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "b", ROWS)
    (bundle.place("onnx/fp32") / "forward.onnx.data").write_bytes(b"weights")
    export_triton(bundle, "onnx/fp32", tmp_path / "models")
    version = tmp_path / "models" / "little" / "1"
    names = [str(path.relative_to(version)) for path in sorted(version.rglob("*")) if path.is_file()]
    assert names == ["model.onnx/forward.onnx.data", "model.onnx/model.onnx"]


@pytest.mark.parametrize(
    ("shape", "low", "expected"),
    [
        (("batch", 3), 1, 4),
        (("batch", 3), 2, 0),  # one row alone would be refused by the model, not by Triton
        (("batch", "batch"), 1, 0),  # every row with every other
        (("batch", "2*batch"), 1, 0),
        ((3, "batch"), 1, 0),
        ((), 1, 0),
    ],
)
def test_rows_are_put_together_only_where_they_are_independent(shape: Any, low: int, expected: int) -> None:
    one = Interface((Port("x", "float32", ("batch", 2)),), (Port("y", "float32", shape),), {})
    assert most_rows([one], {"batch": (low, 4)}) == expected


def test_a_model_of_rows_that_meet_is_called_with_its_batch(tmp_path: Path, proto: ModuleType) -> None:
    every = Interface((Port("x", "float32", ("batch", 2)),), (Port("y", "float32", ("batch", "batch")),), {})
    bundle = bundle_of(tmp_path / "b", {"forward": every})
    export_triton(bundle, "onnx/fp32", tmp_path / "models")
    config = parsed(proto, tmp_path / "models" / "little")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([-1, 2], [-1, -1])
    with pytest.raises(AtinukeError, match="not put together"):
        export_triton(bundle, "onnx/fp32", tmp_path / "other", Scheduling(delay=10))


@pytest.mark.parametrize(
    ("build", "scheduling", "told"),
    [
        ("onnx/int8", Scheduling(), "no `onnx/int8`"),
        ("openvino/fp32", Scheduling(), "cannot be told not to"),
        ("aot/fp32", Scheduling(), "beta"),
        ("executorch/fp32", Scheduling(), "it serves builds for"),
        ("onnx/fp32", Scheduling(instances=0), "instances must be at least 1"),
        ("onnx/fp32", Scheduling(delay=-1), "delay must be at least 0"),
        ("openvino/bf16", Scheduling(device="gpu"), "GPU"),
    ],
)
def test_what_triton_cannot_serve_is_refused(tmp_path: Path, build: str, scheduling: Scheduling, told: str) -> None:
    builds = ("onnx/fp32", "openvino/fp32", "openvino/bf16", "aot/fp32", "executorch/fp32")
    bundle = Bundle(tmp_path / "b", "little", AXES, ROWS, None, {}, {}, builds)
    with pytest.raises(AtinukeError, match=told):
        export_triton(bundle, build, tmp_path / "models", scheduling)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(AtinukeError, match="is there already"):
        export_triton(bundle_of(tmp_path / "b", ROWS), "onnx/fp32", tmp_path / "models")


def test_openvino_is_served_without_batches(tmp_path: Path, proto: ModuleType) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    bundle = bundle_of(tmp_path / "b", ROWS, "openvino/bf16")
    file = bundle.place("openvino/bf16") / "forward.onnx"
    openvino.save_model(openvino.convert_model(str(file)), file.with_suffix(".xml"), compress_to_fp16=False)
    file.unlink()
    (served,) = export_triton(bundle, "openvino/bf16", tmp_path / "models")
    config = parsed(proto, tmp_path / "models" / "little")
    assert (served.rows, config.max_batch_size, config.backend) == (0, 0, "openvino")
    assert config.parameters["HINT_BF16"].string_value == "YES"
    assert list(config.input[0].dims) == [-1, 3, -1]
    assert {path.name for path in (tmp_path / "models" / "little" / "1").iterdir()} == {"model.xml", "model.bin"}


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_plans_of_classic_tensorrt_are_served_and_no_others(tmp_path: Path, proto: ModuleType, library: str) -> None:
    bundle = Bundle(tmp_path / "b", "little", AXES, ROWS, None, {}, {}, ("tensorrt/fp16",))
    place = bundle.place("tensorrt/fp16")
    place.mkdir(parents=True)
    engine = {"file": "forward.sm90.engine", "size": 4, "capabilities": [90], "later": False}
    manifest = {"library": library, "version": "11.0", "engines": {"forward": [engine]}}
    (place / "engine.json").write_text(json.dumps(manifest))
    (place / "forward.sm90.engine").write_bytes(b"plan")
    names = {"uint8": "UINT8", "bool": "BOOL", "float32": "FLOAT", "int64": "INT64"}
    told: dict[str, list[Any]] = {
        way: [
            {"name": one.name, "dtype": names[one.dtype], "shape": [settled(size, AXES) or -1 for size in one.shape]}
            for one in ports
        ]
        for way, ports in (("inputs", ROWS["forward"].inputs), ("outputs", ROWS["forward"].outputs))
    }
    network = {"program": "forward", "profile": {}, "layers": []}
    (place / "forward.layers.json").write_text(json.dumps({**network, **told}))
    if library != "tensorrt":
        with pytest.raises(AtinukeError, match="cannot serve engines of tensorrt_rtx"):
            export_triton(bundle, "tensorrt/fp16", tmp_path / "models")
        return
    export_triton(bundle, "tensorrt/fp16", tmp_path / "models", Scheduling(device="gpu"))
    config = parsed(proto, tmp_path / "models" / "little")
    assert (config.platform, config.backend, config.max_batch_size) == ("tensorrt_plan", "tensorrt", 4)
    assert config.instance_group[0].kind == proto.ModelInstanceGroup.KIND_GPU
    assert [path.name for path in (tmp_path / "models" / "little" / "1").iterdir()] == ["model.plan"]
    told["inputs"][0]["dtype"] = "FLOAT"
    (place / "forward.layers.json").write_text(json.dumps({**network, **told}))
    with pytest.raises(AtinukeError, match=r"`pixels: .*is another in the file"):
        export_triton(bundle, "tensorrt/fp16", tmp_path / "others")


ENGINE = {"file": "forward.engine", "size": 4, "capabilities": [90], "later": False}
LIBRARY = {"library": "tensorrt", "version": "11.0"}


@pytest.mark.parametrize(
    ("manifest", "layers", "told"),
    [
        ("{", "{}", "is not strict JSON"),
        ({**LIBRARY, "engines": {"forward": [{**ENGINE, "file": "../../../secret.engine"}]}}, "{}", "a file's name"),
        ({**LIBRARY, "engines": {"forward": [{**ENGINE, "size": 5}]}}, "{}", "is damaged: it has 4 bytes of 5"),
        ({**LIBRARY, "engines": {"forward": []}}, "{}", "must be a list"),
        ({**LIBRARY, "engines": {"decode": [ENGINE]}}, "{}", "there is no engine of `forward`"),
        ({**LIBRARY, "engines": {"forward": [ENGINE]}}, None, "there is no such file"),
        ({**LIBRARY, "engines": {"forward": [ENGINE]}}, "[]", "must be a mapping"),
        ({**LIBRARY, "engines": {"forward": [ENGINE]}}, '{"inputs": NaN}', "NaN is not a number"),
    ],
)
def test_a_manifest_of_engines_is_not_believed(tmp_path: Path, manifest: Any, layers: str | None, told: str) -> None:
    bundle = Bundle(tmp_path / "b", "little", AXES, ROWS, None, {}, {}, ("tensorrt/fp16",))
    place = bundle.place("tensorrt/fp16")
    place.mkdir(parents=True)
    for file in (place / "forward.engine", tmp_path / "b" / "secret.engine"):
        file.write_bytes(b"plan")
    (place / "engine.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    if layers is not None:
        (place / "forward.layers.json").write_text(layers)
    with pytest.raises(AtinukeError, match=told):
        export_triton(bundle, "tensorrt/fp16", tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
