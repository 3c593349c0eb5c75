"""The incremental form: `step` after `step`, with what `prepare` gave once, equals `forward`."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atinuke.core.signature import Port, Signature
from atinuke.testing.compare import require_same
from atinuke.testing.eager import title
from atinuke.testing.law import NotApplicableError, ViolationError, law
from atinuke.testing.trial import Trial, as_tuple, seeded

PREFIX = "prefix_mask"


def no_step(signature: Signature) -> str | None:
    """Why a component has no step form."""
    return None if signature.steps else "it has no step()"


def _of_a_text(port: Port) -> bool:
    """Whether a port has something for every position of every row."""
    return port.shape.lead is None and [dim.name for dim in port.shape.dims[:2]] == ["batch", "sequence"]


@dataclass(frozen=True)
class StepCall:
    """How a component's step() is called: its first port by position, the ports it shares with forward() by keyword,
    and what prepare() makes of the ports `before` in between."""

    trial: Trial
    first: str
    others: tuple[str, ...]
    before: tuple[str, ...]

    @staticmethod
    def of(trial: Trial) -> "StepCall":
        """Raises ViolationError where step() cannot stand in for forward()."""
        inputs = trial.signature.inputs
        first, *rest = inputs
        if not _of_a_text(inputs[first]) or inputs[first].many:
            raise ViolationError(
                "the first port of a component with step() to be [batch sequence ...]", f"[{inputs[first].shape}]"
            )
        once = trial.signature.prepares
        now = set(inspect.signature(trial.contract.cls.step).parameters) - set(once)  # type: ignore[attr-defined]
        missing = [name for name in rest if name not in {*now, *once} and not inputs[name].optional]
        if missing:
            raise ViolationError(f"step() to take port `{missing[0]}`, which forward() needs", "it does not")
        fed = [name for name in rest if name in trial.case.ports]
        return StepCall(
            trial, first, tuple(name for name in fed if name in now), tuple(name for name in fed if name in once)
        )

    @property
    def ports(self) -> tuple[str, ...]:
        """Every port that has a part in the call."""
        return (self.first, *self.others, *self.before)

    def prepare(self, module: Any, feeds: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What is worked out once."""
        wanted = self.trial.signature.prepared
        if not wanted:
            return ()
        found = as_tuple(module.prepare(**{name: feeds[name] for name in self.before}))
        if len(found) != wanted:
            raise ViolationError(f"prepare() to give {wanted} tensors", f"{len(found)}")
        return found

    def __call__(
        self,
        module: Any,
        feeds: Mapping[str, Tensor],
        position: Tensor,
        state: tuple[Tensor, ...],
        prepared: tuple[Tensor, ...],
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Outputs and state of one call."""
        rest = {name: feeds[name] for name in self.others}
        found = as_tuple(module.step(feeds[self.first], position, *state, *prepared, **rest))
        count = len(self.trial.signature.outputs)
        if len(found) != count + len(state):
            raise ViolationError(
                f"step() to give {count} outputs and {len(state)} state tensors", f"{len(found)} values"
            )
        return found[:count], found[count:]

    def state(self, module: Any, batch: int, capacity: int) -> tuple[Tensor, ...]:
        """An empty state.

        Raises:
            NotApplicableError: the component cannot be stepped with these settings.
        """
        if not self.trial.signature.remembers:
            return ()
        try:
            return tuple(module.state(batch, capacity))
        except ValueError as error:
            raise NotApplicableError(f"state() refuses these settings: {error}") from None


@law(
    "step() of a prompt and then of the next tokens equals forward(), with rows at different positions",
    inapplicable=no_step,
)
def step(trial: Trial) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        _Steps(trial, dtype).run()


class _Steps:
    """One text a row: its prompt, padded on the right with garbage, is stepped whole; then come the rows' next tokens,
    each at its own position. The state is used before, by another text, up to its capacity."""

    def __init__(self, trial: Trial, dtype: torch.dtype) -> None:
        self.call = StepCall.of(trial)
        self.ports: Mapping[str, Port] = trial.signature.inputs
        self.trial = trial
        self.module = trial.build(dtype)
        names = self.call.ports
        every = {name: wires[0] for name, wires in trial.feeds(dtype).items()}
        self.feeds = {name: every[name] for name in names}
        self.garbage = {name: wires[0] for name, wires in trial.feeds(dtype, salt=1).items() if name in names}
        self.batch, self.length = self.feeds[self.call.first].shape[:2]
        generator = torch.Generator().manual_seed(trial.case.seed)
        self.prompts = torch.randint(1, self.length + 1, (self.batch,), generator=generator)
        if PREFIX in self.feeds:  # it comes in one step, which is that of the prompt, and padding is no part of it
            within = torch.arange(self.length) < self.prompts[:, None]
            self.feeds[PREFIX] = self.feeds[PREFIX] & within
            self.garbage[PREFIX] = torch.zeros_like(self.garbage[PREFIX])
        self.width = 1 + trial.case.seed % 2
        self.prepared: tuple[Tensor, ...] = ()

    def run(self) -> None:
        answers = self.trial.answer(self.module, {name: (wire,) for name, wire in self.feeds.items()})
        state = self.call.state(self.module, self.batch, self.length)
        form = [(tensor.shape, tensor.dtype) for tensor in state]
        with torch.no_grad(), seeded(self.trial.case.seed):
            self.prepared = self.call.prepare(self.module, self.feeds)
        start = torch.zeros(self.batch, dtype=torch.int64)
        longest = int(self.prompts.max())
        _, state = self.step(self.garbage, start, state)
        place = torch.arange(longest).expand(self.batch, -1)
        padding = place >= self.prompts[:, None]
        outputs, state = self.step(self.pick(place, padding), start, state)
        self.compare(answers, outputs, place, ~padding)
        position = self.prompts
        while int(position.max()) + self.width <= self.length:
            place = position[:, None] + torch.arange(self.width)
            outputs, state = self.step(self.pick(place), position, state)
            self.compare(answers, outputs, place, torch.ones_like(place, dtype=torch.bool))
            position = position + self.width
        for i, (tensor, (shape, dtype)) in enumerate(zip(state, form, strict=True)):
            if (tensor.shape, tensor.dtype) != (shape, dtype):
                raise ViolationError(
                    f"state {i} to stay {dtype} of shape {list(shape)}", f"{tensor.dtype} {list(tensor.shape)}"
                )

    def step(
        self, feeds: Mapping[str, Tensor], position: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        with torch.no_grad(), seeded(self.trial.case.seed):
            copies = {name: wire.clone() for name, wire in feeds.items()}
            return self.call(self.module, copies, position, state, self.prepared)

    def pick(self, place: Tensor, padding: Tensor | None = None) -> dict[str, Tensor]:
        """What stands at `place[batch, n]` of every port that has positions; garbage where there is padding."""
        return {
            name: self.at(name, self.feeds[name], place)
            if padding is None or not self.positions(name)
            else torch.where(
                padding.view(*padding.shape, *[1] * (self.feeds[name].dim() - 2)),
                self.at(name, self.garbage[name], place),
                self.at(name, self.feeds[name], place),
            )
            for name in self.feeds
        }

    def positions(self, name: str) -> bool:
        return _of_a_text(self.ports[name])

    def at(self, name: str, wire: Tensor, place: Tensor) -> Tensor:
        return wire[torch.arange(self.batch)[:, None], place] if self.positions(name) else wire

    def compare(
        self, answers: Mapping[str, Tensor], outputs: tuple[Tensor, ...], place: Tensor, counts: Tensor
    ) -> None:
        rows = torch.arange(self.batch)[:, None].expand_as(place)
        for (name, answer), output in zip(answers.items(), outputs, strict=True):
            if not _of_a_text(self.trial.signature.outputs[name]):
                continue
            if output.shape[:2] != place.shape:
                raise ViolationError(f"step() to give [batch sequence] = {list(place.shape)}", f"{list(output.shape)}")
            expected = answer[rows[counts], place[counts]]
            require_same(f"{title(name)} of step() as forward() gives it", expected, output[counts])
