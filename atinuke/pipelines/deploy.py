"""From a run, or a graph with fresh weights, to a bundle that is proved to say the same."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from atinuke import graphs
from atinuke.compile.builder import Builder, Work
from atinuke.compile.certificate import Reference
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.merge import merged
from atinuke.compile.module import build
from atinuke.compile.programs import Program, programs
from atinuke.compile.proof import Target, Tell, prove
from atinuke.compile.samples import draw, example
from atinuke.compile.step import can_step, plan_steps
from atinuke.core.checked import CheckedGraph
from atinuke.core.component import import_target
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError, Mistake, fail, raise_all
from atinuke.core.files import exists, replacing
from atinuke.core.names import close
from atinuke.core.override import override
from atinuke.core.registry import Registry
from atinuke.pipelines.checkpoint import weights, write
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.fields import Chat, Field, mask_name, segments_name
from atinuke.pipelines.fields import Text as FieldOfText
from atinuke.pipelines.objective_labels import CTC, Classification
from atinuke.pipelines.pretrained import reading
from atinuke.pipelines.pretrained.folder import is_model_folder
from atinuke.pipelines.pretrained.writing import require_language
from atinuke.pipelines.provenance import provenance
from atinuke.pipelines.quality import with_quality
from atinuke.pipelines.real import real_inputs
from atinuke.pipelines.recipe import Recipe
from atinuke.pipelines.run import Trained, open_model, writer
from atinuke.pipelines.task import Task
from atinuke.pipelines.train import RECIPE, TOKENIZER
from atinuke.runtime import bundle as layout
from atinuke.runtime.archive import pack
from atinuke.runtime.bundle import Bundle, Text
from atinuke.runtime.ctc import BLANK
from atinuke.runtime.parity import BUDGETS, Parity, write_parity
from atinuke.runtime.runner import Runner
from atinuke.runtime.seal import seal

SECONDS = 300.0


@dataclass(frozen=True)
class Subject:
    """What is deployed: a checked graph and its model; of a run also how texts and other inputs are read."""

    checked: CheckedGraph
    model: nn.Module
    text: Text | None = None
    tokenizer: Path | None = None
    fields: Mapping[str, Mapping[str, Any]] | None = None
    classes: Mapping[str, tuple[str, ...]] | None = None
    run: tuple[Trained, Path] | None = None


def open_subject(name: str, sets: Sequence[str] = (), swaps: Sequence[str] = ()) -> Subject:
    """The run or pretrained model in a folder, of which `sets` may narrow the axes, or a graph with fresh weights. A
    folder that holds neither may have the name of a graph that ships.

    Raises:
        AtinukeError: there is no such run or graph, or it cannot be changed like that.
    """
    folder = Path(name)
    holds = (folder / RECIPE).is_file() or is_model_folder(folder)
    if not folder.is_dir() or (name in graphs.names() and not holds):
        checked = open_graph(name, sets, swaps)
        return Subject(checked, build(checked).eval())
    run = open_model(folder)
    if swaps:
        raise fail("a run's components cannot be exchanged", where=name, fix="leave out --swap")
    plain, model = merged(run.checked, run.model)  # low-rank updates become part of the weights
    run = replace(run, checked=plain, model=model)
    checked = _narrowed(plain, sets)
    tokenizer = folder / TOKENIZER if run.end_of_text else None
    text = _text(run, folder)
    if run.made is None:
        fields = reading.fields(folder, run.checked, "input_ids" if text else None)
        tokenizer = folder / TOKENIZER if text or any(field["name"] == "text" for field in fields.values()) else None
        return Subject(checked, model, text, tokenizer, fields, reading.classes(folder, run.checked))
    if task := run.made.task:
        fields = _fields_of_task(run, task, folder / TOKENIZER)
        tokenizer = folder / TOKENIZER if fields else None
        return Subject(checked, model, text, tokenizer, fields, task.classes, (run, folder))
    return Subject(checked, model, text, tokenizer, _fields(run), _classes(run), (run, folder))


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
    plan = plan_steps(run.checked) if run.end_of_text and can_step(run.checked) else None
    if plan is None or plan.inputs != ("input_ids",) or "logits" not in plan.outputs:
        return None
    found = writer(run, folder)
    assert run.end_of_text is not None
    if run.made is None:
        require_language(folder)
    end, *more = found.tokenizer.ends
    begins = found.begin == (end,)
    begin = found.begin if found.begin and not begins else begins
    return Text(run.end_of_text, found.context, begin, tuple(more), found.muted)


def _fields(run: Trained) -> dict[str, dict[str, Any]]:
    rows = run.recipe.rows
    read = {name: field for name, field in (rows.fields if rows else {}).items() if name in run.checked.graph.inputs}
    # The runtime has no chat templates: it writes from a prompt that is one text.
    return {name: _field(name, field, run.recipe) for name, field in read.items() if not isinstance(field, Chat)}


def _fields_of_task(run: Trained, task: Task, tokenizer: Path) -> dict[str, dict[str, Any]]:
    """How the inputs of a task are read, as far as the graph has them."""
    inputs = run.checked.graph.inputs
    found = {name: dict(field) for name, field in task.reads(Texts.load(tokenizer)).items() if name in inputs}
    for field in found.values():
        field.update({key: None for key in ("segments", "mask") if field.get(key) not in inputs})
    return found


def _field(name: str, field: Field, recipe: Recipe) -> dict[str, Any]:
    """A field in the words of `atinuke.runtime.fields`."""
    found = field.model_dump(mode="json", exclude={"column"})
    if called := mask_name(name, field):
        found["mask"] = called
    if isinstance(field, FieldOfText):
        end = recipe.tokenizer.end_of_text if recipe.tokenizer else None
        found |= {"pair": field.pair is not None, "segments": segments_name(field), "end_of_text": end}
    return found


def _classes(run: Trained) -> dict[str, tuple[str, ...]]:
    """The names of the classes of an output; CTC's blank has none."""
    objective, rows = run.recipe.objective, run.recipe.rows
    if rows is None or not isinstance(objective, Classification | CTC):
        return {}
    names = list(getattr(rows.fields.get(objective.labels), "classes", None) or ())
    if names and isinstance(objective, CTC):
        names.insert(len(names) if objective.blank is None else objective.blank, BLANK)
    return {objective.scores: tuple(names)} if names else {}


