"""Commands about training runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atinuke.cli.say import NONE, AsJson, say, say_json
from atinuke.cli.termination import Terminated
from atinuke.core.errors import fail

if TYPE_CHECKING:
    from atinuke.pipelines.loop import Outcome
    from atinuke.pipelines.run import Run
    from atinuke.pipelines.sampling import Settings
    from atinuke.runtime.text import Continuation, OnText

Folder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Changes = Annotated[list[str], typer.Option("--set", help="Change the recipe: optimiser.lr=1e-3.", metavar="KEY=VALUE")]


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file (YAML).")],
    run: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME for NAME.yaml unless given.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this run where names and shapes agree.")
    ] = None,
    sets: Changes = NONE,
) -> None:
    """Train by a recipe; Ctrl-C saves, and `resume` goes on."""
    folder = run or Path("runs") / recipe.stem
    with _interruptible(folder):
        from atinuke.pipelines.recipe import load_recipe
        from atinuke.pipelines.train import start

        outcome = start(load_recipe(recipe, sets), folder, init=init)
    _told(outcome)


def resume(run: Folder, sets: Changes = NONE) -> None:
    """Go on with a run from its newest checkpoint, bit for bit."""
    with _interruptible(run):
        from atinuke.pipelines.train import resume as go_on

        outcome = go_on(run, sets)
    _told(outcome)


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Where a signal ends a run without a checkpoint of its own, says what there is and how to begin again. Nothing is
    imported for that: it may come in the middle of an import."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        how = f"atinuke resume {folder}" if (folder / "log.jsonl").exists() else "the same command"
        saved = [path.name for path in (folder / "checkpoints").glob("step-*")]
        if saved:
            typer.echo(
                f"interrupted: {max(saved, key=lambda name: (len(name), name))} was saved last; go on with {how}"
            )
        else:
            typer.echo(f"interrupted before the first step: nothing was saved; begin again with {how}")
        raise


def _told(outcome: "Outcome") -> None:
    """Says how a run ended; interrupted ones leave with the shell's exit code for their signal."""
    from atinuke.pipelines.recipe import load_recipe
    from atinuke.pipelines.train import RECIPE

    if outcome.signal is None:
        say(f"finished after {outcome.step} steps: {outcome.folder}")
        say(f"  loss curve  {outcome.folder / 'loss.png'}")
        if load_recipe(outcome.folder / RECIPE).data:
            say(f"  try         atinuke generate {outcome.folder} -p '...'")
        return
    say(f"interrupted by {outcome.signal.name} and saved at step {outcome.step}")
    say(f"  go on with  atinuke resume {outcome.folder}")
    sys.exit(128 + outcome.signal)


def generate(
    run: Folder,
    prompt: Annotated[
        list[str], typer.Option("--prompt", "-p", help="A text to go on from; `-` reads it from stdin.")
    ] = NONE,
    given: Annotated[
        list[str],
        typer.Option(help="What to write from, by a field of the run's rows: a text, a file.", metavar="FIELD=VALUE"),
    ] = NONE,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many new tokens.")] = 128,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is greedy; 1 draws from the model's own distribution. 0.8 unless given; 0 for a search."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the so many likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this total.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens of the text less likely.")] = 1.0,
    beams: Annotated[int, typer.Option(help="Search so many texts for the likeliest.")] = 1,
    best: Annotated[int, typer.Option(help="Give so many texts of a search.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of a search: above 0 for longer texts, below shorter.")] = 1,
    regex: Annotated[str | None, typer.Option(help="Write only what matches this pattern.")] = None,
    choices: Annotated[list[str], typer.Option(help="Write one of these texts; repeat it for each.")] = NONE,
    schema: Annotated[Path | None, typer.Option(help="Write only JSON by the JSON Schema in this file.")] = None,
    stop: Annotated[list[str], typer.Option(help="End at this text, without it.")] = NONE,
    chat: Annotated[
        bool, typer.Option("--chat", help="Prompts are what a user says; without any, each line of stdin in turn.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="What the system says before, with --chat.")] = None,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the step: worth it for long texts.")] = False,
    json: AsJson = False,
) -> None:
    """Go on from prompts with a trained run, or write from what is given; one text is streamed.

    A text that ran out of tokens before it was what it had to be is named on stderr, and the exit code is 1.
    """
    from atinuke.pipelines.constrained import read_schema
    from atinuke.pipelines.generate import generate as go_on
    from atinuke.pipelines.given import read_given
    from atinuke.pipelines.run import open_run
    from atinuke.pipelines.sampling import settings

    wanted = settings(
        max_new_tokens=max_new_tokens,
        temperature=(0.8 if beams == 1 else 0.0) if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop),
        beams=beams,
        best=best,
        length_penalty=length_penalty,
        regex=regex,
        choices=tuple(choices),
        schema=read_schema(schema) if schema else None,
        seed=seed,
    )
    values = _pairs(given)
    prompts = [sys.stdin.read() if text == "-" else text for text in prompt]
    opened = open_run(run)
    if chat:
        _require_alone(given)
        _talk(opened, run, prompts, system, wanted, json, compiled)
        return
    if system is not None:
        raise fail("`--system` is part of a conversation", fix="add --chat, or leave it out")
    tensors = read_given(opened, values, len(prompts) or 1)
    if not prompts and not opened.begin:
        raise fail("there is nothing to go on from", fix="give a prompt: -p 'Once upon a time'")
    prompts = prompts or [""]
    streamed = not json and len(prompts) == 1 and best == 1
    on_text = _shown(prompts[0]) if streamed else None
    begin, muted = opened.begin, opened.muted
    found = go_on(
        opened.model, opened.tokenizer, prompts, wanted, opened.context, on_text, compiled, tensors, begin, muted
    )
    _say(prompts, prompts, found, json, streamed)


