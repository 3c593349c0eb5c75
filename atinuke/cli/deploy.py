"""Commands about deployed models."""

from pathlib import Path
from typing import Annotated

import typer

from atinuke.cli.say import NONE, Sets, Swaps, say


def compile(  # noqa: A001 - the command's name
    subject: Annotated[str, typer.Argument(help="A run's folder, a graph file, or a shipped graph's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder.")],
    target: Annotated[
        list[str],
        typer.Option("--target", "-t", help="A target and its precision: onnx/fp32.", metavar="TARGET/PRECISION"),
    ] = NONE,
    sets: Sets = NONE,
    swaps: Swaps = NONE,
    without: Annotated[list[str], typer.Option(help="Leave out an optional input.", metavar="INPUT")] = NONE,
    step: Annotated[bool, typer.Option(help="Compile the step form, where the graph has one.")] = True,
) -> None:
    """Compile a run for targets into a bundle, proved to say the same."""
    from atinuke.pipelines.deploy import compile_bundle, open_subject

    builds = [tuple(one.partition("/")[::2]) for one in target or ["onnx/fp32"]]
    bundle = compile_bundle(open_subject(subject, sets, swaps), builds, output, step, without)  # type: ignore[arg-type]
    say(f"wrote {bundle.folder}")


def seal(folder: Annotated[Path, typer.Argument(help="A bundle's folder.")]) -> None:
    """Seal a bundle anew, after changing it on purpose: its licence in README.md, say."""
    from atinuke.runtime.seal import reseal

    reseal(folder)
    say(f"sealed {folder}")
