"""Builds a target until it holds together with the model: in half precision, the first node that leaves the budget is
kept in float32 and the build repeated, as long as that helps.

Which nodes half precision cannot hold is first seen in torch, which rounds after every operation. An engine may widen
where it likes (ONNX Runtime computes much of float16 in float32 on a CPU) and another machine's may not; and what
cannot run here at all gets its nodes in float32 all the same.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atinuke.compile.blame import Blame, first_off, paths_of
from atinuke.compile.builder import Builder, Work
from atinuke.compile.certificate import EagerRunner, Reference, certify
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.core.errors import AtinukeError, fail
from atinuke.runtime.parity import BUDGETS, FAILED, NOT_RUN, Build, Call, Difference, Kept
from atinuke.runtime.runner import NotHereError, Runner

ROUNDS = 8
CLEAN = (
    "no node's output leaves the budget where all of them are looked at: the engine errs in what it makes of several"
)
CARRIED = "each call holds, but not one after another: what is carried from call to call is off"
UNKNOWN = "by which node is not known, since the target does not take a program that gives every node's output"
WIDE = "keeping it in float32 does not help"

OpenRunner = Callable[[Mapping[str, Program], Path], Runner]
Tell = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class Target:
    """A target in a precision: its name, its builder, and how what it wrote is opened."""

    name: str
    builder: Builder
    open_runner: OpenRunner


class Narrowing(Builder):
    """Half precision as torch computes it; nothing is written."""

    precisions = tuple(HALVES)

    def __init__(self) -> None:
        self.made: dict[str, Program] = {}

    def build(self, work: Work, folder: Path) -> None:
        self.made = {
            name: narrow(program, HALVES[work.precision], work.float32) for name, program in work.programs.items()
        }

    def open_runner(self, made: Mapping[str, Program], folder: Path) -> Runner:
        return EagerRunner(self.made)


def prove(target: Target, work: Work, reference: Reference, folder: Path, seconds: float, tell: Tell) -> Build:
    """Builds into the folder, which is empty, and compares with the model for about `seconds`. What comes back may have
    failed: then the folder's files are good for nothing.

    Raises:
        AtinukeError: the target does not take the model, or the engine not the files, or no call could be compared
            although the engine is here.
    """
    if work.precision not in HALVES or work.precision not in target.builder.islands:
        return _compared(_settle(target, work, reference, folder, seconds, tell))
    builder = Narrowing()
    in_torch = Target(f"{target.name} in torch", builder, builder.open_runner)
    with tempfile.TemporaryDirectory() as draft:
        seen = _settle(in_torch, work, reference, Path(draft) / "made", seconds, tell)
    paths = (paths_of(reference.checked, one.node) for one in seen.kept)
    work = replace(work, float32=work.float32.union(*paths))
    found = _compared(_settle(target, work, reference, folder, seconds, tell))
    if found.status == NOT_RUN and seen.status == FAILED:
        found = replace(found, blame=f"in torch, {seen.blame}")
    return replace(found, kept=(*seen.kept, *found.kept))


def _compared(build: Build) -> Build:
    """Refuses a build of which nothing was compared although its engine is here."""
    if build.status == NOT_RUN and not build.reason:
        told = f"nothing of {build.name} could be compared: {build.calls[0].reason}"
        raise fail(told, fix="narrow the axes (--set batch=1..8) or allow more --minutes")
    return build


def _settle(target: Target, work: Work, reference: Reference, folder: Path, seconds: float, tell: Tell) -> Build:
    """Builds until it holds, or until no node helps any more."""
    folder.mkdir(parents=True, exist_ok=True)
    budget = BUDGETS[work.precision]
    rounds: list[tuple[Blame, Build]] = []
    while True:
        found = _once(target, work, reference, folder, seconds, tell, budget)
        builds = [*(build for _, build in rounds), found]
        kept = tuple(
            Kept(blame.kind, told(blame.difference), _worst(before), _worst(after))
            for (blame, before), after in zip(rounds, builds[1:], strict=True)
        )
        found = replace(found, kept=kept)
        if found.status != FAILED:
            return found
        call = next((call for call in found.calls if call.status(budget) == FAILED), None)
        if call is None:
            return replace(found, blame=CARRIED)
        tell(f"{target.name}: looking for the node", 0, 0)
        try:
            blame = _blame(target, work, reference, call, budget)
        except AtinukeError as error:
            return replace(found, blame=f"{UNKNOWN}: {error.mistakes[0].what}")
        if blame is None:
            return replace(found, blame=CLEAN)
        island = work.precision in target.builder.islands
        again = paths_of(reference.checked, blame.kind) <= work.float32
        if not island or again or len(rounds) == ROUNDS:
            why = f"; {WIDE}" if again else ""
            place = f", {blame.where}" if blame.where else ""
            return replace(found, blame=f"{blame}{place}: {told(blame.difference)}{why}")
        rounds.append((blame, found))
        work = replace(work, float32=work.float32 | paths_of(reference.checked, blame.kind))
        shutil.rmtree(folder)
        folder.mkdir()


def told(one: Difference) -> str:
    """A difference in words."""
    return one.fault or f"error {one.relative:.1e} of its largest value"


def _worst(build: Build) -> str:
    worst = build.worst
    return told(worst[1]) if worst else "not compared"


def _once(
    target: Target, work: Work, reference: Reference, folder: Path, seconds: float, tell: Tell, budget: float
) -> Build:
    kept = f" ({len(work.float32)} nodes in float32)" if work.float32 else ""
    tell(f"{target.name}: building{kept}", 0, 0)
    target.builder.build(work, folder)
    try:
        runner = target.open_runner(work.programs, folder)
        calls, texts = certify(
            reference, runner, seconds, lambda done, of: tell(f"{target.name}: comparing{kept}", done, of)
        )
    except NotHereError as error:
        return Build(target.name, budget, reason="; ".join(mistake.what for mistake in error.mistakes))
    return Build(target.name, budget, calls, texts)


def _blame(target: Target, work: Work, reference: Reference, call: Call, budget: float) -> Blame | None:
    planned = next(
        one
        for one in reference.planned
        if (one.call.program, one.call.kind, one.call.sizes) == (call.program, call.kind, call.sizes)
    )
    feeds, _ = reference.answer(planned)
    program = work.programs[call.program]
    with tempfile.TemporaryDirectory() as draft:
        place = Path(draft)
        return first_off(reference.checked, program, feeds, budget, target.builder, work, place, target.open_runner)
