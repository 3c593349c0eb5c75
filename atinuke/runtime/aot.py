"""Runs AOTInductor packages: native code for one version of torch, and for machines with certain instructions."""

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail, first_line
from atinuke.runtime.interface import Axes, Interface
from atinuke.runtime.runner import not_here
from atinuke.runtime.torch import TorchRunner

MACHINE = "machine.json"


class AotRunner(TorchRunner):
    """One package a program, on the CPU."""

    native = True

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, programs, axes, precision, threads)
        require_machine(folder / MACHINE)
        self._packages = {name: self._open(folder / f"{name}.pt2") for name in programs}

    def invoke(self, program: str, inputs: list[Any]) -> tuple[Any, ...]:
        return tuple(self._packages[program].boxed_run(inputs))  # which checks nothing: `Interface.check` did

    def _open(self, file: Path) -> Any:
        try:
            return self.torch._C._aoti.AOTIModelPackageLoader(str(file), "model", False, 1, -1)
        except RuntimeError as error:
            raise fail("torch cannot open the package", first_line(error), where=str(file)) from None


def this_machine() -> dict[str, Any]:
    """What native code depends on: torch's version, the kind of machine, and the instructions that it has; raises
    NotHereError where torch cannot tell them."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):
        raise not_here(
            f"torch {torch.__version__} cannot tell the machine's instructions", fix="install torch 2.13 or newer"
        )
    return {
        "torch": torch.__version__,
        "system": f"{sys.platform} {platform.machine()}",
        "device": "cpu",
        "instructions": sorted(name for name, there in torch.cpu.get_capabilities().items() if there is True),
    }


def require_machine(file: Path) -> None:
    """Refuses packages that were built for another machine, before any of them is opened.

    Raises:
        NotHereError: it names what this machine is or has not.
        AtinukeError: the file is not there.
    """
    try:
        built = json.loads(file.read_text(encoding="utf-8"))
        needed = {*built["instructions"]}
        told = {name: str(built[name]) for name in ("torch", "system", "device")}
    except (OSError, ValueError, KeyError, TypeError):
        raise fail("does not tell which machine the packages are for", where=str(file), fix="compile again") from None
    here = this_machine()
    for name, was in told.items():
        if was != here[name]:
            raise not_here(
                f"the packages are for {name} {was}", f"here is {here[name]}", fix="compile again on such a machine"
            )
    missing = sorted(map(str, needed - {*here["instructions"]}))
    if missing:
        told_missing = f"this one lacks {', '.join(missing)}"
        fix = "compile on this machine"
        raise not_here("the packages are for a machine with more instructions", told_missing, fix=fix)
