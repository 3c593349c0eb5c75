"""The training loop: from a module and its batches to trained weights, a log and checkpoints.

Everything a step does depends on the weights, the sampler's position, the step's number and the recipe's seed, and all
of that is in a checkpoint: a run that is killed at any moment and resumed ends with the same weights, bit for bit.
Dropout draws from a generator that each step seeds anew, so no generator's state needs to be kept.

The loss of a step is the mean over its tokens (or rows), however they are spread over micro-batches and processes: two
processes give the same step as one with twice the batch.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from atinuke.compile.inductor import compile_blocks
from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint, curve, log
from atinuke.pipelines.blocks import checkpoint_blocks
from atinuke.pipelines.display import Display
from atinuke.pipelines.interrupt import listening
from atinuke.pipelines.optimiser import build_optimiser
from atinuke.pipelines.peak import gemm_peak
from atinuke.pipelines.recipe import Recipe
from atinuke.pipelines.sampler import IGNORED, Batch
from atinuke.pipelines.schedule import rate
from atinuke.pipelines.watch import Watch
from atinuke.pipelines.world import World

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def predicted_tokens(batch: Batch, labels: str = "labels") -> int:
    """How many labels of a batch count."""
    return int((batch[labels] != IGNORED).sum())


class Batches(Protocol):
    """An endless source of micro-batches, each the inputs of the module by name, with a position."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


@dataclass(frozen=True)
class Feed:
    """What a model is trained and validated on; `count` counts the `unit` (tokens or rows) in a batch."""

    batches: Batches
    validation: Callable[[], Iterable[Batch]] | None = None
    count: Callable[[Batch], int] = predicted_tokens
    unit: str = "tokens"
    flops_per_unit: float | None = None
    bytes_per_token: float | None = None


