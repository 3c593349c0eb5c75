"""The command line: thin. Each command parses, calls and renders; heavy modules are imported where they are used."""

import gc
import sys
from collections.abc import Callable

import typer

from atinuke.cli import deploy, evaluate, export, graphs, plugins, runs
from atinuke.cli.say import as_json, say_json
from atinuke.core.errors import AtinukeError

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
    runs.generate,
    runs.bench,
    deploy.compile,
    deploy.seal,
    deploy.verify,
    runs.demo,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(plugins.app, name="plugins")
app.add_typer(export.app, name="export")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if show:
        import atinuke

        sys.stdout.write(f"atinuke {atinuke.__version__}\n")
        raise typer.Exit


def main() -> None:
    """Runs the command line; every mistake of a user is one clear message and exit code 2."""
    gc.set_threshold(100_000)  # what imports make stays: looking through it again and again is a fifth of the start
    try:
        app()
    except AtinukeError as error:
        if "--json" in sys.argv:
            say_json({"ok": False, "mistakes": as_json(error)})
        else:
            sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # nor is it looked through once more on the way out
