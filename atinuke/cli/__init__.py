"""The command line: thin. Each command parses, calls and renders; heavy modules are imported where they are used."""

import gc
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from atinuke.cli import (
    adapter,
    bench,
    compare,
    convert,
    deploy,
    doctor,
    evaluate,
    export,
    graphs,
    harness,
    plugins,
    run,
    runs,
)
from atinuke.cli.say import as_json, say_json
from atinuke.cli.termination import Terminated, terminate
from atinuke.core.errors import AtinukeError, fail

app = typer.Typer(
    help="Atinuke: one graph file, checked, trained and deployed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: tuple[Callable[..., None], ...] = (
    graphs.check,
    graphs.show,
    graphs.cost,
    graphs.eject,
    graphs.schema,
    runs.train,
    runs.resume,
    evaluate.evaluate,
    evaluate.look,
    compare.compare,
    runs.generate,
    bench.bench,
    convert.convert,
    adapter.extend,
    deploy.compile,
    deploy.seal,
    deploy.verify,
    run.run,
    doctor.doctor,
    runs.demo,
)
for command in COMMANDS:
    app.command()(command)
app.command(context_settings=harness.ANYTHING)(harness.harness)
app.add_typer(plugins.app, name="plugins")
app.add_typer(export.app, name="export")
app.add_typer(adapter.app, name="adapter")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if show:
        import atinuke

        sys.stdout.write(f"atinuke {atinuke.__version__}\n")
        raise typer.Exit


EXTRAS = {
    "onnx": ("onnx", "onnxscript"),
    "runtime": ("onnxruntime", "tiktoken"),
    "torch": ("jaxtyping", "matplotlib", "psutil", "pydantic", "safetensors", "sympy", "tokenizers", "torch", "yaml"),
}
"""The packages that an extra brings, by the names that are imported."""


def main() -> None:
    """Runs the command line; every mistake of a user is one clear message and exit code 2."""
    before = signal.signal(signal.SIGTERM, terminate)
    gc.set_threshold(100_000)  # what imports make stays: looking through it again and again is a fifth of the start
    try:
        app()
    except AtinukeError as error:
        _complain(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        _complain(fail(f"this command needs the package `{package}`", fix=f"pip install 'atinuke[{extra}]'"))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Terminated:
        sys.exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.freeze()  # nor is it looked through once more on the way out


def _complain(error: AtinukeError) -> NoReturn:
    if "--json" in sys.argv:
        say_json({"ok": False, "mistakes": as_json(error)})
    else:
        sys.stderr.write(f"{error}\n")
    sys.exit(2)
