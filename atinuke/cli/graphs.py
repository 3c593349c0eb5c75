"""Commands about graph files."""

from typing import Annotated, Any, Literal

import typer

from atinuke.cli.say import NONE, AsJson, At, File, Output, Sets, Swaps, chosen, say, say_json, write
from atinuke.core.errors import fail


def check(file: File, sets: Sets = NONE, swaps: Swaps = NONE, json: AsJson = False) -> None:
    """Prove every size and dtype in a graph file; all mistakes at once."""
    from atinuke.compile.front import open_graph
    from atinuke.core.cost import components, count_parameters

    checked = open_graph(file, sets, swaps)
    nodes = [node for _, _, node in components(checked.body)]
    parameters = count_parameters(nodes)
    inputs = {name: str(given) for name, given in checked.body.inputs.items()}
    outputs = {name: str(given) for name, given in checked.body.outputs.items()}
    if json:
        say_json({"ok": True, "parameters": parameters, "nodes": len(nodes), "inputs": inputs, "outputs": outputs})
        return
    say(f"{checked.graph.name}: {len(nodes)} nodes hold together, {parameters:,} parameters")
    for name, given in inputs.items():
        say(f"  takes {name}: {given}")
    for name, given in outputs.items():
        say(f"  gives {name}: {given}")


Form = Literal["table", "mermaid", "svg", "source", "yaml"]


def show(
    file: File,
    sets: Sets = NONE,
    swaps: Swaps = NONE,
    form: Annotated[Form, typer.Option("--as", help="How to show it.")] = "table",
    output: Output = None,
) -> None:
    """Show a graph with the size on every wire."""
    from atinuke.compile.front import open_graph

    checked = open_graph(file, sets, swaps)
    match form:
        case "table":
            from atinuke.core.show import table

            if output:
                raise fail("a table goes to the terminal", fix="choose another form with --as")
            say(table(checked))
        case "mermaid":
            from atinuke.core.show import mermaid

            write(mermaid(checked), output)
        case "svg":
            from atinuke.core.svg import svg

            write(svg(checked), output)
        case "source":
            from atinuke.compile.module import source_of

            write(source_of(checked).text, output)
        case "yaml":
            from atinuke.core.dump import dump

            write(dump(checked.graph), output)


def cost(
    file: File,
    sets: Sets = NONE,
    swaps: Swaps = NONE,
    at: At = NONE,
    json: AsJson = False,
) -> None:
    """Parameters, FLOPs and bytes of a graph, as formulas in its free axes and at given sizes."""
    from atinuke.compile.front import open_graph
    from atinuke.compile.measure import MetaMeter
    from atinuke.core import cost as costs

    result = costs.cost(open_graph(file, sets, swaps), MetaMeter())
    sizes = chosen(at)
    formulas: dict[str, Any] = {
        "parameters": result.parameters,
        "forward FLOPs": result.flops,
        "training FLOPs": result.training_flops,
        "weight bytes (float32)": result.weight_bytes("float32"),
        "activation bytes (float32)": result.activation_bytes("float32"),
    }
    if (cache := result.cache_bytes("float32")) is not None:
        formulas["KV-cache bytes (float32)"] = cache
    result.require(sizes)
    figures = {
        name: formula if isinstance(formula, int) else result.value(formula, **sizes)
        for name, formula in formulas.items()
        if isinstance(formula, int) or {symbol.name for symbol in formula.free_symbols} <= sizes.keys()
    }
    if json:
        say_json(
            {"formulas": {name: str(value) for name, value in formulas.items()}, "sizes": sizes, "figures": figures}
        )
        return
    say(_table(formulas, figures, sizes))


def _table(formulas: dict[str, Any], figures: dict[str, int], sizes: dict[str, int]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("formula")
    if sizes:
        table.add_column(", ".join(f"{name}={size}" for name, size in sizes.items()), justify="right")
    for name, formula in formulas.items():
        shown = f"{formula:,}" if isinstance(formula, int) else str(formula).replace("**", "^")
        row = [name, shown]
        if sizes:
            row.append(f"{figures[name]:,}" if name in figures else "")
        table.add_row(*row)
    return table


def eject(file: File, sets: Sets = NONE, swaps: Swaps = NONE, output: Output = None) -> None:
    """Print a graph as one Python file that runs with torch alone."""
    from atinuke.compile import eject as ejecting
    from atinuke.compile.front import open_graph

    checked = open_graph(file, sets, swaps)
    write(ejecting.eject(checked), output)


def schema(output: Output = None) -> None:
    """Print the JSON Schema of graph files, for editors."""
    import json

    from atinuke.core.registry import Registry
    from atinuke.core.schema import json_schema

    write(json.dumps(json_schema(Registry()), indent=2), output)