def _talk(
    opened: "Run", folder: Path, prompts: list[str], system: str | None, wanted: "Settings", json: bool, compiled: bool
) -> None:
    """Answers each prompt by itself; without any, each line of stdin after all that was said before."""
    from atinuke.pipelines.talk import answers, talker

    run, template = talker(opened, folder)
    before = [] if system is None else [{"role": "system", "content": system}]
    if prompts:
        asked = [[*before, {"role": "user", "content": prompt}] for prompt in prompts]
        streamed = not json and len(prompts) == 1 and wanted.best == 1
        found = answers(run, template, asked, wanted, _shown("") if streamed else None, compiled)
        _say(prompts, [""] * len(prompts), found, json, streamed)
        return
    if json:
        raise fail("a conversation is not told as JSON", fix="give prompts, or leave --json out")
    for line in filter(None, map(str.strip, sys.stdin)):
        before.append({"role": "user", "content": line})
        [one] = answers(run, template, [before], wanted, _shown(""), compiled)
        _say([line], [""], [one], json, streamed=True)
        before.append({"role": "assistant", "content": one.text})


def _shown(first: str) -> "OnText":
    """Writes a text to stdout as it comes, after `first`, once it is known to fit."""
    pieces = [first]

    def show(_: int, text: str) -> None:
        sys.stdout.write("".join(pieces) + text)
        sys.stdout.flush()
        pieces.clear()

    return show


def _say(prompts: list[str], shown: list[str], found: "list[Continuation]", json: bool, streamed: bool) -> None:
    """Says what was found, after what is shown of each prompt, and what is unfinished."""
    if json:
        say_json([{"prompt": p, **_plain(one)} for p, one in zip(prompts, found, strict=True)])
    elif streamed:
        say("" if found[0].text else shown[0])
    else:
        for text, continuation in zip(shown, found, strict=True):
            for one in (continuation, *continuation.others):
                say(text + one.text, "")
    unfinished = [str(row) for row, one in enumerate(found, 1) if one.reason == "unfinished"]
    if unfinished:
        typer.echo(f"out of tokens before the end of text {', '.join(unfinished)}", err=True)
        raise typer.Exit(1)


def _plain(found: "Continuation") -> dict[str, object]:
    """What is said of a text as JSON: score and the next best only of a search."""
    told: dict[str, object] = {"text": found.text, "reason": found.reason}
    if found.score is not None:
        told["score"] = found.score
    if found.others:
        told["others"] = [_plain(one) for one in found.others]
    return told


def _require_alone(given: list[str]) -> None:
    if given:
        raise fail("a conversation is not written from anything else", where="--given", fix="leave one of them out")


def _pairs(given: list[str]) -> dict[str, str]:
    """What was given, by name."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            what = f"`{name}` is given twice" if equals else f"`{text}` is not FIELD=VALUE"
            raise fail(what, where="--given", fix="write --given source_ids='Good morning'")
        found[name] = value
    return found


def demo(
    folder: Annotated[Path, typer.Option(help="Where to put it.")] = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(help="Train for so many steps.", min=41)] = None,
) -> None:
    """Train a small decoder on CPython's language reference, generate, compile: a few minutes on 2 cores."""
    run = folder / "run"
    with _interruptible(run):
        from atinuke.pipelines.demo import PROMPTS, prepare_demo
        from atinuke.pipelines.recipe import load_recipe
        from atinuke.pipelines.train import RECIPE, resume, start

        recipe = prepare_demo(folder)
        if (run / RECIPE).exists():
            say(f"going on with {run}")
            outcome = resume(run, [f"steps={steps}"] if steps else [])
        else:
            outcome = start(load_recipe(recipe, [f"steps={steps}"] if steps else []), run)
    if outcome.signal is not None:
        _told(outcome)
    from atinuke.pipelines.run import open_run

    opened = open_run(run)
    say("", f"the loss curve is in {run / 'loss.png'}", "")
    _write_on(opened, PROMPTS)
    from atinuke.cli.bench import tables
    from atinuke.pipelines.bench import bench_model

    say("compiling ...")
    say(*tables(bench_model(str(run), opened.checked, opened.model, rounds=5)), "")
    say("next:")
    say(f"  atinuke generate {run} -p 'The import statement' --temperature 0.7")
    say(f"  atinuke show {run / 'graph.yaml'} --as svg -o graph.svg")
    say(f"  atinuke eject {run / 'graph.yaml'} -o model.py")
    say(f"  atinuke train {recipe} --run runs/deeper --set graph.set.layers=8 --set steps=600")


def _write_on(opened: "Run", prompts: tuple[str, ...]) -> None:
    from atinuke.pipelines.generate import generate as go_on
    from atinuke.pipelines.sampling import settings

    wanted = settings(max_new_tokens=60, temperature=0.7, top_k=50, seed=0)
    for prompt, found in zip(
        prompts, go_on(opened.model, opened.tokenizer, prompts, wanted, opened.context), strict=True
    ):
        say(f"> {prompt}{found.text}", "")
