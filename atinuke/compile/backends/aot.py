"""AOTInductor: native code for this kind of machine, a package a program."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atinuke.compile.builder import Builder, Work
from atinuke.compile.export import export, quiet
from atinuke.compile.in_place import as_taken, in_place
from atinuke.compile.inductor import FREEZING
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.compile.torchao import quantised
from atinuke.core.errors import fail
from atinuke.runtime.aot import MACHINE, this_machine

OPTIONS: dict[str, Any] = {
    "aot_inductor.package": True,
    "cpp.dynamic_threads": True,  # as many threads as the caller asks for, not as many as there were at the build
}


class AotBuilder(Builder):
    """Packages that torch runs without the model's Python code; g++ is needed to build them, not to run them."""

    precisions = ("fp32", "bf16", "fp16", "int8")

    def refusal(self, work: Work) -> str | None:
        if work.precision == "int8" and not find_spec("torchao"):
            return "int8 needs torchao: pip install 'atinuke[torchao]'"
        return None

    def build(self, work: Work, folder: Path) -> None:
        for name, program in work.programs.items():
            if work.precision in HALVES:
                program = narrow(program, HALVES[work.precision], work.float32)
            if work.precision == "int8":
                program = quantised(program)
            program = in_place(program)
            package(program, as_taken(program, work.inputs[name]), folder / f"{name}.pt2")
        (folder / MACHINE).write_text(json.dumps(this_machine(), indent=2) + "\n", encoding="utf-8")


def package(program: Program, inputs: tuple[Tensor, ...], file: Path) -> None:
    """Writes a program as a .pt2 package.

    Raises:
        AtinukeError: there is no C++ compiler, or the program cannot be compiled.
    """
    from torch._inductor import aoti_compile_and_package, config
    from torch._inductor.exc import InvalidCxxCompiler

    exported = export(program, inputs)
    try:
        with quiet(), torch.no_grad(), config.patch(FREEZING):
            aoti_compile_and_package(exported, package_path=str(file), inductor_configs=dict(OPTIONS))
    except InvalidCxxCompiler:
        raise fail("AOTInductor finds no C++ compiler", fix="install g++; only building needs it") from None
