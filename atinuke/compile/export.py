"""torch.export of a program, with every axis of its interface free: what all ahead-of-time targets begin with."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as fx_config

from atinuke.compile.programs import Program
from atinuke.core.errors import fail, first_line


def export(program: Program, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The exported program; `inputs` are at sizes of at least 2 wherever an axis is free.

    Raises:
        AtinukeError: torch cannot follow the program at any size, or only at some.
    """
    try:
        return _export(program, inputs)
    except Exception as error:  # whatever a component does that cannot be followed
        try:
            # Perhaps torch only asks whether a size is 1. To take it for one that is not is right for most programs,
            # but some engines then refuse that size.
            with fx_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
                return _export(program, inputs)
        except Exception:
            raise fail(
                f"`{program.name}` cannot be exported with every axis free",
                first_line(error),
                fix="see what its components promise: `atinuke plugins check NAME` tries them",
            ) from error


def _export(program: Program, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    with quiet(), torch.no_grad():
        return torch.export.export(
            program.module,
            inputs,
            dynamic_shapes=dynamic_shapes(program),
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def dynamic_shapes(program: Program) -> Any:
    """The free axes of the inputs, by name and with their ranges; for a forward that takes a row of tensors."""
    made = {name: low if low == high else Dim(name, min=low, max=high) for name, (low, high) in program.axes.items()}
    shapes = [
        {axis: made.get(size, Dim.DYNAMIC) for axis, size in enumerate(given.shape) if isinstance(size, str)}
        for given in program.interface.inputs
    ]
    return (tuple(shapes),)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the compilers' chatter away."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
