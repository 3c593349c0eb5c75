"""Runs OpenVINO's files on a CPU, in the precision that the file states and no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Memory, Runner, not_here
from atinuke.runtime.signal_stack import kept_signal_stack

SECTION, HINT, WIDTH = "atinuke", "INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE"
"""Where a file says what it asks of the engine, and the two settings: what it computes in, and how many activations
share a scale where they are rounded to 8 bits (0: they are not)."""


class OpenVINORunner(Runner):
    """One compiled model a program. Arrays are read where they lie, and caches are written where they will be read."""

    packages = ("openvino",)
    extra = "openvino"

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, programs, axes, precision, threads)
        try:
            import openvino
        except ImportError:
            raise not_here("OpenVINO is not installed", fix="pip install 'atinuke[openvino]'") from None
        self._openvino: Any = openvino
        core = openvino.Core()
        self._requests = {name: self._open(core, folder / f"{name}.xml") for name in programs}
        self._spare: dict[str, Array] = {}

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interface, request = self.programs[program], self._requests[program]
        held = [np.ascontiguousarray(feeds[port.name]) for port in interface.inputs]
        for place, array in enumerate(held):
            request.set_input_tensor(place, self._openvino.Tensor(array, shared_memory=True))
        caches = {output: self._fresh(name, feeds[name]) for name, output in interface.memory.items()}
        places = {port.name: place for place, port in enumerate(interface.outputs)}
        for name, array in caches.items():
            request.set_output_tensor(places[name], self._openvino.Tensor(array, shared_memory=True))
        request.infer()
        rest = {
            name: request.get_output_tensor(place).data.copy() for name, place in places.items() if name not in caches
        }
        return {name: caches[name] if name in caches else rest[name] for name in places}

    def step(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        """As for any runner; the arrays that `memory` held are written into in a later step."""
        old = dict(memory)
        outputs = super().step(program, feeds, memory)
        self._spare = old
        return outputs

    def _fresh(self, name: str, like: Array) -> Array:
        """Where a cache is written: the memory of the step before, if it has the size."""
        spare = self._spare.pop(name, None)
        fits = spare is not None and spare.shape == like.shape and spare is not like
        return spare if fits and spare is not None else np.empty_like(like)

    def _open(self, core: Any, file: Path) -> Any:
        if not (file.is_file() and file.with_suffix(".bin").is_file()):
            raise fail("there is no such file, or no .bin beside it", where=str(file))
        try:
            model = core.read_model(file)
            asked = {key: model.get_rt_info([SECTION, key]).astype(str) for key in (HINT, WIDTH)}
            threads = {"INFERENCE_NUM_THREADS": self.threads} if self.threads else {}
            with kept_signal_stack():
                compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **asked, **threads})
            chosen = compiled.get_property(HINT).get_type_name()
        except RuntimeError as error:
            raise fail("OpenVINO cannot open it", str(error).strip().splitlines()[-1], where=str(file)) from None
        if chosen != asked[HINT]:
            raise not_here(f"this CPU cannot compute in {asked[HINT]}; OpenVINO would take {chosen}", fix="take fp32")
        return compiled.create_infer_request()
