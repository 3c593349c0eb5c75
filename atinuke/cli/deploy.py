"""Commands about deployed models."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atinuke.cli.say import NONE, AsJson, Sets, Swaps, say
from atinuke.core.errors import fail

if TYPE_CHECKING:
    from atinuke.runtime.parity import Build, Call, Parity

HERE = "; go on with `atinuke verify` where it can run", "; narrow the axes (--set batch=1..8) or allow more --minutes"
THERE = "", "; the bundle holds no answers of them"
"""What is told of a build that was not run, and of one that was not run in part: where it is compiled, and later."""

Minutes = Annotated[float, typer.Option(help="How long the comparison of a build may take.", min=0.01)]


def compile(  # noqa: A001 - the command's name
    subject: Annotated[str, typer.Argument(help="A run's folder, a graph file, or a shipped graph's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle: a folder, or NAME.zip.")],
    target: Annotated[
        list[str],
        typer.Option(
            "--target", "-t", help="A target, perhaps with a precision: onnx, onnx/fp16.", metavar="TARGET[/PRECISION]"
        ),
    ] = NONE,
    sets: Sets = NONE,
    swaps: Swaps = NONE,
    without: Annotated[list[str], typer.Option(help="Leave out an optional input.", metavar="INPUT")] = NONE,
    step: Annotated[bool, typer.Option(help="Compile the step form, where the graph has one.")] = True,
    capability: Annotated[
        list[str],
        typer.Option(help="Build engines for GPUs of this compute capability only: 8.6.", metavar="MAJOR.MINOR"),
    ] = NONE,
    minutes: Minutes = 5,
) -> None:
    """Compile a run for targets into a bundle, proved to say the same."""
    from atinuke.pipelines.deploy import OverBudgetError, compile_bundle, open_subject
    from atinuke.runtime.bundle import PARITY
    from atinuke.runtime.parity import read_parity

    try:
        with _progress() as tell:
            opened = open_subject(subject, sets, swaps)
            bundle = compile_bundle(
                opened, target or ["onnx"], output, step, without, _capabilities(capability), minutes * 60, tell
            )
    except OverBudgetError as error:
        _say_parity(error.parity, HERE)
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    _say_parity(read_parity(bundle.folder / PARITY), HERE)
    say(f"wrote {output}")


def _capabilities(texts: list[str]) -> list[int]:
    """Compute capabilities as numbers: 86 for 8.6."""
    for text in texts:
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", text):
            raise fail("must look like MAJOR.MINOR", where=f"--capability {text}", fix="write for instance 8.6")
    return [int(text.replace(".", "")) for text in texts]


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    target: Annotated[list[str], typer.Option("--target", "-t", help="Only these builds.", metavar="BUILD")] = NONE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the certificate of this machine here, as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle's builds with the model's answers, on this machine. Exit code 1: a build is over its budget; 3:
    no build could be compared here."""
    from atinuke.cli.say import write
    from atinuke.runtime.bundle import open_bundle
    from atinuke.runtime.parity import NOT_RUN, to_json
    from atinuke.runtime.verify import verify as verified

    with _progress() as tell:
        parity = verified(open_bundle(bundle), target, tell)
    if as_json:
        write(to_json(parity), None)
    else:
        _say_parity(parity, THERE)
    if output:
        write(to_json(parity), output)
    if parity.failed:
        raise typer.Exit(1)
    if all(build.status == NOT_RUN for build in parity.builds):
        raise typer.Exit(3)


def seal(folder: Annotated[Path, typer.Argument(help="A bundle's folder.")]) -> None:
    """Seal a bundle anew, after changing it on purpose: its licence in README.md, say."""
    from atinuke.runtime.seal import reseal

    reseal(folder)
    say(f"sealed {folder}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], Any]]:
    """A line that tells what is being done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of or None)

        yield tell


def _say_parity(parity: "Parity", more: tuple[str, str]) -> None:
    """The certificate as a table, and what it means; `more` is said of what was not run."""
    from rich.table import Table

    from atinuke.runtime.parity import NOT_RUN, PARTLY
    from atinuke.runtime.quality import explain
    from atinuke.runtime.quality import table as rows_of

    table = Table("build", "status", "budget", "worst error", "same best", "texts", box=None, pad_edge=False)
    for build in parity.builds:
        table.add_row(build.name, build.status, f"{build.budget:.0e}", *_figures(build))
    say(table, f"inputs: {parity.inputs}")
    for build in parity.builds:
        if build.worst:
            call, one = build.worst
            fault = f": {one.fault}" if one.fault else ""
            say(f"{build.name}: worst is {one.output} of {call.program} ({call.kind}) at {_sizes(call)}{fault}")
    if parity.quality:
        head, *rows = rows_of(parity.quality, {build.name: build.quality for build in parity.builds})
        measured = Table(*head, box=None, pad_edge=False)
        for row in rows:
            measured.add_row(*row)
        say("", measured, explain(parity.quality))
    for build in parity.builds:
        for kept in build.kept:
            errors = f"worst before: {kept.before}, now: {kept.after}"
            say(f"{build.name}: {kept.node} stays in float32 ({kept.fault}); {errors}")
        left = next((call for call in build.calls if call.reason), None)
        if build.status == NOT_RUN:
            reason = build.reason or (left and left.reason) or "no call is known"
            say(f"{build.name}: {NOT_RUN}: {reason}{more[0]}")
        if build.status == PARTLY and left:
            many = f"{build.left} of {len(build.calls)} calls {NOT_RUN}"
            say(f"{build.name}: {many}, such as {left.program} at {_sizes(left)}: {left.reason}{more[1]}")


def _sizes(call: "Call") -> str:
    return ", ".join(f"{name}={size}" for name, size in call.sizes.items())


def _figures(build: "Build") -> tuple[str, str, str]:
    """The worst error, how often the best scores agree, and how far texts are the same."""
    error, best, texts = "-", "-", "-"
    if build.worst:
        one = build.worst[1]
        error = "fault" if one.fault else f"{one.relative:.1e}"
    if build.agreement is not None:
        best = f"{build.agreement:.1%}"
    if build.texts:
        same = build.texts.steps if build.texts.first is None else build.texts.first
        texts = f"{same} of {build.texts.steps} steps"
    return error, best, texts
