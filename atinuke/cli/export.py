"""Commands that write a bundle for other servers."""

from pathlib import Path
from typing import Annotated

import typer

from atinuke.cli.say import say

app = typer.Typer(help="Write a bundle for a server.", no_args_is_help=True)


@app.callback()
def export() -> None:
    """Write a bundle for a server."""


@app.command()
def triton(
    bundle: Annotated[Path, typer.Argument(help="The folder or .zip of a bundle.")],
    folder: Annotated[Path, typer.Argument(help="The model repository to be written.")],
    build: Annotated[
        str, typer.Option("--target", "-t", help="Serve this build.", metavar="TARGET/PRECISION")
    ] = "onnx/fp32",
    instances: Annotated[int | None, typer.Option(help="Run so many of each model at a time.")] = None,
    gpu: Annotated[bool | None, typer.Option("--gpu/--cpu", help="Where; Triton chooses unless given.")] = None,
    delay: Annotated[int | None, typer.Option(help="Let a request wait so many microseconds for others.")] = None,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server, checked against the model."""
    from atinuke.runtime.bundle import open_bundle
    from atinuke.runtime.triton import Scheduling, export_triton

    opened = open_bundle(bundle)
    device = None if gpu is None else "gpu" if gpu else "cpu"
    served = export_triton(opened, build, folder, Scheduling(instances, device, delay))  # type: ignore[arg-type]
    say(f"wrote {folder}")
    for model in served:
        rows = f"up to {model.rows} rows a call" if model.rows else "requests one by one"
        say(f"  {model.name}: {model.program or 'prepare, then prefill'}, {rows}")
    if "decode" in opened.programs:
        say("  a text is the client's loop: prefill once, then decode for each token, caches in and out")
        say("  (Triton's ensembles have no loops)")
