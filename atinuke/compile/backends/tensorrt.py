"""TensorRT: engines for NVIDIA GPUs, built ahead of time.

TensorRT for RTX builds on a machine without a GPU: one portable engine a program, or one for each compute capability
that is asked for. Classic TensorRT builds for the GPU it runs on. Either way precision comes from the ONNX model alone.
int8 and fp8 have fixed ranges of activations, and so need inputs to calibrate with.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atinuke.compile.builder import Builder, Work
from atinuke.compile.onnx_precision import onnx_in
from atinuke.compile.onnx_save import save_shared
from atinuke.compile.programs import Program
from atinuke.core.errors import fail
from atinuke.runtime.cuda import Cuda
from atinuke.runtime.interface import Port, work_out
from atinuke.runtime.tensorrt import Engine
from atinuke.runtime.tensorrt_library import MANIFEST, Library, library, preferred

PORTABLE = (80, 86, 89, 120, 121)
"""What an engine of TensorRT for RTX runs on where nothing was asked for; later capabilities too."""
LEAST = {"bf16": 80, "int4-weights": 80, "fp8": 89}
"""The first compute capability that TensorRT has a precision for, where it is not Turing."""
TURING = 75  # takes no matrix products in float32
REST = "fp16"  # what is computed beside quantised products

Profile = dict[str, dict[str, list[int]]]


class TensorRTBuilder(Builder):
    """`forward.engine`, or `forward.sm86.engine` for each compute capability; beside them `forward.layers.json`, the
    network as it was read with the sizes it was built for, and `engine.json`, which the runner reads before that."""

    precisions = ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights", "fp8")
    packages = ("onnx", "onnxscript", preferred())
    extra = "onnx,tensorrt"
    reads_capabilities = True

    def refusal(self, work: Work) -> str | None:
        least = LEAST.get(work.precision, TURING)
        for capability in work.capabilities:
            if capability < least:
                return f"{work.precision} needs compute capability {least / 10}, and {capability / 10} is asked for"
            if capability == TURING and work.precision == "fp32":
                return "TensorRT has no float32 matrix products for compute capability 7.5; build fp16"
        return None

    def build(self, work: Work, folder: Path) -> None:
        lib = library(preferred())
        targets = _targets(lib, work)
        engines: dict[str, list[dict[str, Any]]] = {}
        for name, program in work.programs.items():
            seen = work.calibration.get(name, ())
            model = onnx_in(program, work.inputs[name], work.precision, work.float32, calibration=seen, rest=REST)
            build = _Build(lib, model, program)
            engines[name] = []
            for capabilities, later in targets:
                word = f".sm{capabilities[0]}" if work.capabilities else ""
                file = folder / f"{name}{word}.engine"
                file.write_bytes(build.plan(capabilities if not later else ()))
                engines[name].append(asdict(Engine(file.name, file.stat().st_size, capabilities, later)))
            _write(folder / f"{name}.layers.json", build.layers())
        _write(folder / MANIFEST, {"library": lib.name, "version": lib.version, "engines": engines})


def profile(program: Program) -> Profile:
    """The smallest, the usual and the largest shape of each input; usually an axis is the geometric mean of both."""
    axes = program.axes
    ends = {
        "min": {name: low for name, (low, _) in axes.items()},
        "opt": {name: round(math.sqrt(low * high)) for name, (low, high) in axes.items()},
        "max": {name: high for name, (_, high) in axes.items()},
    }
    return {
        port.name: {which: _shape(port, sizes) for which, sizes in ends.items()} for port in program.interface.inputs
    }


def _shape(port: Port, sizes: Mapping[str, int]) -> list[int]:
    return [size if isinstance(size, int) else work_out(size, sizes) for size in port.shape]


def _targets(lib: Library, work: Work) -> list[tuple[tuple[int, ...], bool]]:
    """The engines of each program: the capabilities it is for, and whether it is for later ones."""
    if not hasattr(lib.trt, "ComputeCapability"):
        here = Cuda().capability
        if work.capabilities not in ((), (here,)):
            fix = f"ask for {here / 10}, or install tensorrt_rtx"
            raise fail(f"{lib.name} builds only for the GPU it runs on, {here / 10}", fix=fix)
        return [((here,), False)]
    known = sorted(int(name[2:]) for name in lib.trt.ComputeCapability.__members__ if name.startswith("SM"))
    for capability in work.capabilities:
        if capability not in known:
            raise fail(
                f"{lib.name} {lib.version} does not build for compute capability {capability / 10}",
                f"it builds for {', '.join(str(one / 10) for one in known)}",
                fix="classic TensorRT builds for data-centre GPUs, on such a GPU" if capability in (90, 100) else None,
            )
    if work.capabilities:
        return [((capability,), False) for capability in work.capabilities]
    least = LEAST.get(work.precision, PORTABLE[0])
    later = least == PORTABLE[0]
    return [(tuple(one for one in PORTABLE if one >= least and one in known), later)]


class _Build:
    """One program on its way into an engine."""

    def __init__(self, lib: Library, model: Any, program: Program) -> None:
        self._library = lib
        self._program = program
        self._profile = profile(program)
        lib.messages.clear()
        self._builder = lib.trt.Builder(lib.logger)
        self._network = self._builder.create_network(0)
        parser = lib.trt.OnnxParser(self._network, lib.logger)
        with tempfile.TemporaryDirectory() as scratch:
            save_shared({program.name: model}, Path(scratch))
            if not parser.parse_from_file(str(Path(scratch) / f"{program.name}.onnx")):
                raise _unread(parser, program.name)

    def plan(self, capabilities: Sequence[int]) -> bytes:
        """The engine, for these capabilities; none is the library's own choice."""
        trt = self._library.trt
        config = self._builder.create_builder_config()
        shapes = self._builder.create_optimization_profile()
        for name, sizes in self._profile.items():
            shapes.set_shape(name, sizes["min"], sizes["opt"], sizes["max"])
        config.add_optimization_profile(shapes)
        if capabilities and hasattr(trt, "ComputeCapability"):
            config.num_compute_capabilities = len(capabilities)
            for place, capability in enumerate(capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), place)
        found = self._builder.build_serialized_network(self._network, config)
        if found is None:
            raise self._library.wrong(f"{self._library.name} cannot build `{self._program.name}`", "tensorrt")
        return bytes(found)

    def layers(self) -> dict[str, Any]:
        """The network as the library has read it: an engine itself can only be looked into on a GPU."""
        network = self._network
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        return {
            "program": self._program.name,
            "inputs": [_told(tensor) for tensor in inputs],
            "outputs": [_told(tensor) for tensor in outputs],
            "profile": self._profile,
            "layers": [_layer(network.get_layer(i)) for i in range(network.num_layers)],
        }


def _layer(layer: Any) -> dict[str, Any]:
    inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
    return {
        "name": layer.name,
        "type": layer.type.name,
        "inputs": [tensor.name for tensor in inputs if tensor is not None],
        "outputs": [_told(layer.get_output(i)) for i in range(layer.num_outputs)],
    }


def _told(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


def _unread(parser: Any, program: str) -> Exception:
    """What the parser does not take: the first node and the reason."""
    error = parser.get_error(0)
    node = f"node `{error.node_name()}` ({error.node_operator()})"
    return fail(f"TensorRT cannot have `{program}`", f"{node}: {error.desc()}", fix="choose a component without it")


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
