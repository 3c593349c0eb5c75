"""Commands about adapted models."""

from pathlib import Path
from typing import Annotated

import typer

from atinuke.cli.say import say

Texts = Annotated[list[str], typer.Option(help="A file, folder or pattern of texts in the new language; repeat it.")]

app = typer.Typer(help="Low-rank updates: to PEFT, from PEFT, into the weights.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(help="A run that went on from a model folder, or a model folder with updates.", metavar="RUN")
]
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
    """Write a run as a model folder, whose weights have the updates in."""
    from atinuke.pipelines.merging import merge_adapter

    merge_adapter(run, out)
    say(f"wrote {out}")


def extend(
    model: Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")],
    texts: Texts,
    tokens: Annotated[int, typer.Option(help="So many new pieces.", min=1)],
    out: Annotated[Path, typer.Option("--output", "-o", help="The model folder to be written.")],
    field: Annotated[str, typer.Option(help="Where the text is in JSON lines and tables.")] = "text",
) -> None:
    """Give a model's vocabulary pieces of another language, and its embedding rows for them."""
    from atinuke.pipelines import text
    from atinuke.pipelines.extend import extend as widen

    files = text.find(texts)
    found = widen(model, lambda: (one for file in files for one in text.documents(file, field)), tokens, out)
    say(f"wrote {out}: {len(found.pieces):,} new pieces, {found.rows[0]:,} rows are now {found.rows[1]:,}")
    say(f"  such as          {', '.join(found.pieces[:8])}")
    before, now = found.fertility
    say(f"  tokens a word    {before.tokens:.2f} before, {now.tokens:.2f} now")
    if before.unknown:
        say(f"  of them unknown  {before.unknown:.2f} before, {now.unknown:.2f} now")
