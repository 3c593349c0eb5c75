"""A shipped graph so small that every target takes it in seconds, for the tests of targets."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from atinuke.compile.builder import Work
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import Program, programs
from atinuke.compile.samples import draw, example
from atinuke.core.dump import dump
from atinuke.pipelines.checkpoint import weights
from atinuke.runtime.bundle import GRAPH, WEIGHTS
from atinuke.runtime.runner import Runner

SMALL = ("d_model=16", "heads=2", "layers=1", "vocab_size=31")
MORE = {"encoder-decoder": ("decoder_layers=1",)}


class Tiny:
    """A graph with one layer and random weights; `only` are the programs that are wanted of it."""

    def __init__(self, name: str, *sets: str, only: Iterable[str] = ()) -> None:
        self.checked = open_graph(name, [*SMALL, *MORE.get(name, ()), *sets])
        torch.manual_seed(0)
        self.model = build(self.checked).eval()
        made = programs(self.checked, self.model)
        self.programs = {name: program for name, program in made.items() if name in (set(only) or made)}
        self.interfaces = {name: program.interface for name, program in self.programs.items()}
        self.axes = {name: axis for program in self.programs.values() for name, axis in program.axes.items()}

    def sizes(self, program: str) -> dict[str, int]:
        return example(self.programs[program].axes)

    def work(self, precision: str) -> Work:
        inputs = {name: draw(self.checked, program, self.sizes(name)) for name, program in self.programs.items()}
        return Work(self.programs, inputs, precision)

    def save(self, folder: Path) -> None:
        """What a bundle has of every model."""
        (folder / GRAPH).write_text(dump(self.checked.graph))
        save_file({name: tensor.contiguous() for name, tensor in weights(self.model).items()}, folder / WEIGHTS)

    def worst(self, runner: Runner, *seeds: int) -> float:
        """The largest difference from the model, as a share of the largest value of an output, at other sizes than
        those of the export."""
        found = 0.0
        for name, program in self.programs.items():
            for seed in seeds:
                sizes = {axis: min(size + seed, program.axes[axis][1]) for axis, size in self.sizes(name).items()}
                inputs = draw(self.checked, program, sizes, seed)
                with torch.no_grad():
                    wanted = program.module(*inputs)
                got = runner.run(name, feeds_of(program, inputs))
                for one, expected in zip(got.values(), wanted, strict=True):
                    off = np.abs(one.astype(np.float64) - expected.double().numpy()).max()
                    found = max(found, float(off / expected.double().abs().max().item()))
        return found


def feeds_of(program: Program, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray[Any, Any]]:
    names: Mapping[str, Tensor] = dict(zip((port.name for port in program.interface.inputs), inputs, strict=True))
    return {name: tensor.numpy() for name, tensor in names.items()}
