"""A bundle as a model repository of NVIDIA's Triton Inference Server: a model for each program, and where an encoder
comes first, an ensemble of it and the first step of the text.

Source: docs/user_guide/model_configuration.md, model_repository.md and ensemble_models.md of Triton, and what its
backends demand of a configuration (`CompareDimsSupported` of the ONNX Runtime backend).
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atinuke.core.errors import fail
from atinuke.core.files import exists
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import BATCH, Axes, Interface, Port, axes_of, settled
from atinuke.runtime.triton_files import Backend, Device, backend_of, copy

CONFIG, VERSION = "config.pbtxt", "1"
TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


@dataclass(frozen=True)
class Served:
    """A model of the repository: the program it runs (None: the ensemble) and how many rows Triton may give it at once
    (0: requests are run one by one, as they come)."""

    name: str
    program: str | None
    rows: int


@dataclass(frozen=True)
class Scheduling:
    """What the repository says beyond the model: instances of each program, on which device, and for how many
    microseconds a request may wait for others."""

    instances: int | None = None
    device: Device | None = None
    delay: int | None = None


def export_triton(
    bundle: Bundle, build: str, folder: Path, scheduling: Scheduling = Scheduling()
) -> tuple[Served, ...]:
    """Writes the repository whole or not at all, after holding every tensor of it against the files that it serves.

    Raises:
        AtinukeError: there is something at `folder`, Triton cannot serve that build as it was proved, or a file has
            other inputs or outputs than the bundle says.
    """
    if exists(folder):
        raise fail("is there already", where=str(folder), fix="choose another folder, or remove it")
    backend = backend_of(bundle, build)
    _require(scheduling, backend, build)
    rows = most_rows(bundle.programs.values(), bundle.axes) if backend.shares else 0
    if scheduling.delay is not None and not rows:
        raise fail("requests are not put together, so none can wait for others", where=build, fix="leave out --delay")
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        served = []
        for program, interface in bundle.programs.items():
            name = bundle.name if len(bundle.programs) == 1 else f"{bundle.name}_{program}"
            copy(bundle, build, program, draft / name / VERSION)
            lines = [*backend.lines, *_scheduled(scheduling, rows)]
            _write(draft / name, _head(bundle, build, name, lines, rows), interface, bundle.axes, rows)
            served.append(Served(name, program, rows))
        if "prepare" in bundle.programs:
            served.append(_ensemble(bundle, build, draft, rows))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return tuple(served)


def most_rows(interfaces: Iterable[Interface], axes: Axes) -> int:
    """How many rows Triton may put into one call; 0 where it may not put any together: a tensor does not begin with the
    batch, or has it elsewhere too (a row's answer then depends on the others), or a single row is too few."""
    low, high = axes.get(BATCH, (0, 0))
    shapes = [port.shape for one in interfaces for port in (*one.inputs, *one.outputs)]
    apart = all(s and s[0] == BATCH and not any(BATCH in axes_of(size) for size in s[1:]) for s in shapes)
    return high if apart and low == 1 < high else 0


def _require(scheduling: Scheduling, backend: Backend, build: str) -> None:
    if scheduling.device and scheduling.device not in backend.devices:
        raise fail(f"Triton does not run {build} on a {scheduling.device.upper()}", fix="leave the device out")
    for what, least in (("instances", 1), ("delay", 0)):
        value = getattr(scheduling, what)
        if value is not None and value < least:
            raise fail(f"{what} must be at least {least}", f"got {value}", where=f"--{what}")


def _head(bundle: Bundle, build: str, name: str, lines: Sequence[str], rows: int) -> str:
    sizes = ", ".join(f"{axis} {low}..{high}" for axis, (low, high) in bundle.axes.items())
    told = [f"# {bundle.name}, {build}. It was compiled for {sizes}; Triton does not refuse other sizes."]
    return "\n".join([*told, f"name: {json.dumps(name)}", *lines, f"max_batch_size: {rows}"])


def _scheduled(scheduling: Scheduling, rows: int) -> list[str]:
    lines = []
    if scheduling.instances or scheduling.device:
        kind = f" kind: KIND_{scheduling.device.upper()}" if scheduling.device else ""
        lines.append(f"instance_group [ {{ count: {scheduling.instances or 1}{kind} }} ]")
    if rows:
        lines.append("# only requests whose tensors have equal shapes, but for the batch, share a call")
        delay = f"max_queue_delay_microseconds: {scheduling.delay} " if scheduling.delay else ""
        lines.append(f"dynamic_batching {{ {delay}}}")
    return lines


def _write(folder: Path, head: str, interface: Interface, axes: Axes, rows: int, tail: str = "") -> None:
    """Writes a configuration; `tail` is an ensemble's, whose tensors keep the shape in which requests have them."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [head]
    for way, ports in (("input", interface.inputs), ("output", interface.outputs)):
        tensors = ",\n".join(_tensor(port, axes, rows, not tail) for port in ports)
        parts.append(f"{way} [\n{tensors}\n]")
    (folder / CONFIG).write_text("\n".join(parts) + f"\n{tail}", encoding="utf-8")


def _tensor(port: Port, axes: Axes, rows: int, reshaped: bool) -> str:
    """A tensor without its batch where Triton adds that; one of nothing but a batch comes as `[batch, 1]`."""
    sizes = [settled(size, axes) for size in port.shape[1 if rows else 0 :]]
    dims = [-1 if size is None else size for size in sizes]
    if not dims and not rows:
        raise fail(f"Triton has no tensors without axes, such as `{port}`", fix="leave that output out of the graph")
    lines = [
        f"name: {json.dumps(port.name)}  # {str(port).partition(': ')[2]}",
        f"data_type: {TYPES[port.dtype]}",
        f"dims: [ {', '.join(map(str, dims or [1]))} ]",
        *(["reshape { shape: [ ] }"] if reshaped and not dims else []),
    ]
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"


def _ensemble(bundle: Bundle, build: str, draft: Path, rows: int) -> Served:
    """`prepare` and then `prefill` as one request: the first answer, and all that `decode` goes on from."""
    steps = {name: bundle.programs[name] for name in ("prepare", "prefill")}
    prepare, prefill = steps.values()
    between = {port.name for port in prepare.outputs}
    inputs = (*prepare.inputs, *(port for port in prefill.inputs if port.name not in between))
    whole = Interface(inputs, (*prefill.outputs, *prepare.outputs), {})
    name = f"{bundle.name}_begin"
    maps = ",\n".join(_step(f"{bundle.name}_{program}", one) for program, one in steps.items())
    tail = f"ensemble_scheduling {{\n  step [\n{maps}\n  ]\n}}\n"
    _write(draft / name, _head(bundle, build, name, ['platform: "ensemble"'], rows), whole, bundle.axes, rows, tail)
    (draft / name / VERSION).mkdir()
    return Served(name, None, rows)


def _step(model: str, interface: Interface) -> str:
    """A step of an ensemble, in which every tensor has the name that it has in the model."""
    lines = [f"model_name: {json.dumps(model)}", "model_version: -1"]
    for way, ports in (("input_map", interface.inputs), ("output_map", interface.outputs)):
        lines += [f"{way} {{ key: {json.dumps(port.name)} value: {json.dumps(port.name)} }}" for port in ports]
    return "    {\n" + "".join(f"      {line}\n" for line in lines) + "    }"
