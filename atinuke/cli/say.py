"""What commands print: tables for people, JSON for programs, files without halves."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from atinuke.core.errors import AtinukeError, Mistake, Place, fail
from atinuke.core.files import replacing

File = Annotated[str, typer.Argument(help="A graph file, the folder of a run or model, or the name of one that ships.")]
Sets = Annotated[list[str], typer.Option("--set", help="Set a dim or axis: d_model=512.", metavar="NAME=VALUE")]
Swaps = Annotated[
    list[str], typer.Option("--swap", help="Exchange a component: layer.P=identity.", metavar="NODE=COMPONENT")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
At = Annotated[list[str], typer.Option("--at", help="A size of a free axis: batch=8.", metavar="AXIS=SIZE")]
NONE: list[str] = []  # typer copies it
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of printing.")]


def chosen(at: list[str]) -> dict[str, int]:
    """The sizes in `--at batch=8 --at sequence=128`.

    Raises:
        AtinukeError: one is no size, or is given twice.
    """
    sizes = dict(map(_size, at))
    if len(sizes) < len(at):
        raise fail("a size is given twice", f"got {' '.join(at)}", where="--at", fix="give each axis one size")
    return sizes


def _size(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not re.fullmatch("[0-9]{1,15}", value):
        raise fail("a size must look like batch=8", f"got {text!r}", where=f"--at {text}")
    return name.strip(), int(value)


def say(*things: Any) -> None:
    """Prints texts and rich tables."""
    from rich.console import Console

    console = Console(highlight=False)
    for thing in things:
        console.print(thing, markup=False, soft_wrap=isinstance(thing, str))


def say_json(data: Any) -> None:
    """Prints JSON, one document."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def as_json(error: AtinukeError) -> list[dict[str, Any]]:
    """An error's mistakes as plain data."""
    return [_plain(mistake) for mistake in error.mistakes]


def _plain(mistake: Mistake) -> dict[str, Any]:
    place = mistake.where
    return {
        "file": place.file if isinstance(place, Place) else place,
        "line": place.line if isinstance(place, Place) else None,
        "what": mistake.what,
        "details": list(mistake.details),
        "fix": mistake.fix,
    }


def write(text: str, output: Path | None) -> None:
    """Prints a text, or writes it to a file whole or not at all.

    Raises:
        AtinukeError: the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    if output.is_char_device() or output.is_fifo():
        output.write_text(text, encoding="utf-8")
        return
    with replacing(output.resolve()) as draft:
        draft.write_text(text, encoding="utf-8")
    say(f"wrote {output}")