class OverBudgetError(AtinukeError):
    """A build is not close enough to the model. `parity` tells all, and lies in `report`."""

    def __init__(self, parity: Parity, report: Path) -> None:
        self.parity, self.report = parity, report
        fix = f"see {report}; compile in another precision, or for another target"
        mistakes = (
            Mistake(f"{build.name} is over its budget of {build.budget:g}", details=(build.blame or "",), fix=fix)
            for build in parity.failed
        )
        super().__init__(*mistakes)


def compile_bundle(
    subject: Subject,
    builds: Sequence[str],
    output: Path,
    step: bool = True,
    without: Sequence[str] = (),
    capabilities: Sequence[int] = (),
    seconds: float = SECONDS,
    tell: Tell = lambda what, done, of: None,
) -> Bundle:
    """Builds each of `builds` (`onnx`, or `onnx/fp16`), proves it, and writes the bundle whole or not at all. Engines
    for GPUs are built for these compute `capabilities` (86 is 8.6), or for all that the target knows. The comparison of
    a build takes about `seconds`; where one is quantised, all are measured too (`quality`). `tell` hears what is being
    done, and how far it is.

    Raises:
        OverBudgetError: an answer is over its budget; nothing but the report `OUTPUT.parity.json` is left.
        AtinukeError: there is something at `output`, a package is missing, or a target cannot have the model.
    """
    if exists(output):
        raise fail("is there already", where=str(output), fix="choose another folder with -o, or remove it")
    builders = find_builders(builds)
    if capabilities and not any(builder.reads_capabilities for builder in builders.values()):
        raise fail("none of the targets is built for compute capabilities", where="--capability", fix="leave it out")
    tell("exporting", 0, 0)
    made = programs(subject.checked, subject.model, step, without)
    axes = {name: axis for program in made.values() for name, axis in program.axes.items()}
    inputs = {name: draw(subject.checked, program, example(program.axes)) for name, program in made.items()}
    works = {name: Work(made, inputs, name.rpartition("/")[2], capabilities=tuple(capabilities)) for name in builders}
    _require_taken(builders, works)
    given, said = (None, "drawn at random: there is no run")
    if subject.run:
        given, said = real_inputs(*subject.run, subject.checked, made)
    with _drafting(output) as draft:
        interfaces = {name: program.interface for name, program in made.items()}
        words = subject.text, subject.fields or {}, subject.classes or {}
        bundle = Bundle(draft, subject.checked.graph.name, axes, interfaces, *words, tuple(builders))
        (draft / layout.GRAPH).write_text(dump(subject.checked.graph), encoding="utf-8")
        write(weights(subject.model), draft / layout.WEIGHTS)
        if subject.tokenizer:
            shutil.copyfile(subject.tokenizer, draft / layout.TOKENIZER)
        tell("asking the model", 0, 0)
        reference = Reference(subject.checked, made, given)
        proved = []
        works = {name: replace(work, calibration=reference.calibration()) for name, work in works.items()}
        for name, builder in builders.items():
            place = bundle.place(name)
            place.mkdir(parents=True)
            target = Target(name, builder, partial(_open_runner, name))
            proved.append(prove(target, works[name], reference, place, seconds, tell))
        parity = Parity(said, tuple(proved), reference.save(draft))
        report = output.with_name(f"{output.name}.parity.json")
        if parity.failed:
            with replacing(report) as file:
                write_parity(file, parity)
            raise OverBudgetError(parity, report)
        run = (*subject.run, subject.checked) if subject.run else None
        parity = with_quality(parity, bundle, made, run, tell)
        write_parity(draft / layout.PARITY, parity)
        seal(bundle, provenance(subject.checked.graph, tuple(builders)))
        if exists(output):
            raise fail("has appeared while this was compiled", where=str(output), fix="choose another place with -o")
        if output.suffix == ".zip":
            pack(draft, output)
        else:
            draft.rename(output)
        report.unlink(missing_ok=True)  # of an earlier try
    return layout.open_bundle(output)


