"""Commands about the weights of others."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from atinuke.cli.say import say
from atinuke.core.errors import fail


def convert(
    source: Annotated[Path, typer.Argument(help="A folder of transformers, or a model folder.", metavar="DIR")],
    out: Annotated[Path, typer.Argument(help="The folder to be written.", metavar="OUT")],
    family: Annotated[str | None, typer.Option(help="The map file of a family that does not ship.")] = None,
    to: Annotated[Literal["atinuke", "huggingface"], typer.Option(help="Whose folder is written.")] = "atinuke",
) -> None:
    """Turn a pretrained model of Hugging Face into a graph and its weights, or back."""
    from atinuke import families
    from atinuke.pipelines.pretrained import huggingface

    if to == "huggingface":
        if family:
            raise fail("a model folder has its own family file", where="--family", fix="leave out --family")
        huggingface.to_huggingface(source, out)
        say(f"wrote {out}")
        return
    found = huggingface.convert(source, out, families.path(family) if family else None)
    numbers = sum(tensor.numel() for tensor in found.tensors.values())
    say(f"wrote {out}: {found.architecture} as graph {found.checked.graph.name}, {numbers:,} numbers")
    for name, given in found.checked.body.inputs.items():
        say(f"  takes {name}: {given}")
    for name, given in found.checked.body.outputs.items():
        say(f"  gives {name}: {given}")
    if found.left:
        say(f"  not read: {', '.join(found.left)}")
