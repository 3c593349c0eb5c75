"""Commands about plugins and their components."""

import sys
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from atinuke.cli.say import NONE, AsJson, say, say_json
from atinuke.core.component import Choice, Component
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.registry import Registry

app = typer.Typer(help="Components and the plugins that provide them.")


@app.callback(invoke_without_command=True)
def plugins(
    context: typer.Context,
    fits: Annotated[
        str | None, typer.Option(help="List what could be swapped in for a node of a graph.", metavar="FILE:NODE")
    ] = None,
) -> None:
    """Components and the plugins that provide them."""
    if fits is not None:
        _fits(fits)
    elif context.invoked_subcommand is None:
        say(context.get_help())


def _fits(text: str) -> None:
    from rich.table import Table

    from atinuke.compile.fits import candidates
    from atinuke.compile.front import open_graph

    file, colon, node = text.rpartition(":")
    if not colon:
        raise fail("must look like FILE:NODE", where=f"--fits {text}", fix="write for instance atinuke:layer.P")
    registry = Registry()
    table = Table(box=None, pad_edge=False, show_header=False)
    for found in candidates(open_graph(file, registry=registry).graph, node, registry):
        needs = f"with {', '.join(found.missing)}" if found.missing else ""
        table.add_row(found.name, needs, found.summary)
    say(table if table.row_count else f"nothing else fits `{node}`")


@app.command(name="list")
def list_components(json: AsJson = False) -> None:
    """List all components, objectives, sources and tasks; a broken plugin is named, and hurts no other."""
    registry = Registry()
    kinds: dict[str, Callable[[str], Mapping[str, Component | Choice]]] = {
        "components": registry.components,
        "objectives": registry.objectives,
        "sources": registry.sources,
        "tasks": registry.tasks,
    }
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    broken: dict[str, str] = {}
    for plugin in ("", *registry.plugins()):
        try:
            listed = {kind: records(plugin) for kind, records in kinds.items()}
        except AtinukeError as error:
            broken[plugin] = str(error)
            continue
        for kind, records in listed.items():
            found[kind] |= {name: record.summary for name, record in records.items()}
    if json:
        say_json({**found, "broken": broken})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for kind, summaries in found.items():
        if kind != "components":
            table.add_row()
            table.add_row(f"{kind}, for recipes")
        for name, summary in summaries.items():
            table.add_row(name, summary)
    say(table, *broken.values())


@app.command()
def show(name: Annotated[str, typer.Argument(help="A component: attention.self.")], json: AsJson = False) -> None:
    """Show a component's settings, ports and what it promises."""
    import inspect

    from atinuke.core.signature import read_signature

    registry = Registry()
    component, cls = registry.component(name), registry.load(name)
    signature = read_signature(cls)
    settings = {
        s.name: {"type": inspect.formatannotation(s.annotation), **({} if s.required else {"default": s.default})}
        for s in signature.settings.values()
    }
    if json:
        inputs, outputs = (list(map(str, ports.values())) for ports in (signature.inputs, signature.outputs))
        say_json({"name": name, "summary": component.summary, "settings": settings, "in": inputs, "out": outputs})
        return
    say(f"{name}  {component.target}", "", inspect.cleandoc(cls.__doc__ or component.summary), "")
    for setting, about in settings.items():
        say(f"  {setting}: {about['type']}" + (f" = {about['default']!r}" if "default" in about else ""))
    say(*(f"  takes {port}" for port in signature.inputs.values()))
    say(*(f"  gives {str(port).removeprefix('return: ')}" for port in signature.outputs.values()))


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A component, or a plugin with a colon behind it: strided:")],
    law: Annotated[list[str], typer.Option(help="Try only this law (an unknown one lists all).", metavar="LAW")] = NONE,
    examples: Annotated[int | None, typer.Option(help="Cases to draw for each law.", min=1)] = None,
    json: AsJson = False,
) -> None:
    """Try every law on a component, or on all components of a plugin."""
    from hypothesis.configuration import set_hypothesis_home_dir

    from atinuke.testing import run_laws

    registry = Registry()
    names = list(registry.components(name[:-1])) if len(name) > 1 and name.endswith(":") else [name]
    with TemporaryDirectory() as scratch:
        set_hypothesis_home_dir(scratch)  # else it leaves a folder where the command is run
        results = [result for one in names for result in run_laws(one, laws=law or None, examples=examples)]
    failed = [result for result in results if result.status == "failed"]
    if json:
        say_json([{key: getattr(r, key) for key in ("component", "law", "status", "reason")} for r in results])
    else:
        say(_results(results), *(str(result.error) for result in failed if result.error))
    if failed:
        sys.exit(1)


def _results(results: list[Any]) -> Any:
    from rich.table import Table

    table = Table("component", "law", "", box=None, pad_edge=False)
    for result in results:
        reason = "" if result.status == "failed" else result.reason
        table.add_row(result.component, result.law, result.status + (f": {reason}" if reason else ""))
    return table
