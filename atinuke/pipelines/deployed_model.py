"""A deployed model that looks like a built one, so that whatever measures a run measures its builds too."""

import inspect
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atinuke.runtime.interface import BATCH, CAPACITY, Array, Interface, Port
from atinuke.runtime.runner import Runner


class DeployedModel(nn.Module):
    """forward(), or `prepare`, `state` and `step`, as a built graph has them, through the programs of a runner.

    Rows go in groups of as many as the axis `batch` allows; too few are filled up with the last one again. Of a batch
    only what the program reads is given to it: optional inputs may have been left out when it was compiled.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self.runner = runner
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # callers ask for a parameter's device
        self.low, self.high = runner.axes.get(BATCH, (1, 1 << 40))
        if "prepare" in runner.programs:
            names = [port.name for port in runner.programs["prepare"].inputs]
            self.prepare = _taking(names, self._prepare)
        if "decode" in runner.programs:
            self.state, self.step = self._state, self._step

    def forward(self, **batch: Tensor) -> Any:
        return self._named("forward", self._run("forward", batch))

    def _prepare(self, **given: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._run("prepare", given).values())

    def _state(self, batch: int, capacity: int) -> tuple[Tensor, ...]:
        """Empty caches, with room for at least the shortest piece of text and at most the longest text."""
        prefill = self.runner.programs["prefill"]
        shortest, _ = self.runner.axes.get(str(prefill.inputs[0].shape[1]), (1, 1))
        low, high = self.runner.axes[CAPACITY]
        room = min(max(capacity, shortest, low), high)
        memory = self.runner.begin("prefill", {BATCH: batch, CAPACITY: room})
        return tuple(map(torch.from_numpy, memory.values()))

    def _step(
        self,
        text: Tensor,
        position: Tensor,
        state: tuple[Tensor, ...],
        prepared: tuple[Tensor, ...] = (),
        last: Tensor | None = None,
    ) -> tuple[Any, tuple[Tensor, ...]]:
        program = "decode" if last is None else "prefill"
        interface = self.runner.programs[program]
        fresh = [port.name for port in interface.given]
        tensors = [text, position, *([] if last is None else [last]), *prepared]
        feeds = dict(zip(fresh, tensors, strict=True))
        feeds[fresh[0]] = self._long_enough(interface.inputs[0], text)
        feeds |= dict(zip(interface.memory, state, strict=True))
        outputs = self._run(program, feeds)
        new = tuple(outputs.pop(name) for name in interface.memory.values())
        return self._named(program, outputs), new

    def _long_enough(self, port: Port, text: Tensor) -> Tensor:
        """A piece of text filled up on the right to the shortest that the program reads."""
        shortest, _ = self.runner.axes.get(str(port.shape[1]), (1, 1))
        return nn.functional.pad(text, (0, max(0, shortest - text.shape[1])))

    def _run(self, program: str, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a call for any number of rows."""
        interface = self.runner.programs[program]
        arrays = {port.name: feeds[port.name].numpy() for port in interface.inputs if port.name in feeds}
        found = [self._call(program, interface, group) for group in self._groups(interface, arrays)]
        return {
            port.name: torch.from_numpy(_joined(port, [one[port.name] for one in found])) for port in interface.outputs
        }

    def _call(self, program: str, interface: Interface, group: tuple[dict[str, Array], int]) -> dict[str, Array]:
        feeds, rows = group
        memory = {name: feeds.pop(name) for name in interface.memory if name in feeds}
        if memory:
            outputs = self.runner.step(program, feeds, memory)
            outputs |= {interface.memory[name]: array for name, array in memory.items()}
        else:
            outputs = self.runner.run(program, feeds)
        return {port.name: _rows(port, outputs[port.name], np.arange(rows)) for port in interface.outputs}

    def _groups(self, interface: Interface, arrays: Mapping[str, Array]) -> Iterator[tuple[dict[str, Array], int]]:
        """The inputs of each call, and how many of its rows are meant."""
        ports = {port.name: port for port in interface.inputs}
        count = next(array.shape[ports[n].shape.index(BATCH)] for n, array in arrays.items() if BATCH in ports[n].shape)
        for start in range(0, count, self.high):
            rows = min(self.high, count - start)
            picked = start + np.minimum(np.arange(max(rows, self.low)), rows - 1)
            yield {name: _rows(ports[name], array, picked) for name, array in arrays.items()}, rows

    def _named(self, program: str, outputs: Mapping[str, Tensor]) -> Any:
        return namedtuple(program, outputs)(**outputs)


def _rows(port: Port, array: Array, rows: Array) -> Array:
    """Some rows of a tensor, or all of it where it has none."""
    if BATCH not in port.shape:
        return array
    axis = port.shape.index(BATCH)
    return array if len(rows) == array.shape[axis] else np.ascontiguousarray(array.take(rows, axis))


def _joined(port: Port, parts: Sequence[Array]) -> Array:
    if len(parts) == 1 or BATCH not in port.shape:
        return parts[0]
    return np.concatenate(parts, port.shape.index(BATCH))


def _taking(names: Sequence[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a signature that says what it takes."""

    def taking(**given: Tensor) -> Any:
        return function(**given)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return taking
