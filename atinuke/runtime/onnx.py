"""Runs ONNX files with ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Memory, Runner, not_here

IN_PLACE = "atinuke.in_place"
"""The entry of a file's metadata that names the caches which a call may write into."""

SLOW = ["SkipLayerNormFusion"]
"""Rewrites that cost time: the fused kernel is several times slower than Add and LayerNormalization (1.31, x86)."""


class OnnxRunner(Runner):
    """One session a program, on the CPU. Caches are written in place where the file says that it is safe."""

    packages = ("onnxruntime",)
    extra = "runtime"

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
            import onnxruntime
        except ImportError:
            raise not_here("ONNX Runtime is not installed", fix="pip install 'atinuke[runtime]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        self._sessions: dict[str, Any] = {}
        self._in_place: dict[str, frozenset[str]] = {}
        for name in programs:
            file = folder / f"{name}.onnx"
            try:
                session = onnxruntime.InferenceSession(
                    file, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW
                )
            except Exception as error:  # whatever the engine has against the file
                raise fail("ONNX Runtime cannot open it", str(error).splitlines()[0], where=str(file)) from None
            self._sessions[name] = session
            self._in_place[name] = frozenset(session.get_modelmeta().custom_metadata_map.get(IN_PLACE, "").split())

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interface = self.programs[program]
        memory = {name: feeds[name].copy() for name in interface.memory}
        outputs = self._bound(program, {name: feeds[name] for name in feeds if name not in memory}, memory)
        outputs |= {output: memory[name] for name, output in interface.memory.items()}
        return {port.name: outputs[port.name] for port in interface.outputs}

    def step(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        """The outputs of one call. An array of `memory` is written into where the program allows it, else replaced."""
        self.programs[program].check({**feeds, **memory}, self.axes)
        return self._bound(program, feeds, memory)

    def _bound(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        interface, session = self.programs[program], self._sessions[program]
        binding = session.io_binding()
        held = {name: np.require(array, requirements=("C", "W")) for name, array in {**feeds, **memory}.items()}
        for name, array in held.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        answers = [port.name for port in interface.outputs if port.name not in interface.memory.values()]
        for name in answers:
            binding.bind_output(name, "cpu")
        for name, output in interface.memory.items():
            cache = held[name] if name in self._in_place[program] else np.empty_like(held[name])
            binding.bind_output(output, "cpu", 0, cache.dtype, cache.shape, cache.ctypes.data)
            memory[name] = cache
        session.run_with_iobinding(binding)
        return {name: value.numpy() for name, value in zip(answers, binding.get_outputs(), strict=False)}
