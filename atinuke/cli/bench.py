"""`atinuke bench`: latency side by side."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atinuke.cli.say import NONE, AsJson, At, Sets, Swaps, chosen, say, say_json
from atinuke.core.errors import fail

if TYPE_CHECKING:
    from atinuke.runtime.bench import Report


def bench(
    subject: Annotated[
        str, typer.Argument(help="A bundle's folder or .zip, a run's folder, a graph file, or a shipped graph.")
    ],
    builds: Annotated[
        list[str], typer.Option("--target", "-t", help="Only this build of a bundle.", metavar="TARGET/PRECISION")
    ] = NONE,
    at: At = NONE,
    sets: Sets = NONE,
    swaps: Swaps = NONE,
    rounds: Annotated[int, typer.Option(help="Call everything so often.", min=1)] = 50,
    threads: Annotated[int | None, typer.Option(help="Compute with so many threads.", min=1)] = None,
    picture: Annotated[Path | None, typer.Option("--output", "-o", help="Draw it into this PNG.")] = None,
    json: AsJson = False,
) -> None:
    """Measure the builds of a bundle, or eager against compiled: latency, throughput, memory, the machine's limit.

    Exit code 3: no build of the bundle could run here."""
    from dataclasses import asdict

    if _is_bundle(subject):
        if sets or swaps:
            raise fail("a bundle cannot be changed", where=subject, fix="leave out --set and --swap")
        report = _bundle(Path(subject), builds, at, rounds, threads)
    else:
        if builds:
            raise fail("only a bundle has builds", where=subject, fix="leave out --target")
        report = _model(subject, at, sets, swaps, rounds, threads)
    nothing = all(way.why for way in report.ways)
    if picture and not nothing:
        from atinuke.pipelines.bench_picture import draw

        draw(report, picture)
    if json:
        say_json(asdict(report))
    else:
        say(*tables(report))
        if picture and not nothing:
            say(f"wrote {picture}")
    if nothing:
        raise typer.Exit(3)


def _is_bundle(subject: str) -> bool:
    from atinuke.runtime.bundle import CONFIG, TARGETS

    path = Path(subject)
    return path.suffix == ".zip" or ((path / CONFIG).is_file() and (path / TARGETS).is_dir())


def _bundle(folder: Path, builds: list[str], at: list[str], rounds: int, threads: int | None) -> "Report":
    from importlib.util import find_spec

    from atinuke.runtime.bench import bench_bundle
    from atinuke.runtime.bundle import open_bundle

    bundle = open_bundle(folder)
    count = None
    if find_spec("torch"):
        from atinuke.pipelines.bench import bundle_works

        count = bundle_works
    return bench_bundle(bundle, builds or bundle.builds, chosen(at), rounds, threads, count)


def _model(
    subject: str, at: list[str], sets: list[str], swaps: list[str], rounds: int, threads: int | None
) -> "Report":
    from atinuke.pipelines.bench import bench_model
    from atinuke.pipelines.deploy import open_subject

    opened = open_subject(subject, sets, swaps)
    return bench_model(subject, opened.checked, opened.model, chosen(at), rounds, threads)


def tables(report: "Report") -> list[Any]:
    """What was measured, as tables and lines for a terminal."""
    from rich.table import Table

    sizes = ", ".join(f"{name} {size:,}" for name, size in report.sizes.items())
    limits = report.limits
    machine = f"{limits.gemm / 1e9:,.0f} GFLOP/s in float32 products, {limits.memory / 1e9:.1f} GB/s from memory"
    found: list[Any] = [f"{report.subject} at {sizes}", f"limits of {limits.threads} thread(s): {machine}"]
    for task in dict.fromkeys(figure.task for figure in report.figures):
        title = f"\n{task}, {report.rounds} rounds"
        table = Table("", title=title, title_justify="left", box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        figures = [figure for figure in report.figures if figure.task == task]
        columns = ("p50 ms", "p95 ms", "p99 ms", f"{figures[0].unit}/s", "ratio", "limit", "difference", "first s")
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for f in figures:
            times = [_milliseconds(value) for value in (f.p50, f.p95, f.p99)]
            limit = "" if f.limit is None else f"{f.limit:.0%}"
            last = (f"{f.rate:,.0f}", f"{f.ratio:.2f}", limit, f"{f.difference:.1e}", f"{f.first_call:.2f}")
            table.add_row(f.way, *times, *last)
        found.append(table)
    alone = Table("", title="\nalone in a process", title_justify="left", box=None, pad_edge=False)
    alone.add_column("load", justify="right")
    alone.add_column("peak memory", justify="right")
    for way in (way for way in report.ways if way.load is not None):
        alone.add_row(way.name, f"{way.load:.2f} s", "" if way.memory is None else f"{way.memory / 2**20:,.0f} MiB")
    if alone.row_count:
        found.append(alone)
    return [*found, *(f"{way.name} cannot run here: {way.why}" for way in report.ways if way.why)]


def _milliseconds(value: float) -> str:
    """With three significant digits, and every digit before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
