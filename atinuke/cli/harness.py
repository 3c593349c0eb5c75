"""The Language Model Evaluation Harness's own command, with our model beside its own."""

import typer

ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def harness(context: typer.Context) -> None:
    """Run the Language Model Evaluation Harness: `harness run -h`; its model `atinuke` takes `run=FOLDER`."""
    from atinuke.pipelines.harness import command

    command(context.args)
