"""Compiles the model of a bundle with torch.compile, where it runs: torch is needed, and g++ at the first calls.

What was compiled is kept in a folder of the user's own, never in the bundle: these files are pickles, and nothing that
comes with a bundle may run code.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail
from atinuke.runtime.bundle import GRAPH
from atinuke.runtime.interface import Axes, Interface
from atinuke.runtime.torch import TorchRunner

FILE = "inductor.json"
CACHE = "TORCHINDUCTOR_CACHE_DIR"


class InductorRunner(TorchRunner):
    """The programs, compiled at their first call, or at the first with a size of 1. The folder lies in its bundle, as
    `targets/inductor/<precision>`."""

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, programs, axes, precision, threads)
        keep_compiled()
        from atinuke.compile.deployed import compile_programs

        file = folder / FILE
        try:
            float32 = frozenset(map(str, json.loads(file.read_text(encoding="utf-8"))["float32"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise fail("does not tell which nodes stay in float32", where=str(file), fix="compile again") from None
        bundle = folder.parents[2] if len(folder.parents) > 2 else folder
        if not (bundle / GRAPH).is_file():
            raise fail("lies in no bundle, whose graph and weights it needs", where=str(folder), fix="open the bundle")
        self._compiled = compile_programs(bundle, programs, precision, float32)

    def invoke(self, program: str, inputs: list[Any]) -> tuple[Any, ...]:
        return self._compiled[program](*inputs)


def keep_compiled() -> None:
    """Has Inductor keep what it compiles in the user's cache, unless a place was chosen. Its own choice lies in the
    folder for temporary files, where another user could have put something."""
    if CACHE not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "atinuke" / "inductor"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ[CACHE] = str(folder)
