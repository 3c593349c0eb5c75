"""Answers held against those of the model, and the model's kept as arrays, so that another machine can compare without
torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array, Interface, Port
from atinuke.runtime.parity import Difference, Texts
from atinuke.runtime.runner import Runner

SMALLEST = 1e-6  # an output that is nowhere larger counts as 0
LARGEST = 1e30  # stands for an error without bounds


def is_scores(output: str) -> bool:
    """Whether the last axis of an output holds scores, of which the highest is the answer."""
    return output == "logits" or output.endswith("_logits")


def differ(port: Port, wanted: Array, got: Array) -> Difference:
    """How far an output is from what the model gives. Whole numbers and masks must be equal; what is not finite in the
    model must be the same here."""
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        told = f"{got.dtype}{list(got.shape)} in place of {wanted.dtype}{list(wanted.shape)}"
        return Difference(port.name, 0.0, 0.0, fault=told)
    if not wanted.size:
        return Difference(port.name, 0.0, 0.0)
    if wanted.dtype.kind != "f":
        off = int((wanted != got).sum())
        return Difference(port.name, float(off > 0), off / wanted.size, fault=f"{off} differ" if off else None)
    agreement = float((wanted.argmax(-1) == got.argmax(-1)).mean()) if is_scores(port.name) else None
    finite = np.isfinite(wanted) & np.isfinite(got)
    same = finite | (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    large, other = wanted[finite].astype(np.float64), got[finite].astype(np.float64)
    absolute = float(np.abs(large - other).max(initial=0.0))
    relative = absolute / max(float(np.abs(large).max(initial=0.0)), SMALLEST)
    fault = (
        None
        if same.all()
        else f"{int((~same).sum())} of {same.size} are not finite where the model's are, or not alike"
    )
    return Difference(port.name, absolute, relative, agreement, fault)


def compare(interface: Interface, wanted: Mapping[str, Array], got: Mapping[str, Array]) -> tuple[Difference, ...]:
    """How far all outputs of a call are from what the model gives."""
    return tuple(differ(port, wanted[port.name], got[port.name]) for port in interface.outputs)


@dataclass(frozen=True)
class Writing:
    """Texts as the model goes on with them: what is read beside the text, `prompts[row, token]`, the tokens that the
    model adds, and of each step its best `choices[row, step, k]` with their scores and the largest score there is."""

    given: Mapping[str, Array]
    prompts: Array
    tokens: Array
    choices: Array
    scores: Array
    largest: Array


def write_on(runner: Runner, given: Mapping[str, Array], prompts: Array, steps: int) -> Iterator[Array]:
    """The scores `[row, token]` of each step, the text going on with the highest ones."""
    prepared = runner.run("prepare", given) if "prepare" in runner.programs else {}
    rows, length = prompts.shape
    memory = runner.begin("prefill", {"batch": rows, "capacity": length + steps})
    text = runner.programs["prefill"].inputs[0]
    position, last = np.zeros(rows, np.int64), np.full(rows, length - 1, np.int64)
    feeds = {text.name: prompts, "position": position, "last": last, **prepared}
    scores = runner.step("prefill", feeds, memory)["logits"][:, 0]
    yield scores
    for step in range(1, steps):
        token = scores.argmax(-1)[:, None].astype(text.dtype)
        feeds = {text.name: token, "position": position + (length + step - 1), **prepared}
        scores = runner.step("decode", feeds, memory)["logits"][:, 0]
        yield scores


def compare_texts(writing: Writing, runner: Runner) -> Texts:
    """Goes on with the same prompts, and finds where the first token differs."""
    rows, steps = writing.tokens.shape
    going = np.ones(rows, bool)
    relative, first, margin = 0.0, None, 0.0
    for step, scores in enumerate(write_on(runner, writing.given, writing.prompts, steps)):
        token = scores.argmax(-1)
        off = np.abs(np.take_along_axis(scores, writing.choices[:, step], -1) - writing.scores[:, step]).max(-1)
        share = np.nan_to_num(off / np.maximum(writing.largest[:, step], SMALLEST), nan=LARGEST, posinf=LARGEST)
        relative = max(relative, float(share[going].max()))
        for row in np.flatnonzero(going & (token != writing.tokens[:, step])):
            going[row] = False  # from here on the row reads something else
            first = step if first is None else first
            known = np.flatnonzero(writing.choices[row, step] == token[row])
            less = writing.scores[row, step, known[0] if known.size else -1]  # at least that much less, if not known
            gap = float(writing.scores[row, step, 0] - less) / max(float(writing.largest[row, step]), SMALLEST)
            margin = max(margin, gap)
        if not going.any():
            break
    return Texts(rows, steps, relative, first, margin)


def save_sample(file: Path, calls: list[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> None:
    """Writes the inputs and answers of calls."""
    arrays: dict[str, Array] = {}
    for i, (feeds, answers) in enumerate(calls):
        arrays |= {f"{i}/in/{name}": array for name, array in feeds.items()}
        arrays |= {f"{i}/out/{name}": array for name, array in answers.items()}
    np.savez(file, **arrays)  # type: ignore[arg-type]


def load_sample(file: Path, calls: int) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """The inputs and answers of calls, one after another."""
    with _open(file) as arrays:
        for i in range(calls):
            ways = tuple(
                {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
                for start in (f"{i}/in/", f"{i}/out/")
            )
            yield ways[0], ways[1]


def save_writing(file: Path, writing: Writing) -> None:
    """Writes texts and how the model goes on."""
    parts = {name: array for name, array in vars(writing).items() if name != "given"}
    parts |= {f"given/{name}": array for name, array in writing.given.items()}
    np.savez(file, **parts)


def load_writing(file: Path) -> Writing:
    """Texts and how the model goes on."""
    with _open(file) as arrays:
        given = {name.removeprefix("given/"): arrays[name] for name in arrays if name.startswith("given/")}
        parts = {name: arrays[name] for name in arrays if "/" not in name}
        return Writing(given, **parts)


def _open(file: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise fail("holds no samples", str(error), where=str(file), fix="compile the bundle again") from None
