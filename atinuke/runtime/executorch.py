"""Runs ExecuTorch programs, through ExecuTorch's own runtime for Python. It hands tensors over as torch's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import fail, first_line
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Runner, not_here

FILE = "model.pte"


class ExecutorchRunner(Runner):
    """One file whose methods are the programs, on the CPU."""

    packages = ("executorch", "torch")
    extra = "executorch"

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
            import torch
            from executorch.runtime import Runtime
        except ImportError:
            raise not_here("ExecuTorch is not installed", fix="pip install 'atinuke[executorch]'") from None
        file = folder / FILE
        self._torch: Any = torch
        try:
            program = Runtime.get().load_program(file)
            self._methods = {name: program.load_method(name) for name in programs}
        except MemoryError:
            told = "ExecuTorch sets aside what the largest sizes of all axes need"
            raise fail("does not fit into memory", told, where=str(file), fix="compile with narrower axes") from None
        except (OSError, RuntimeError, KeyError) as error:
            raise fail("ExecuTorch cannot open it", first_line(error), where=str(file)) from None

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interface = self.programs[program]
        arrays = [np.require(feeds[port.name], requirements=("C", "W")) for port in interface.inputs]
        try:
            outputs = self._methods[program].execute([self._torch.from_numpy(array) for array in arrays])
        except RuntimeError as error:
            sizes = f"at {', '.join(f'{array.shape}' for array in arrays)}"
            raise fail(f"ExecuTorch cannot run `{program}`", sizes, first_line(error)) from None
        names = [port.name for port in interface.outputs]
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}
