"""From a run, or a graph with fresh weights, to a bundle that is proved to say the same."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from atinuke.compile.builder import Builder, Work
from atinuke.compile.certificate import BUDGETS, certify
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import programs
from atinuke.compile.samples import draw, example
from atinuke.core.checked import CheckedGraph
from atinuke.core.component import import_target
from atinuke.core.dump import dump
from atinuke.core.errors import fail
from atinuke.core.files import exists
from atinuke.core.override import override
from atinuke.core.registry import Registry
from atinuke.pipelines.checkpoint import weights
from atinuke.pipelines.objective_labels import Classification
from atinuke.pipelines.provenance import provenance
from atinuke.pipelines.run import Trained, open_model, writer
from atinuke.pipelines.train import TOKENIZER
from atinuke.runtime import bundle as layout
from atinuke.runtime.archive import pack
from atinuke.runtime.bundle import Bundle, Text
from atinuke.runtime.seal import seal


@dataclass(frozen=True)
class Subject:
    """What is deployed: a checked graph and its model; of a run also how texts and other inputs are read."""

    checked: CheckedGraph
    model: nn.Module
    text: Text | None = None
    tokenizer: Path | None = None
    fields: Mapping[str, Mapping[str, Any]] | None = None
    classes: Mapping[str, tuple[str, ...]] | None = None


def open_subject(name: str, sets: Sequence[str] = (), swaps: Sequence[str] = ()) -> Subject:
    """The run in a folder, of which `sets` may narrow the axes, or a graph with fresh weights.

    Raises:
        AtinukeError: there is no such run or graph, or it cannot be changed like that.
    """
    folder = Path(name)
    if not folder.is_dir():
        checked = open_graph(name, sets, swaps)
        return Subject(checked, build(checked).eval())
    run = open_model(folder)
    if swaps:
        raise fail("a run's components cannot be exchanged", where=name, fix="leave out --swap")
    checked = _narrowed(run.checked, sets)
    model = run.model
    tokenizer = folder / TOKENIZER if run.recipe.tokenizer else None
    return Subject(checked, model, _text(run, folder), tokenizer, _fields(run), _classes(run))


def _narrowed(checked: CheckedGraph, sets: Sequence[str]) -> CheckedGraph:
    """The graph with narrower axes."""
    graph = override(checked.graph, sets)
    if graph.dims != checked.graph.dims:
        raise fail("a run's dims cannot be changed", where=f"--set {' '.join(sets)}", fix="set only axes: batch=1..8")
    for name, axis in graph.axes.items():
        whole = checked.graph.axes[name]
        if not whole.low <= axis.low <= axis.high <= whole.high:
            raise fail(f"axis `{name}` must lie within {whole}", f"got {axis}", where=f"--set {name}={axis}")
    return check_graph(graph)


def _text(run: Trained, folder: Path) -> Text | None:
    """How the run's texts are written; None where it writes none."""
    with suppress(Exception):
        found = writer(run, folder)
        assert run.recipe.tokenizer is not None
        return Text(run.recipe.tokenizer.end_of_text, found.context, found.begins)
    return None


def _fields(run: Trained) -> dict[str, dict[str, Any]]:
    rows = run.recipe.rows
    read = {name: field for name, field in (rows.fields if rows else {}).items() if name in run.checked.graph.inputs}
    return {name: field.model_dump(mode="json", exclude={"column", "pair"}) for name, field in read.items()}


def _classes(run: Trained) -> dict[str, tuple[str, ...]]:
    objective, rows = run.recipe.objective, run.recipe.rows
    if rows is None or not isinstance(objective, Classification):
        return {}
    names = getattr(rows.fields.get(objective.labels), "classes", None)
    return {objective.scores: tuple(names)} if names else {}


def compile_bundle(
    subject: Subject,
    builds: Iterable[tuple[str, str]],
    output: Path,
    step: bool = True,
    without: Sequence[str] = (),
) -> Bundle:
    """Builds each target in its precision, proves it, and writes the bundle whole or not at all.

    Raises:
        AtinukeError: there is something at `output`, a target cannot have the model, or an answer is over its budget.
    """
    if exists(output):
        raise fail("is there already", where=str(output), fix="choose another folder with -o, or remove it")
    made = programs(subject.checked, subject.model, step, without)
    axes = {name: axis for program in made.values() for name, axis in program.axes.items()}
    inputs = {name: draw(subject.checked, program, example(program.axes)) for name, program in made.items()}
    draft = output.with_name(f".{output.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        names = [f"{target}/{precision}" for target, precision in builds]
        interfaces = {name: program.interface for name, program in made.items()}
        bundle = Bundle(
            draft,
            subject.checked.graph.name,
            axes,
            interfaces,
            subject.text,
            subject.fields or {},
            subject.classes or {},
            tuple(names),
        )
        (draft / layout.GRAPH).write_text(dump(subject.checked.graph), encoding="utf-8")
        save_file({n: t.contiguous() for n, t in weights(subject.model).items()}, draft / layout.WEIGHTS)
        if subject.tokenizer:
            shutil.copyfile(subject.tokenizer, draft / layout.TOKENIZER)
        for name in names:
            target, _, precision = name.rpartition("/")
            builder: Builder = import_target(Registry().backend(target).builder)()
            work = Work(made, inputs, precision)
            place = bundle.place(name)
            place.mkdir(parents=True)
            builder.build(work, place)
            for found in certify(subject.checked, made, bundle.runner(name)):
                if not found.relative <= BUDGETS[precision]:
                    raise fail(f"{name} is over its budget", f"{found}")
        seal(bundle, provenance(subject.checked.graph, names))
        if output.suffix == ".zip":
            pack(draft, output)
        else:
            draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return layout.open_bundle(output)