@contextmanager
def _drafting(output: Path) -> Iterator[Path]:
    """A folder beside `output`, no other program's, for what is being written; nothing of it is left in the end.

    Raises:
        AtinukeError: nothing can be written there.
    """
    parents = [parent for parent in output.parents if not exists(parent)]
    scratch: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        draft = scratch / output.name  # with the rights that a folder has here; those of `scratch` are mine alone
        draft.mkdir()
        yield draft
    except OSError as error:
        raise fail(
            f"cannot be written: {error.strerror or error}", where=str(output), fix="choose another place with -o"
        ) from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):
            for parent in parents:  # the innermost first; they stay where the bundle lies
                parent.rmdir()


def find_builders(builds: Sequence[str]) -> dict[str, Builder]:
    """The builder of every target in its precision (`onnx/fp32`), which is the target's first where none is said.

    Raises:
        AtinukeError: there is no such target or precision, it is asked for twice, or a package is missing.
    """
    found: dict[str, Builder] = {}
    mistakes: list[Mistake] = []
    for one in builds:
        target, slash, precision = one.partition("/")
        builder: Builder = import_target(Registry().backend(target).builder)()
        name = f"{target}/{precision or builder.precisions[0]}"
        missing = [package for package in builder.packages if find_spec(package) is None]
        if slash and precision not in builder.precisions:
            fix = close(precision, builder.precisions)
            has = f"it has {', '.join(builder.precisions)}"
            mistakes.append(Mistake(f"target `{target}` has no precision `{precision}`", one, (has,), fix))
        elif missing:
            fix = f"pip install 'atinuke[{builder.extra}]'"
            mistakes.append(Mistake(f"{', '.join(missing)} must be installed to build for it", one, fix=fix))
        elif name in found:
            mistakes.append(Mistake("is asked for twice", name, fix="ask once"))
        elif name.rpartition("/")[2] not in BUDGETS:
            known = f"there are budgets for {', '.join(BUDGETS)}"
            mistakes.append(Mistake("has a precision without a budget", name, (known,), "call it by one of these"))
        found[name] = builder
    raise_all(mistakes)
    return found


def _require_taken(builders: Mapping[str, Builder], works: Mapping[str, Work]) -> None:
    """Refuses all that cannot be before any work is done."""
    refused = {name: builder.refusal(works[name]) for name, builder in builders.items()}
    raise_all(Mistake("cannot be built", name, (why,)) for name, why in refused.items() if why)


def _open_runner(build: str, made: Mapping[str, Program], folder: Path) -> Runner:
    target, _, precision = build.rpartition("/")
    axes = {name: axis for program in made.values() for name, axis in program.axes.items()}
    interfaces = {name: program.interface for name, program in made.items()}
    runner: Runner = import_target(Registry().backend(target).runner)(folder, interfaces, axes, precision)
    return runner
