"""TensorRT's engines are built without a GPU, for the sizes that the graph declares, and say what they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

from atinuke.compile.backends.tensorrt import PORTABLE, TensorRTBuilder, profile
from atinuke.compile.builder import Work
from atinuke.compile.programs import Program
from atinuke.core.errors import AtinukeError
from atinuke.runtime.cuda import driver
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.runner import NotHereError
from atinuke.runtime.tensorrt import TensorRTRunner, read_manifest
from atinuke.runtime.tensorrt_library import library
from tests.compile.deploying import Tiny


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny("gpt2", "batch=1..4", "sequence=1..64", only=["decode"])


@pytest.fixture(scope="module")
def portable(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portable")
    TensorRTBuilder().build(tiny.work("fp32"), folder)
    return folder


def test_one_portable_engine_and_what_is_in_it(tiny: Tiny, portable: Path) -> None:
    manifest = read_manifest(portable)
    (engine,) = manifest.engines["decode"]
    assert (manifest.library, manifest.version) == ("tensorrt_rtx", library("tensorrt_rtx").version)
    assert (engine.file, engine.capabilities, engine.later) == ("decode.engine", PORTABLE, True)
    assert engine.size == (portable / "decode.engine").stat().st_size

    network = json.loads((portable / "decode.layers.json").read_text())
    assert [one["name"] for one in network["inputs"]] == [port.name for port in tiny.interfaces["decode"].inputs]
    assert [one["name"] for one in network["outputs"]] == [port.name for port in tiny.interfaces["decode"].outputs]
    assert network["inputs"][0] == {"name": "input_ids", "dtype": "INT64", "shape": [-1, 1]}
    assert {"MATRIX_MULTIPLY", "SOFTMAX"} <= {layer["type"] for layer in network["layers"]}
    assert network["profile"]["past_key_values.0.key"] == {
        "min": [1, 2, 1, 8],
        "opt": [2, 2, 8, 8],
        "max": [4, 2, 64, 8],
    }


def test_one_engine_for_each_capability(tiny: Tiny, tmp_path: Path) -> None:
    capabilities = (80, 86, 89, 120)
    TensorRTBuilder().build(replace(tiny.work("fp16"), capabilities=capabilities), tmp_path)
    engines = read_manifest(tmp_path).engines["decode"]
    assert [(one.file, one.capabilities, one.later) for one in engines] == [
        (f"decode.sm{one}.engine", (one,), False) for one in capabilities
    ]
    assert len({(tmp_path / one.file).read_bytes() for one in engines}) == len(capabilities)


def test_a_portable_engine_in_fp8_is_for_those_that_have_it(tiny: Tiny, tmp_path: Path) -> None:
    work = tiny.work("fp8")
    with pytest.raises(AtinukeError, match="fp8 needs the ranges of activations"):
        TensorRTBuilder().build(work, tmp_path)
    calibration = {name: [inputs] for name, inputs in work.inputs.items()}
    TensorRTBuilder().build(replace(work, calibration=calibration), tmp_path)
    (engine,) = read_manifest(tmp_path).engines["decode"]
    assert (engine.capabilities, engine.later) == ((89, 120, 121), False)
    network = json.loads((tmp_path / "decode.layers.json").read_text())
    assert "FP8" in {one["dtype"] for layer in network["layers"] for one in layer["outputs"]}


def test_a_machine_without_a_driver_says_so(tiny: Tiny, portable: Path) -> None:
    if driver():
        pytest.skip("this machine has a driver")
    with pytest.raises(NotHereError) as told:
        TensorRTRunner(portable, tiny.interfaces, tiny.axes, "fp32")
    assert str(told.value).splitlines()[0].startswith("this machine has no NVIDIA driver")


def test_the_profile_is_that_of_the_axes() -> None:
    recordings = Port("input_values", "float32", ("batch", "samples"))
    frames = Port("mask", "bool", ("batch", "samples//160 + 1", 3))
    interface = Interface((recordings, frames), (), {})
    axes = {"batch": (1, 16), "samples": (1600, 6400)}
    assert profile(Program("forward", nn.Identity(), interface, axes)) == {
        "input_values": {"min": [1, 1600], "opt": [4, 3200], "max": [16, 6400]},
        "mask": {"min": [1, 11, 3], "opt": [4, 21, 3], "max": [16, 41, 3]},
    }


@pytest.mark.parametrize(("precision", "capability", "reason"), [
    ("fp32", 75, "no float32 matrix products for compute capability 7.5"),
    ("bf16", 75, "bf16 needs compute capability 8.0, and 7.5 is asked for"),
    ("fp8", 86, "fp8 needs compute capability 8.9, and 8.6 is asked for"),
    ("fp16", 61, "fp16 needs compute capability 7.5, and 6.1 is asked for"),
    ("fp16", 75, None),
    ("bf16", 80, None),
    ("fp8", 89, None),
])  # fmt: skip
def test_what_a_capability_lacks_is_refused(tiny: Tiny, precision: str, capability: int, reason: str | None) -> None:
    told = TensorRTBuilder().refusal(Work(tiny.programs, {}, precision, capabilities=(120, capability)))
    assert reason in told if reason and told else told is reason


def test_what_the_library_does_not_build_for_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    work = Work(tiny.programs, {}, "fp16", capabilities=(90,))
    with pytest.raises(AtinukeError, match=r"does not build for compute capability 9\.0\n.*7\.5, 8\.0, 8\.6"):
        TensorRTBuilder().build(work, tmp_path)


class Positions(nn.Module):
    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        return (torch.nonzero(tensors[0]),)


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    x, found = Port("x", "float32", ("batch", 3)), Port("found", "int64", ("rows", 2))
    program = Program("forward", Positions(), Interface((x,), (found,), {}), {"batch": (1, 4)})
    with pytest.raises(AtinukeError, match=r"TensorRT cannot have `forward`\n.*NonZero") as told:
        TensorRTBuilder().build(Work({"forward": program}, {"forward": (torch.ones(2, 3),)}, "fp32"), tmp_path)
    assert "node `" in str(told.value)
