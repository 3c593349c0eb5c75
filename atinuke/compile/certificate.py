"""The proof that what was built says the same as the model: eager in float32 against the target, program by program."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from atinuke.compile.programs import Program
from atinuke.compile.samples import Sizes, draw, example
from atinuke.core.checked import CheckedGraph
from atinuke.runtime.runner import Runner

BUDGETS = {
    "fp32": 1e-4,
    "fp16": 1e-2,
    "bf16": 5e-2,
    "int8": 1e-1,
    "int8-weights": 5e-2,
    "int4-weights": 2e-1,
    "fp8": 1e-1,
}
"""The largest difference of an output, as a share of its largest value."""


@dataclass(frozen=True)
class Comparison:
    """One call: the largest difference over all outputs, in itself and as a share of the output's largest value."""

    program: str
    sizes: Sizes
    absolute: float
    relative: float


def certify(checked: CheckedGraph, programs: Mapping[str, Program], runner: Runner) -> Iterator[Comparison]:
    """Compares every program at every corner of its axes."""
    for program in programs.values():
        for sizes in _corners(program):
            inputs = draw(checked, program, sizes)
            with torch.no_grad():
                wanted = program.module(*inputs)
            names = [port.name for port in program.interface.inputs]
            got = runner.run(program.name, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
            absolute, relative = 0.0, 0.0
            for port, one in zip(program.interface.outputs, wanted, strict=True):
                off = (one.double() - torch.from_numpy(got[port.name]).double()).abs().max().item()
                absolute = max(absolute, off)
                relative = max(relative, off / max(one.double().abs().max().item(), 1e-12))
            yield Comparison(program.name, sizes, absolute, relative)


def _corners(program: Program) -> Iterator[Sizes]:
    yield example(program.axes)
    for sizes in itertools.product(*({*axis} for axis in program.axes.values())):
        found = dict(zip(program.axes, sizes, strict=True))
        if found.get("sequence", 1) <= found.get("capacity", found.get("sequence", 1)):
            yield found
