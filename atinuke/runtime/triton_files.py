"""The files of a build as Triton's backends take them: which it can serve, what is copied, and what they declare.

Source: the READMEs of Triton's onnxruntime, openvino, tensorrt and pytorch backends.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from atinuke.core.errors import Mistake, fail, raise_all
from atinuke.core.names import close
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import Axes, Interface, Port, settled
from atinuke.runtime.strict import Value, read_json
from atinuke.runtime.tensorrt import check_size, read_manifest
from atinuke.runtime.tensorrt_library import MANIFEST

Device = Literal["cpu", "gpu"]
Declared = tuple[list[Port], list[Port]]
"""What a file says of its inputs and outputs; a free size is a name, or `?`, or `*` where the file does not know it."""


@dataclass(frozen=True)
class Backend:
    """How Triton runs the files of a target: lines of the configuration, the name that it looks for, whether rows of
    several requests may share a call, and the devices; `main` finds a program's file in a build, and `declared` tells
    what is in it."""

    lines: tuple[str, ...]
    file: str
    shares: bool
    devices: tuple[Device, ...]
    main: Callable[[Path, str], Path]
    declared: Callable[[Path], Declared]


def backend_of(bundle: Bundle, build: str) -> Backend:
    """What serves a build.

    Raises:
        AtinukeError: the bundle has no such build, or Triton cannot serve it as it was proved.
    """
    if build not in bundle.builds:
        told = f"it has {', '.join(bundle.builds)}"
        raise fail(f"the bundle has no `{build}`", told, where=str(bundle.folder), fix=close(build, bundle.builds))
    target, _, precision = build.partition("/")
    target = target.partition(":")[0]
    if target == "openvino" and precision != "bf16":
        raise fail(
            f"Triton cannot serve {build}",
            "its OpenVINO backend computes in bfloat16 where the processor can, and cannot be told not to",
            fix="export openvino/bf16, or a build for onnx",
        )
    if target not in BACKENDS:
        known = f"it serves builds for {' and '.join(BACKENDS)}"
        raise fail(f"Triton cannot serve {build}", REFUSED.get(target, known), fix="export a build for onnx")
    return BACKENDS[target]


def copy(bundle: Bundle, build: str, program: str, folder: Path) -> None:
    """Copies a program's files into `folder`, under the names that Triton looks for, once every tensor has been held
    against them. Several ONNX files are a folder `model.onnx`.

    Raises:
        AtinukeError: a file is missing, or has other inputs or outputs than the bundle says.
    """
    backend = backend_of(bundle, build)
    place = bundle.place(build)
    main = backend.main(place, program)
    if not main.is_file():
        raise fail("is missing", where=str(main), fix="compile the bundle again")
    _hold(bundle.programs[program], bundle.axes, backend.declared(main), f"{build}/{program}")
    beside = _beside(main, place, [name for name in bundle.programs if name != program])
    if beside and main.suffix == ".onnx":
        folder /= backend.file
    folder.mkdir(parents=True)
    for one in beside:
        name = f"{Path(backend.file).stem}{one.suffix}" if one.stem == program else one.name
        shutil.copyfile(one, folder / name)
    shutil.copyfile(main, folder / backend.file)


def _beside(main: Path, place: Path, others: Sequence[str]) -> list[Path]:
    """The files that the main one cannot be without; a TensorRT engine needs none."""
    if main.suffix == ".engine":
        return []
    of_others = tuple(f"{name}." for name in others)
    return [one for one in place.iterdir() if one != main and not one.name.startswith(of_others)]


def _hold(interface: Interface, axes: Axes, declared: Declared, where: str) -> None:
    """Compares every tensor with what the file says: names, dtypes, ranks, sizes, and which sizes are free."""
    mistakes = []
    for way, ports, found in zip(("input", "output"), (interface.inputs, interface.outputs), declared, strict=True):
        there = {port.name: port for port in found}
        for name in there.keys() - {port.name for port in ports}:
            mistakes.append(Mistake(f"the file has {way} `{there[name]}`, the bundle has not", where))
        for port in ports:
            if port.name not in there:
                mistakes.append(Mistake(f"the file has no {way} `{port}`", where))
            elif not _same(port, there[port.name], axes):
                mistakes.append(Mistake(f"{way} `{port}` is another in the file", where, (str(there[port.name]),)))
    raise_all(mistakes)


def _same(port: Port, found: Port, axes: Axes) -> bool:
    if (port.dtype, len(port.shape)) != (found.dtype, len(found.shape)):
        return False
    for size, there in zip(port.shape, found.shape, strict=True):
        if there == "*":
            continue
        value = settled(size, axes)
        if value != (there if isinstance(there, int) else None):
            return False
        if value is None and there not in ("?", size):
            return False
    return True


def _onnx(file: Path) -> Declared:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever the engine has against the file
        raise fail("ONNX Runtime cannot open it", str(error).splitlines()[0], where=str(file)) from None
    numpy = {"float": "float32", "double": "float64"}

    def ports(found: Iterable[Any]) -> list[Port]:
        kinds = [(one, one.type.removeprefix("tensor(").removesuffix(")")) for one in found]
        return [Port(one.name, numpy.get(kind, kind), tuple(size or "?" for size in one.shape)) for one, kind in kinds]

    return ports(session.get_inputs()), ports(session.get_outputs())


def _openvino(file: Path) -> Declared:
    import openvino

    model = openvino.Core().read_model(file)
    numpy = {"f32": "float32", "f16": "float16", "f64": "float64", "boolean": "bool", "u8": "uint8"}

    def ports(found: Iterable[Any]) -> list[Port]:
        kinds = [(one, one.get_element_type().get_type_name()) for one in found]
        kinds = [(one, numpy.get(kind, kind.replace("i", "int"))) for one, kind in kinds]
        return [
            Port(one.get_any_name(), kind, tuple(s.get_length() if s.is_static else "*" for s in one.partial_shape))
            for one, kind in kinds
        ]

    return ports(model.inputs), ports(model.outputs)


def _engine(place: Path, program: str) -> Path:
    """The one engine of a program, where classic TensorRT has built it."""
    manifest = read_manifest(place)
    if manifest.library != "tensorrt":
        raise fail(
            f"Triton cannot serve engines of {manifest.library}",
            "its backend runs plans of classic TensorRT, for the very GPU that they were built on",
            fix="export a build for onnx, or compile for tensorrt on the server with classic TensorRT",
        )
    if program not in manifest.engines:
        raise fail(f"there is no engine of `{program}`", where=str(place / MANIFEST), fix="compile the bundle again")
    engine = manifest.engines[program][0]
    check_size(place / engine.file, engine.size)
    return place / engine.file


def _tensorrt(file: Path) -> Declared:
    """As the library read the network when it built the engine, which only a GPU can look into."""
    program = file.name.partition(".")[0]
    told = read_json(file.parent / f"{program}.layers.json").record("program", "inputs", "outputs", "profile", "layers")
    numpy = {"FLOAT": "float32", "HALF": "float16"}

    def port(value: Value) -> Port:
        one = value.record("name", "dtype", "shape")
        dtype, sizes = one["dtype"].text(), (size.whole(-1) for size in one["shape"].items())
        return Port(
            one["name"].text(), numpy.get(dtype, dtype.lower()), tuple("?" if size < 0 else size for size in sizes)
        )

    def ports(value: Value) -> list[Port]:
        return [port(one) for one in value.items()]

    return ports(told["inputs"]), ports(told["outputs"])


# Triton's OpenVINO backend fixes the batch to max_batch_size, so there requests keep their own
BACKENDS: Mapping[str, Backend] = {
    "onnx": Backend(
        ('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"'),
        "model.onnx",
        True,
        ("cpu", "gpu"),
        lambda place, program: place / f"{program}.onnx",
        _onnx,
    ),
    "openvino": Backend(
        ('backend: "openvino"', 'parameters { key: "HINT_BF16" value { string_value: "YES" } }'),
        "model.xml",
        False,
        ("cpu",),
        lambda place, program: place / f"{program}.xml",
        _openvino,
    ),
    "tensorrt": Backend(
        ('backend: "tensorrt"', 'platform: "tensorrt_plan"'), "model.plan", True, ("gpu",), _engine, _tensorrt
    ),
}
REFUSED = {
    "aot": "its support of AOTInductor packages is a beta without batches, and tied to the server's version of PyTorch",
}
