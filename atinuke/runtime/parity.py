"""Whether a build says the same as the model: what was compared, and what came of it.

The certificate (`parity.json`) tells of every call of every build: at which sizes, how large the error, whether the
best scores agree. The answers of the model lie beside it as `samples/<program>.npz`, as far as there is room, so that
another machine can compare without torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from atinuke.runtime.config import read_build
from atinuke.runtime.quality import Measured, Quality, read_measured, read_quality
from atinuke.runtime.strict import WORD, Value, read_json, require_format

BUDGETS = {
    "fp32": 1e-4,
    "fp16": 1e-2,
    "bf16": 5e-2,
    "int8": 1e-1,
    "int8-weights": 5e-2,
    "int4-weights": 2e-1,
    "fp8": 1e-1,
}
"""The largest difference of an output, as a share of its largest value; docs/certificate.md has the reasons."""

FORMAT, OLDEST = 2, 1  # 2 adds `quality`
SAMPLES = "samples"
TEXTS = "texts"
ROOM = 16 << 20
"""Bytes of samples that are kept of a program."""
STEPS = 64
CHOICES = 16
PASSED, PARTLY, FAILED, NOT_RUN = "passed", "passed in part", "failed", "not run here"


@dataclass(frozen=True)
class Difference:
    """An output of one call: the largest difference in itself, and as a share of the output's largest value; the share
    of places that have the same highest score, where it holds scores; and what is wrong beyond any number."""

    output: str
    absolute: float
    relative: float
    agreement: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Call:
    """A program at certain sizes; `kind` says how they were chosen. `reason` says why it was not run here."""

    program: str
    kind: str
    sizes: Mapping[str, int]
    differences: tuple[Difference, ...] = ()
    reason: str | None = None

    def status(self, budget: float) -> str:
        if self.reason:
            return NOT_RUN
        return FAILED if any(one.fault or not one.relative <= budget for one in self.differences) else PASSED


@dataclass(frozen=True)
class Texts:
    """Texts that were gone on with, each by the token of the highest score: `relative` is the largest error of the
    model's best scores, as a share of the largest score, as long as a row reads what the model read; `first` is the
    first step at which a row has another token, and `margin` how much less that token is to the model. An error of the
    budget can exchange two tokens that are within twice the budget."""

    rows: int
    steps: int
    relative: float = 0.0
    first: int | None = None
    margin: float = 0.0

    def status(self, budget: float) -> str:
        return PASSED if self.relative <= budget and self.margin <= 2 * budget else FAILED


@dataclass(frozen=True)
class Kept:
    """Nodes that stay in float32: what was wrong with their output in a half precision, and the build's worst error
    without and with them."""

    node: str
    fault: str
    before: str
    after: str


@dataclass(frozen=True)
class Build:
    """What is known of one target in one precision. `reason` says why nothing of it was run here, or what is wrong.
    `quality` is measured where the bundle holds a quantised build."""

    name: str
    budget: float
    calls: tuple[Call, ...] = ()
    texts: Texts | None = None
    kept: tuple[Kept, ...] = ()
    blame: str | None = None
    reason: str | None = None
    quality: Measured | None = None

    @property
    def status(self) -> str:
        found = [call.status(self.budget) for call in self.calls]
        found += [self.texts.status(self.budget)] if self.texts else []
        if FAILED in found or self.blame:
            return FAILED
        if self.reason or not {*found} - {NOT_RUN}:
            return NOT_RUN
        return PARTLY if NOT_RUN in found else PASSED

    @property
    def worst(self) -> tuple[Call, Difference] | None:
        """The call and output with a fault or, with none, with the largest relative error."""
        found = [(call, one) for call in self.calls for one in call.differences]
        return max(found, key=lambda pair: (pair[1].fault is not None, pair[1].relative), default=None)

    @property
    def agreement(self) -> float | None:
        """The least agreement of the calls."""
        return min(
            (d.agreement for call in self.calls for d in call.differences if d.agreement is not None), default=None
        )

    @property
    def left(self) -> int:
        """How many calls were not run here."""
        return sum(call.reason is not None for call in self.calls)


@dataclass(frozen=True)
class Parity:
    """The certificate of a bundle. `inputs` says which real inputs were used, or why none; `samples` are the calls
    whose answers are kept, by program, in the order in which they are kept. `quality` says what the builds' `quality`
    was measured on."""

    inputs: str
    builds: tuple[Build, ...]
    samples: Mapping[str, tuple[Call, ...]]
    quality: Quality | None = None

    @property
    def failed(self) -> tuple[Build, ...]:
        return tuple(build for build in self.builds if build.status == FAILED)


def write_parity(file: Path, parity: Parity) -> None:
    """Writes the certificate."""
    file.write_text(to_json(parity), encoding="utf-8")


def to_json(parity: Parity) -> str:
    """The certificate as JSON, with the status of every build and call beside what it follows from."""
    builds = []
    for build in parity.builds:
        calls = [{**asdict(call), "status": call.status(build.budget)} for call in build.calls]
        texts = build.texts and {**asdict(build.texts), "status": build.texts.status(build.budget)}
        builds.append({**asdict(build), "calls": calls, "texts": texts, "status": build.status})
    samples = {program: [_plain(call) for call in calls] for program, calls in parity.samples.items()}
    quality = parity.quality and asdict(parity.quality)
    plain = {
        "atinuke": FORMAT,
        "inputs": parity.inputs,
        "builds": builds,
        "samples": samples,
        "quality": quality,
    }
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(call: Call) -> dict[str, Any]:
    return {"kind": call.kind, "sizes": dict(call.sizes)}


def read_parity(file: Path) -> Parity:
    """The certificate.

    Raises:
        AtinukeError: it is of a newer format, or damaged, or allows a build more than the budget of its precision.
    """
    value = read_json(file)
    more = ("quality",) if require_format(value, FORMAT, OLDEST) > OLDEST else ()
    told = value.record("atinuke", "inputs", "builds", "samples", *more)
    samples = {
        program: tuple(_call_of(program, call.record("kind", "sizes")) for call in calls.items())
        for program, calls in told["samples"].mapping(WORD).items()
    }
    builds = tuple(_build(build, more) for build in told["builds"].items())
    return Parity(told["inputs"].text(), builds, samples, told["quality"].maybe(read_quality) if more else None)


def _build(value: Value, more: tuple[str, ...]) -> Build:
    told = value.record("name", "budget", "calls", "texts", "kept", "blame", "reason", "status", *more)
    kept = (one.record("node", "fault", "before", "after") for one in told["kept"].items())
    name, budget = read_build(told["name"]), told["budget"].positive()
    if budget > (largest := BUDGETS.get(name.rpartition("/")[2], budget)):
        raise told["budget"].wrong(f"at most {largest:g}, the budget of {name}")
    return Build(
        name,
        budget,
        tuple(map(_call, told["calls"].items())),
        told["texts"].maybe(_texts),
        tuple(Kept(**{name: text.text() for name, text in one.items()}) for one in kept),
        told["blame"].maybe(Value.text),
        told["reason"].maybe(Value.text),
        told["quality"].maybe(read_measured) if more else None,
    )


def _call(value: Value) -> Call:
    told = value.record("program", "kind", "sizes", "differences", "reason", "status")
    call = _call_of(told["program"].text(WORD, "a program"), told)
    found = tuple(map(_difference, told["differences"].items()))
    return replace(call, differences=found, reason=told["reason"].maybe(Value.text))


def _call_of(program: str, told: Mapping[str, Value]) -> Call:
    sizes = {name: size.whole(0) for name, size in told["sizes"].mapping().items()}
    return Call(program, told["kind"].text(), sizes)


def _difference(value: Value) -> Difference:
    told = value.record("output", "absolute", "relative", "agreement", "fault")
    figures = told["absolute"].number(), told["relative"].number(), told["agreement"].maybe(Value.number)
    return Difference(told["output"].text(), *figures, told["fault"].maybe(Value.text))


def _texts(value: Value) -> Texts:
    told = value.record("rows", "steps", "relative", "first", "margin", "status")
    return Texts(
        told["rows"].whole(0),
        told["steps"].whole(0),
        told["relative"].number(),
        told["first"].maybe(lambda first: first.whole(0)),
        told["margin"].number(),
    )
