"""Runs ONNX files with ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Runner, not_here


class OnnxRunner(Runner):
    """One session a program, on the CPU."""

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
        for name in programs:
            file = folder / f"{name}.onnx"
            try:
                self._sessions[name] = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # whatever the engine has against the file
                raise fail("ONNX Runtime cannot open it", str(error).splitlines()[0], where=str(file)) from None

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = [port.name for port in self.programs[program].outputs]
        return dict(zip(names, self._sessions[program].run(names, dict(feeds)), strict=True))