@dataclass(frozen=True)
class Job:
    """What is trained on what.

    `module(**batch)` returns a tuple whose fields `losses` are means over what the feed counts in a batch, or over the
    labels of the input that `counted` names for them. Their sum with these weights is made smaller; `figures` are
    further fields that are logged. With `has_perplexity`, `loss` is the mean of minus the logarithm of the probability
    of a token. The `frozen` parameters are not saved: they are those of the file `base`. `heights` says how many layers
    stand behind each parameter.
    """

    module: nn.Module
    feed: Feed
    losses: Mapping[str, float] = field(default_factory=lambda: {"loss": 1.0})
    figures: tuple[str, ...] = ()
    counted: Mapping[str, str] = field(default_factory=dict)
    has_perplexity: bool = True
    base: Path | None = None
    frozen: frozenset[str] = frozenset()
    heights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after `step` steps; `signal` is what interrupted it, or None when it is finished."""

    folder: Path
    step: int
    signal: Signals | None = None


class Loop:
    """Trains a job by a recipe in a run folder, going on from its newest checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path, job: Job, world: World, console: Console) -> None:
        self.recipe, self.folder, self.job, self.world = recipe, folder, job, world
        self.display = Display(console if world.rank == 0 else Console(quiet=True), recipe.steps)
        self.module = job.module.to(world.device)
        self.optimiser = build_optimiser(self.module, recipe.optimiser, job.heights)
        self.watch = Watch(recipe.on_bad_loss)
        self.step = self._restore()
        self.log: log.Log | None = None
        if recipe.activation_checkpointing:
            checkpoint_blocks(self.module)
        if recipe.compile == "blocks":
            compile_blocks(self.module)
        elif recipe.compile == "whole":
            self.module.compile()
        self.model = world.share(self.module)
        self.peak = gemm_peak(DTYPES[recipe.precision], world.device) if job.feed.flops_per_unit else None

    def run(self) -> Outcome:
        """Trains until the recipe's last step, or until a signal comes.

        Raises:
            AtinukeError: a bad step by the recipe's rule, or a log or checkpoint that cannot be written.
        """
        recipe, signal = self.recipe, None
        if self.world.rank == 0:
            self.log = log.Log(self.folder, self.step)
        with self.log or nullcontext(), self.display, listening() as interrupt:
            while self.step < recipe.steps and signal is None:
                self.step += 1
                self._train()
                last = self.step == recipe.steps
                evaluates = self.job.feed.validation and (last or self.step % recipe.evaluate_every == 0)
                if self.job.feed.validation and evaluates:
                    self._evaluate(self.job.feed.validation())
                if not last and self.world.any(interrupt.came is not None):
                    signal = interrupt.came or Signals.SIGTERM
                if last or signal or self.step % recipe.save_every == 0:
                    self._save()
                if evaluates:
                    self._draw()
            self._draw()
        return Outcome(self.folder, self.step, signal)

    def _train(self) -> None:
        """One step: the gradient over all micro-batches, the rule for bad steps, the optimiser."""
        recipe, begin = self.recipe, time.perf_counter()
        torch.manual_seed(_seed(recipe.seed, self.step, self.world.rank))
        self.model.train()
        batches = [next(self.job.feed.batches) for _ in range(recipe.accumulate)]
        waited = time.perf_counter() - begin
        counts = list(map(self._counts, batches))
        count, *totals = self.world.sum(*map(sum, zip(*counts, strict=True)))
        shares = [[mine / max(all_, 1) for mine, all_ in zip(own, totals, strict=True)] for _, *own in counts]
        found = [self._backward(*one, last=one[0] is batches[-1]) for one in zip(batches, shares, strict=True)]
        figures = self._named(self.world.sum(*torch.stack(found).sum(0).tolist()))
        loss = figures["loss"]
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])

        reason = self.watch.judge(loss, norm.item())
        lr = recipe.optimiser.lr * rate(recipe.schedule, self.step, recipe.steps)
        if reason is None:
            if recipe.clip:
                nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
            for group in self.optimiser.param_groups:
                group["lr"] = lr * group["scale"]
            self.optimiser.step()
        self.optimiser.zero_grad()
        if reason is not None:
            self._refuse(reason)
            return

        seconds = time.perf_counter() - begin
        speed = count / seconds
        figures |= {"lr": lr, "gradient_norm": norm.item(), "seconds": seconds, "waiting": waited / seconds}
        figures[f"{self.job.feed.unit}_per_second"] = speed
        if self.peak and self.job.feed.flops_per_unit:
            figures["mfu"] = speed * self.job.feed.flops_per_unit / (self.peak * self.world.size)
        self._record(**figures)
        self.display.step(self.step, figures)

    def _counts(self, batch: Batch) -> list[int]:
        """What the feed counts in a batch, and what each of the losses and figures is a mean over."""
        count = self.job.feed.count(batch)
        labels = (self.job.counted.get(name) for name in (*self.job.losses, *self.job.figures))
        return [count, *(predicted_tokens(batch, name) if name else count for name in labels)]

    def _backward(self, batch: Batch, shares: Sequence[float], last: bool) -> Tensor:
        """Adds a micro-batch to the gradients; returns its shares of the step's losses and figures."""
        weights = tuple(self.job.losses.values())
        # Processes exchange gradients with the last micro-batch only. They average, so each mean is made a sum again.
        with nullcontext() if last or self.world.size == 1 else self.model.no_sync():  # type: ignore[operator]
            values = self._values(self._forward(batch))
            values = values * values.new_tensor(shares)
            objective = values[: len(weights)] @ values.new_tensor(weights)
            torch.autograd.backward(objective * self.world.size)
        return values.detach()

    def _values(self, output: Any) -> Tensor:
        """The losses, and behind them the figures."""
        return torch.stack([getattr(output, name).float() for name in (*self.job.losses, *self.job.figures)])

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        """Losses and figures by name; `loss` is the sum of all losses where none has that name."""
        named = dict(zip((*self.job.losses, *self.job.figures), values, strict=True))
        total = sum(weight * named[name] for name, weight in self.job.losses.items())
        return {"loss": total, **named}

    def _forward(self, batch: Batch) -> Any:
        device = self.world.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return self.model(**{name: tensor.to(device) for name, tensor in batch.items()})

    @torch.no_grad()
    def _evaluate(self, batches: Iterable[Batch]) -> None:
        """The losses and figures over the validation batches, each process taking its turn."""
        self.model.eval()
        total = torch.zeros(len(self.job.losses) + len(self.job.figures), dtype=torch.float64)
        count = torch.zeros_like(total)
        for index, batch in enumerate(islice(batches, self.recipe.evaluate_batches)):
            if index % self.world.size == self.world.rank:
                counts = torch.tensor(self._counts(batch)[1:], dtype=torch.float64)
                total += self._values(self._forward(batch)).double().cpu() * counts
                count += counts
        sums = torch.tensor(self.world.sum(*total.tolist(), *count.tolist()), dtype=torch.float64).view(2, -1)
        if not sums[1].all():
            names = (*self.job.losses, *self.job.figures)
            empty = [name for name, counted in zip(names, sums[1].tolist(), strict=True) if not counted]
            what = f"nothing in the validation data counts for `{empty[0]}`"
            raise fail(what, where=str(self.folder), fix="give it labels, or a longer `evaluate_batches`")
        means = (sums[0] / sums[1]).tolist()
        figures = {f"validation_{name}": value for name, value in self._named(means).items()}
        if self.job.feed.unit == "tokens" and self.job.has_perplexity:
            figures["perplexity"] = math.exp(min(figures["validation_loss"], 700.0))
        if self.job.feed.bytes_per_token:
            figures["bits_per_byte"] = figures["validation_loss"] / math.log(2) / self.job.feed.bytes_per_token
        self._record(**figures)
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        self.display.say(f"step {self.step}: {said}")

    def _refuse(self, reason: str) -> None:
        """Says that a step was not applied; ends the run where the rule says so."""
        self._record(bad=reason)
        self.display.say(f"step {self.step} was not applied: {reason}")
        if self.watch.gives_up:
            raise fail(
                f"training stopped at step {self.step}: {reason}",
                f"bad steps in a row: {self.watch.row}",
                "its last checkpoint is untouched",
                where=str(self.folder),
                fix="lower `optimiser.lr`, lengthen `schedule.warmup`, or set `on_bad_loss.do` to `skip`",
            )

    def _record(self, **values: float | str) -> None:
        if self.log:
            self.log.write(self.step, **values)

    def _draw(self) -> None:
        if self.log and self.watch.recent:
            curve.draw(self.log.path, self.folder / "loss.png")

    def _save(self) -> None:
        """A checkpoint, by the first process."""
        if not self.log:
            return
        self.log.flush()
        state = checkpoint.State(
            step=self.step,
            rows=self._rows(),
            sampler=self.job.feed.batches.state_dict(),
            recent=tuple(self.watch.recent),
            row=self.watch.row,
        )
        place, frozen = self.folder / "checkpoints", self.job.frozen
        checkpoint.save(place, self.module, self.optimiser, state, self.recipe.keep, frozen)

    def _rows(self) -> int:
        return self.recipe.batch * self.recipe.accumulate * self.world.size

    def _restore(self) -> int:
        """The step of the newest checkpoint, now loaded; 0 where there is none yet."""
        found = checkpoint.saved(self.folder / "checkpoints")
        if not found:
            return 0
        state = checkpoint.load(found[-1], self.module, self.optimiser, self.job.base)
        if state.step > self.recipe.steps:
            what = f"the run is at step {state.step} already, beyond `steps` {self.recipe.steps}"
            raise fail(what, where=str(found[-1]), fix=f"let `steps` be at least {state.step}")
        if state.rows != self._rows():
            raise fail(
                f"its steps have {state.rows} rows, but those of this run would have {self._rows()}",
                f"batch {self.recipe.batch}, accumulate {self.recipe.accumulate}, processes {self.world.size}",
                where=str(found[-1]),
                fix="resume with as many processes, or change `accumulate` so that the product is the same",
            )
        self.job.feed.batches.load_state_dict(state.sampler)
        self.watch = Watch(self.recipe.on_bad_loss, state.recent, state.row)
        self.display.say(f"resumed from {found[-1].name}")
        return state.step


def _seed(seed: int, step: int, rank: int) -> int:
    """Far apart for neighbouring steps and ranks, which as seeds themselves would give related streams."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:4])
