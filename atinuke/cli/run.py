"""Running deployed models: neither torch nor anything that only checking graphs needs is imported here."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atinuke.cli.say import NONE, AsJson, say, say_json
from atinuke.core.errors import fail, first_line

if TYPE_CHECKING:
    from atinuke.runtime.interface import Array
    from atinuke.runtime.model import Model

BEST = 5  # classes that are shown
TARGET = "onnx/int8; else the first that can run here. Machine code (aot, tensorrt) runs only if it is named."


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", metavar="BUNDLE")],
    text: Annotated[
        list[str], typer.Option("--text", help="A text to read, or to go on from; `-` is stdin.", metavar="TEXT")
    ] = NONE,
    image: Annotated[list[str], typer.Option("--image", help="A picture to read.", metavar="FILE")] = NONE,
    audio: Annotated[list[str], typer.Option("--audio", help="A recording to read.", metavar="FILE")] = NONE,
    given: Annotated[
        list[str],
        typer.Option(help="A value for a field by name, where several are of a kind.", metavar="FIELD=VALUE"),
    ] = NONE,
    arrays: Annotated[
        Path | None, typer.Option("--input", help="Arrays in place of all that, by input.", metavar="FILE.npz")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help=TARGET, metavar="TARGET/PRECISION"),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Use so many threads.", min=1)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="At most so many new tokens; 128, or what fits.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; 1 draws from the model's own distribution.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the so many likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this total.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens of the text less likely.")] = 1.0,
    stop: Annotated[list[str], typer.Option(help="End at this text, without it.")] = NONE,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the arrays that come out.", metavar="FILE.npz")
    ] = None,
    json: AsJson = False,
) -> None:
    """Run a deployed model: it goes on from a text, names classes or labels, or gives arrays."""
    from atinuke.runtime.model import load

    model = load(bundle, target, threads)
    _require_way(model, arrays is not None)
    texts = [sys.stdin.read() if one == "-" else one for one in text]
    if model.writes:
        if output:
            raise fail("a text is no array", where="--output", fix="leave it out")
        settings = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "stop": tuple(stop),
            "seed": seed,
        }
        _write(model, texts, {"image": image, "audio": audio}, given, max_new_tokens, settings, json)
        return
    if arrays is not None:
        if texts or image or audio or given:
            raise fail("arrays take the place of texts and files", where="--input", fix="give either")
        feeds = _arrays(arrays)
    else:
        feeds = model.read(_values(model, {"text": texts, "image": image, "audio": audio}, given))
    _answer(model, model(**feeds), output, json)


def _require_way(model: "Model", arrays: bool) -> None:
    """Refuses arrays where a model runs in steps, and anything else where nothing says how it is read."""
    if model.writes and (arrays or model.bundle.text is None):
        told = f"its programs {', '.join(model.bundle.programs)} hand on a memory from call to call"
        other = "give --text" if model.bundle.text else "compile a run that was trained on texts"
        fix = f"{other}, or call `model.runner.step` from Python"
        raise fail("the model runs in steps, which this command takes from texts only", told, fix=fix)
    if not (model.writes or model.reads or arrays):
        told = ", ".join(str(port) for one in model.bundle.programs.values() for port in one.given)
        fix = "give arrays: --input FILE.npz, or compile a run, which knows how its inputs are read"
        raise fail("the bundle does not say how its inputs are read", told, fix=fix)


def _require_rows(model: "Model", rows: int, what: str) -> None:
    """Refuses more than the batch has room for."""
    from atinuke.runtime.interface import BATCH

    most = model.bundle.axes[BATCH][1] if BATCH in model.bundle.axes else rows
    if rows > most:
        told = f"it was compiled for a batch of {most}"
        raise fail(f"{rows} {what} are too many at once", told, fix=f"give at most {most} {what} at a time")


def _values(model: "Model", kinds: Mapping[str, Sequence[str]], given: Sequence[str]) -> dict[str, list[Any]]:
    """What was given, by field: a kind stands for the only field of that kind."""
    found: dict[str, list[Any]] = {}
    for kind, values in kinds.items():
        if not values:
            continue
        there = [name for name, field in model.reads.items() if field["name"] == kind]
        if len(there) != 1:
            reads = ", ".join(f"{name} ({field['name']})" for name, field in model.reads.items())
            told = f"it reads {reads}" if reads else "it goes on from --text"
            what = f"the model reads {'several' if there else 'no'} {kind}"
            raise fail(what, told, where=f"--{kind}", fix="use --given FIELD=VALUE" if there else None)
        found[there[0]] = list(values)
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise fail(f"`{one}` is not FIELD=VALUE", where="--given", fix="write --given source_ids='Good morning'")
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if model.reads.get(name, {}).get("pair"):
            if len(values) % 2:
                raise fail(f"`{name}` takes two texts a row", f"got {len(values)}", fix="give two, one after the other")
            found[name] = [values[i : i + 2] for i in range(0, len(values), 2)]
        is_text = model.reads.get(name, {}).get("name") == "text"
        _require_rows(model, len(found[name]), "texts" if is_text else f"values of `{name}`")
    return found


def _write(
    model: "Model",
    texts: Sequence[str],
    kinds: Mapping[str, Sequence[str]],
    given: Sequence[str],
    most: int | None,
    settings: Mapping[str, Any],
    json: bool,
) -> None:
    """Writes texts; a single one is streamed. A text is the source where the model reads one, else the prompt."""
    from atinuke.runtime.sampling import Settings

    source = any(field["name"] == "text" for field in model.reads.values())
    values = _values(model, {**kinds, **({"text": texts} if source else {})}, given)
    feeds = model.read(values) if model.reads or values else {}
    rows = len(next(iter(feeds.values()))) if feeds else 1
    prompts = list(texts) if texts and not source else [""] * rows
    if not feeds and not texts and not model.begin:
        raise fail("there is nothing to go on from", fix="give a beginning: --text 'Once upon a time'")
    _require_rows(model, len(prompts), "texts")
    wanted = Settings.read(max_new_tokens=model.room(prompts) if most is None else most, **settings)
    if json:
        found = model.generate(prompts, wanted, given=feeds)
        texts_ = [{"prompt": p, "text": c.text, "reason": c.reason} for p, c in zip(prompts, found, strict=True)]
        say_json({"target": model.build, "texts": texts_})
    elif len(prompts) > 1:
        for prompt, one in zip(prompts, model.generate(prompts, wanted, given=feeds), strict=True):
            sys.stdout.write(f"{prompt}{one.text}\n\n")
        _said(model)
    else:
        pieces = model.stream(prompts, wanted, feeds)
        sys.stdout.write(prompts[0])
        for _, piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        _said(model)


def _answer(model: "Model", outputs: "dict[str, Array]", output: Path | None, json: bool) -> None:
    """Tells classes, labels, or shapes and values; saves arrays if wanted."""
    import numpy as np

    from atinuke.runtime.ctc import BLANK

    if output:
        from atinuke.core.files import replacing

        with replacing(output) as draft, draft.open("wb") as file:
            np.savez(file, **outputs)  # type: ignore[arg-type]
    named: dict[str, list[Any]] = {}
    for name, classes in model.bundle.classes.items():
        array = outputs[name]
        if array.ndim == 3 and BLANK in classes:
            named[name] = model.labels(name, outputs)
        elif array.ndim == 2:
            named[name] = [dict(row[:BEST]) for row in model.best(name, array)]
    if json:
        plain = {name: named[name] if name in named else array.tolist() for name, array in outputs.items()}
        say_json({"target": model.build, "outputs": plain})
        return
    for name, array in outputs.items():
        if name not in named:
            head = f"{name}: {array.dtype}[{', '.join(map(str, array.shape))}]"
            say(head, f"  {np.array2string(array, threshold=20, edgeitems=3, prefix='  ')}")
            continue
        for row in named[name]:
            if isinstance(row, dict):
                say(*(f"{share:7.1%}  {one}" for one, share in row.items()), "")
            else:
                say(" ".join(row))
    _said(model)


def _said(model: "Model") -> None:
    """What ran, where it does not mix with what came out."""
    sys.stderr.write(f"({model.build})\n")


def _arrays(path: Path) -> "dict[str, Array]":
    import numpy as np

    fix = "save one with numpy.savez"
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            found = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else None
    except Exception as error:  # whatever zip, zlib and numpy have against it
        raise fail("is not a file of arrays", first_line(error), where=str(path), fix=fix) from None
    if found is None or not all(isinstance(array, np.ndarray) for array in found.values()):
        raise fail("is not a file of arrays by name", where=str(path), fix=fix)
    return found
