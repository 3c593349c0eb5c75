"""The command that says which of two systems is better, or that nobody may say."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atinuke.cli.say import AsJson, say, say_json

if TYPE_CHECKING:
    from atinuke.pipelines.significance import Comparison

Side = Annotated[
    Path,
    typer.Argument(help="A folder with an evaluation of a task or, of several seeds, with as many as the other side."),
]


def compare(
    a: Side,
    b: Side,
    resamples: Annotated[int, typer.Option(help="How often chance is tried.", min=1000, max=1_000_000)] = 10_000,
    seed: Annotated[int, typer.Option(help="What chance follows from.", min=0)] = 0,
    json: AsJson = False,
) -> None:
    """Say which of two systems is better by their answers to the same items, or that nobody may say."""
    from dataclasses import asdict
    from math import isfinite

    from atinuke.pipelines.evaluations import aligned, find
    from atinuke.pipelines.scores.score import KINDS
    from atinuke.pipelines.significance import compare as judge
    from atinuke.pipelines.significance import verdicts

    first = find(a)
    second = [aligned(first[0], other) for other in find(b)]
    groups, scores = first[0].numbers(), first[0].scores
    judged = []
    for i in range(len(scores)):
        ours, theirs = ([one.scores[i] for one in side] for side in (first, second))
        judged.append(judge(ours, theirs, groups, resamples=resamples, seed=seed))
    found = verdicts(judged, [score.kind for score in scores])
    if json:
        task = {"task": first[0].task, "a": str(a), "b": str(b), "items": len(first[0].ids)}
        for one in (plain := [asdict(one) for one in found]):
            ends = one["difference"]
            ends.update({end: ends[end] if isfinite(ends[end]) else None for end in ("low", "high")})
        say_json({**task, "scores": plain})
        return
    items, units = len(first[0].ids), found[0].difference.units
    grouped = f" in {units:,} groups" if units < items else ""
    runs = f", {len(first)} runs each" if len(first) > 1 else ""
    say(f"{first[0].task}: A is {a}, B is {b}; {items:,} items{grouped}{runs}", "")
    _say_table(found, [KINDS[score.kind].share for score in scores])
    say("", *map(_verdict, found))


def _say_table(found: "tuple[Comparison, ...]", shares: list[bool]) -> None:
    from rich.table import Table

    table = Table("score", box=None, pad_edge=False)
    for column in ("A", "B", "A - B", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for one, share in zip(found, shares, strict=True):
        way = "{:.1%}" if share else "{:.4g}"
        signed = way.replace(":", ":+")
        interval = f"{signed.format(one.difference.low)} to {signed.format(one.difference.high)}"
        a, b, difference = way.format(one.a), way.format(one.b), signed.format(one.difference.value)
        table.add_row(one.score, a, b, difference, interval, f"{one.p:.2g}")
    say(table)


def _verdict(one: "Comparison") -> str:
    if one.better is None:
        return f"{one.score}: nobody may say which is better"
    return f"{one.score}: {one.better} is better"
