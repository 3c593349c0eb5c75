"""The proof that what was built says the same as the model: eager in float32 against the target, call by call."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atinuke.compile.plan_calls import ALONG, Scale, Weight, points
from atinuke.compile.programs import Program
from atinuke.compile.samples import draw
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.runtime.comparison import Writing, compare, compare_texts, save_sample, save_writing, write_on
from atinuke.runtime.interface import BATCH, CAPACITY, Array
from atinuke.runtime.parity import CHOICES, ROOM, SAMPLES, STEPS, TEXTS, Call, Difference, Texts
from atinuke.runtime.runner import Runner

REAL = "real inputs"
ROWS, PROMPT = 2, 8
SLOWEST = 1 / 8  # of the machine's speed at a product of matrices: the model and the target, one after the other
TOLD = 1 << 30  # FLOPs from which a call tells the machine's speed

Feeds = Mapping[str, Array]
Given = Mapping[str, Tensor]  # tensors for inputs of the graph


class EagerRunner(Runner):
    """The model itself as a runner."""

    def __init__(self, programs: Mapping[str, Program]) -> None:
        interfaces = {name: program.interface for name, program in programs.items()}
        axes = {name: axis for program in programs.values() for name, axis in program.axes.items()}
        super().__init__(Path(), interfaces, axes, "fp32")
        self._modules = {name: program.module for name, program in programs.items()}

    def call(self, program: str, feeds: Feeds) -> dict[str, Array]:
        interface = self.programs[program]
        with torch.no_grad():
            outputs = self._modules[program](*(torch.from_numpy(feeds[port.name]) for port in interface.inputs))
        return {port.name: one.numpy() for port, one in zip(interface.outputs, outputs, strict=True)}


class Noting(EagerRunner):
    """Notes under `read` what the programs are given: the calls 1, 2, 4, 8 ... of each, so that a text is read at its
    beginning and far on."""

    def __init__(self, programs: Mapping[str, Program], read: Mapping[str, list[Feeds]]) -> None:
        super().__init__(programs)
        self.read = read
        self.calls = dict.fromkeys(read, 0)

    def call(self, program: str, feeds: Feeds) -> dict[str, Array]:
        if program in self.read:
            self.calls[program] += 1
            if self.calls[program].bit_count() == 1:
                self.read[program].append(dict(feeds))
        return super().call(program, feeds)


@dataclass(frozen=True)
class Planned:
    """A call to be compared, and what it asks of this machine; of a drawn one the inputs follow from the sizes."""

    call: Call
    weight: Weight
    feeds: Feeds | None = None


class Reference:
    """The model's answers: planned calls from the lightest to the heaviest, and texts that it goes on with.

    `real` are inputs of the graph that were not drawn: a batch of a run's data. The first answers, up to `room` bytes
    of a program, are kept.
    """

    def __init__(
        self, checked: CheckedGraph, programs: Mapping[str, Program], real: Given | None = None, room: int = ROOM
    ) -> None:
        self.checked, self.programs = checked, programs
        self.eager = EagerRunner(programs)
        planned = [one for program in programs.values() for one in self._plan(program)]
        planned += self._real(real) if real else []
        self.planned = sorted(planned, key=lambda one: one.weight.flops)
        self.kept: dict[str, list[tuple[Call, Feeds, Feeds]]] = {name: [] for name in programs}
        rooms = dict.fromkeys(programs, room)
        for one in sorted(planned, key=lambda one: (one.call.kind != REAL, one.weight.flops)):
            name = one.call.program
            rooms[name] -= one.weight.stored
            if rooms[name] >= 0:
                self.kept[name].append((one.call, *self._work_out(one)))
        self.read: dict[str, list[Feeds]] = {name: [] for name in programs}
        self.writing = self._write(real)

    def answer(self, planned: Planned) -> tuple[Feeds, Feeds]:
        """The inputs of a call and what the model gives."""
        for call, feeds, answers in self.kept[planned.call.program]:
            if call is planned.call:
                return feeds, answers
        return self._work_out(planned)

    def calibration(self) -> dict[str, list[tuple[Tensor, ...]]]:
        """Inputs of each program whose answers are kept: real ones, where there are any. Of the programs of a text
        these are what the real texts were gone on with."""
        found = {}
        for name, kept in self.kept.items():
            real = [feeds for call, feeds, _ in kept if call.kind == REAL] or self.read[name]
            ports = self.programs[name].interface.inputs
            batches = real or [feeds for _, feeds, _ in kept]
            found[name] = [tuple(torch.from_numpy(feeds[port.name]) for port in ports) for feeds in batches]
        return found

    def save(self, folder: Path) -> dict[str, tuple[Call, ...]]:
        """Writes the answers that are kept to the folder `samples` in a folder; says which calls these are."""
        if self.kept or self.writing:
            (folder / SAMPLES).mkdir()
        for name, kept in self.kept.items():
            save_sample(folder / SAMPLES / f"{name}.npz", [(feeds, answers) for _, feeds, answers in kept])
        if self.writing:
            save_writing(folder / SAMPLES / f"{TEXTS}.npz", self.writing)
        return {name: tuple(call for call, _, _ in kept) for name, kept in self.kept.items()}

    def _work_out(self, planned: Planned) -> tuple[Feeds, Feeds]:
        call = planned.call
        feeds = planned.feeds
        if feeds is None:
            program = self.programs[call.program]
            tensors = draw(self.checked, program, call.sizes)
            feeds = {p.name: t.numpy() for p, t in zip(program.interface.inputs, tensors, strict=True)}
        return feeds, self.eager.run(call.program, feeds)

    def _plan(self, program: Program) -> Iterator[Planned]:
        weigh = Scale(program)
        for kind, sizes in points(program):
            weight = (weigh.along if kind == ALONG else weigh)(sizes)
            yield Planned(Call(program.name, kind, sizes), weight)

    def _real(self, given: Given) -> Iterator[Planned]:
        """The program that reads what the graph reads, with real inputs; the steps behind it take part in the texts."""
        for name in ("forward", "prepare"):
            if name in self.programs:
                program = self.programs[name]
                feeds = {port.name: given[port.name].numpy() for port in program.interface.inputs}
                sizes = program.interface.check(feeds, self.eager.axes)
                yield Planned(Call(name, REAL, sizes), Scale(program)(sizes), feeds)

    def _write(self, real: Given | None) -> Writing | None:
        """How the model goes on with texts: real ones, or drawn ones."""
        decode = self.programs.get("decode")
        if decode is None or "logits" not in {port.name for port in decode.interface.outputs}:
            return None
        axes = self.eager.axes
        rows = min(max(ROWS, axes[BATCH][0]), axes[BATCH][1])
        prefill = self.programs["prefill"]
        text = prefill.interface.inputs[0]
        low, high = axes[str(text.shape[1])]
        length = min(max(PROMPT, low), high)
        sizes = {name: min(max(PROMPT, axis[0]), axis[1]) for name, axis in axes.items()}
        drawn = {**sizes, BATCH: rows, str(text.shape[1]): length, CAPACITY: max(length, axes[CAPACITY][0])}
        prompts = draw(self.checked, prefill, drawn)[0].numpy()
        given = {}
        if "prepare" in self.programs:
            program = self.programs["prepare"]
            tensors = draw(self.checked, program, drawn)
            given = {p.name: t.numpy() for p, t in zip(program.interface.inputs, tensors, strict=True)}
        if real:
            prompts = real[text.name][:, :length].numpy()
            given = {name: real[name].numpy() for name in given}
        steps = min(STEPS, axes[CAPACITY][1] - prompts.shape[1])
        if steps < 1:
            return None
        reader = Noting(self.programs, self.read if real else {})
        found = [torch.from_numpy(scores) for scores in write_on(reader, given, prompts, steps)]
        best = [scores.topk(min(CHOICES, scores.shape[-1])) for scores in found]
        return Writing(
            given,
            prompts,
            torch.stack([one.indices[:, 0] for one in best], 1).numpy(),
            torch.stack([one.indices for one in best], 1).numpy(),
            torch.stack([one.values for one in best], 1).numpy(),
            torch.stack([scores.abs().amax(-1) for scores in found], 1).numpy(),
        )


def certify(
    reference: Reference, runner: Runner, seconds: float, tell: Callable[[int, int], Any] = lambda done, of: None
) -> tuple[tuple[Call, ...], Texts | None]:
    """Compares every planned call, from the lightest to the heaviest; those that would not be done within `seconds` in
    all, or not fit into memory, are not run and say so. Then the texts, if any call was run. `tell` hears how many
    calls are done."""
    ends = time.monotonic() + seconds
    pace = 1 / (SLOWEST * _speed())
    found: list[Call] = []
    for done, planned in enumerate(reference.planned):
        tell(done, len(reference.planned))
        call, weight = planned.call, planned.weight
        reason = _refusal(weight, pace, ends - time.monotonic())
        if reason:
            found.append(Call(call.program, call.kind, call.sizes, reason=reason))
            continue
        began = time.monotonic()
        feeds, wanted = reference.answer(planned)
        try:
            got = runner.run(call.program, feeds)
        except AtinukeError as error:
            fault = "; ".join((error.mistakes[0].what, *error.mistakes[0].details))
            first = runner.programs[call.program].outputs[0].name
            found.append(Call(call.program, call.kind, call.sizes, (Difference(first, 0.0, 0.0, fault=fault),)))
            continue
        if weight.flops >= TOLD:
            pace = (time.monotonic() - began) / weight.flops
        differences = compare(runner.programs[call.program], wanted, got)
        found.append(Call(call.program, call.kind, call.sizes, differences))
    failed = any(one.fault for call in found for one in call.differences)
    compared = any(call.differences for call in found)
    texts = compare_texts(reference.writing, runner) if reference.writing and compared and not failed else None
    return tuple(found), texts


def _refusal(weight: Weight, pace: float, left: float) -> str | None:
    """Why a call is not run here; None where it is."""
    import psutil

    free = psutil.virtual_memory().available
    if weight.memory > free:
        return f"needs about {weight.memory / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free"
    if weight.flops * pace > left:
        return f"would take about {weight.flops * pace:,.0f} s, {max(left, 0):,.0f} s are left"
    return None


def _speed() -> float:
    """FLOPs a second of this machine at a product of matrices."""
    one = torch.from_numpy(np.ones((512, 512), np.float32))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        one @ one
        times.append(time.perf_counter() - began)
    return float(2 * 512**3 / min(times))
