"""Commands about adapted models."""

from pathlib import Path
from typing import Annotated

import typer

from atinuke.cli.say import say

app = typer.Typer(help="Low-rank updates: to PEFT, from PEFT, into the weights.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="A run with `adapt`, or a model folder with updates.", metavar="RUN")]
Out = Annotated[Path, typer.Argument(help="The folder to be written.", metavar="OUT")]


@app.command()
def export(run: Source, out: Out) -> None:
    """Write what a run has trained as PEFT reads it."""
    from atinuke.pipelines.peft import export_adapter

    modules = export_adapter(run, out)
    say(f"wrote {out}: updates of {len(modules)} modules, such as {modules[0]}")


@app.command(name="import")
def read(
    model: Annotated[Path, typer.Argument(help="The model folder that it adapts.", metavar="MODEL")],
    adapter: Annotated[Path, typer.Argument(help="A folder that PEFT wrote.", metavar="ADAPTER")],
    out: Out,
) -> None:
    """Write a model folder with the updates that PEFT has saved."""
    from atinuke.pipelines.peft import import_adapter

    import_adapter(model, adapter, out)
    say(f"wrote {out}")


@app.command()
def merge(run: Source, out: Out) -> None:
    """Write a model folder whose weights have the updates in."""
    from atinuke.pipelines.merging import merge_adapter

    merge_adapter(run, out)
    say(f"wrote {out}")
