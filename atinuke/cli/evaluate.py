"""Commands that measure a trained run, and that show what a graph sees."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atinuke.cli.say import NONE, AsJson, say, say_json
from atinuke.core.errors import fail

if TYPE_CHECKING:
    from atinuke.pipelines.evaluate import Evaluation
    from atinuke.pipelines.evaluate_task import Scored, TaskEvaluation
    from atinuke.pipelines.scores.classes import ClassFigures
    from atinuke.pipelines.scores.numbers import NumberFigures
    from atinuke.pipelines.scores.reading import ReadingFigures
    from atinuke.pipelines.scores.retrieval import RetrievalFigures
    from atinuke.pipelines.scores.translation import TranslationFigures
    from atinuke.pipelines.seeds import Summary

OtherRows = Annotated[
    list[str],
    typer.Option(
        "--set",
        help=r"Other rows: 'rows.validation.files=\[/path/of/rows.jsonl]'; or a task's settings: task.KEY=VALUE.",
        metavar="KEY=VALUE",
    ),
]
LISTED = 6
NO_FILES: list[Path] = []  # typer copies it


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run, a model folder, or a folder of runs; or a file of a task's predictions, made by anybody.",
            metavar="RUN",
        ),
    ],
    sets: OtherRows = NONE,
    subsets: Annotated[
        bool, typer.Option("--subsets", help="Accuracy for every set of optional fields, the others hidden.")
    ] = False,
    beams: Annotated[int, typer.Option(help="Width of the search for what CTC reads.", min=1)] = 8,
    task: Annotated[
        str | None,
        typer.Option(help="The task of predictions, or of any model; or for a run, another one of the same answers."),
    ] = None,
    data: Annotated[list[Path], typer.Option(help="A file of the task, instead of its validation.")] = NO_FILES,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where a task's scores and predictions go.", metavar="DIR")
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure a run on its validation rows, or by its task: scores, slices and predictions."""
    if run.is_file():
        _evaluate_predictions(run, task, data, output, json)
        return
    if _holds_runs(run):
        if subsets or output:
            raise fail(f"--{'subsets' if subsets else 'output'} is for one run", where=str(run), fix="leave it out")
        _evaluate_runs(run, task, data, sets, json)
        return
    if task or data or output or _has_a_task(run):
        if subsets:
            raise fail("--subsets are for runs of rows", fix="leave it out")
        _evaluate_task(run, task, data, sets, output, json)
        return
    from atinuke.pipelines.evaluate import CONFUSION, SUBSETS
    from atinuke.pipelines.evaluate import evaluate as measure
    from atinuke.pipelines.evaluations import EVALUATION, ITEMS
    from atinuke.pipelines.scores.classes import ClassFigures

    found = measure(run, sets, subsets=subsets, beams=beams)
    if json:
        say_json(found.json())
        return
    say(f"{run}, {found.step}: {found.objective} over {found.rows:,} rows", "")
    _say_figures(found)
    pictures = [CONFUSION] if isinstance(found.figures, ClassFigures) else []
    pictures += [SUBSETS] if found.subsets else []
    say("", *(f"  wrote {run / name}" for name in (EVALUATION, ITEMS, *pictures)))


def _has_a_task(run: Path) -> bool:
    """Whether it is a run of a task, or a model folder, which can be asked for nothing else."""
    from atinuke.pipelines.pretrained.folder import is_model_folder
    from atinuke.pipelines.recipe import load_recipe
    from atinuke.pipelines.train import RECIPE

    if not (run / RECIPE).is_file():
        return is_model_folder(run)
    return load_recipe(run / RECIPE).task is not None


def _holds_runs(folder: Path) -> bool:
    from atinuke.pipelines.pretrained.folder import is_model_folder
    from atinuke.pipelines.seeds import runs_in
    from atinuke.pipelines.train import RECIPE

    return not (folder / RECIPE).is_file() and not is_model_folder(folder) and bool(runs_in(folder))


def _evaluate_runs(folder: Path, task: str | None, data: list[Path], sets: list[str], json: bool) -> None:
    from atinuke.pipelines.seeds import SUMMARY, evaluate_runs

    found = evaluate_runs(folder, task, data, sets)
    if json:
        say_json(found.json())
        return
    _say_seeds(found)
    say("", f"  wrote {folder / SUMMARY}")


def _say_seeds(found: "Summary") -> None:
    table = _table("task", "score", "mean", "95 % interval", "runs", "n")
    for result in found.results:
        for one in result.scores:
            table.add_row(result.task, one.name, *_ends(one), str(len(result.folders)), f"{result.items:,}")
    say(table)
    if found.glue is not None:
        say("", f"GLUE's average  {found.glue:.4f}")


def _ends(one: "Scored") -> tuple[str, str]:
    """A score and its interval; of one item there is none."""
    ends = one.interval
    return f"{ends.value:.4f}", "" if ends.low != ends.low else f"{ends.low:.4f} to {ends.high:.4f}"


def _evaluate_task(
    run: Path, task: str | None, data: list[Path], sets: list[str], output: Path | None, json: bool
) -> None:
    from atinuke.pipelines.evaluate_task import evaluate_task

    _say_task(evaluate_task(run, task, data, sets, output=output), json)


def _evaluate_predictions(file: Path, task: str | None, data: list[Path], output: Path | None, json: bool) -> None:
    from atinuke.pipelines.evaluate_task import evaluate_predictions

    if task is None:
        raise fail("is a file of predictions, and not a run", where=str(file), fix="say of which task: --task squad")
    _say_task(evaluate_predictions(file, task, data, output=output), json)


def _say_task(found: "TaskEvaluation", json: bool) -> None:
    from atinuke.pipelines.evaluations import EVALUATION, ITEMS

    if json:
        say_json(found.json())
        return
    say(", ".join(filter(None, (found.run, found.step))) + f": {found.task.name} over {found.items:,} items")
    files = list(found.data)
    more = [f"and {len(files) - LISTED:,} more"] if len(files) > LISTED else []
    say(f"  read {', '.join([*files[:LISTED], *more])}", "")
    if not found.scores:
        say("the files do not say what is right: there are predictions, and no scores")
    else:
        table = _table("score", "value", "95 % interval")
        for one in found.scores:
            table.add_row(one.name, *_ends(one))
        say(table)
    if found.slices:
        names = [one.name for one in found.scores]
        table = _table("slice", *names, "n")
        for part in found.slices:
            values = {one.name: f"{one.interval.value:.4f}" for one in part.scores}
            table.add_row(f"{part.by}: {part.value}", *(values.get(name, "") for name in names), f"{part.items:,}")
        say("", table)
    say("", *(f"  wrote {found.folder / name}" for name in (EVALUATION, ITEMS, *found.predictions)))


def _say_figures(found: "Evaluation") -> None:
    from atinuke.pipelines.scores.classes import ClassFigures
    from atinuke.pipelines.scores.numbers import NumberFigures
    from atinuke.pipelines.scores.retrieval import RetrievalFigures
    from atinuke.pipelines.scores.translation import TranslationFigures

    match found.figures:
        case ClassFigures() as figures:
            _say_classes(figures)
        case NumberFigures() as figures:
            _say_numbers(figures)
        case RetrievalFigures() as figures:
            _say_retrieval(figures)
        case TranslationFigures() as figures:
            _say_translation(figures)
        case ways:
            _say_reading(ways)
    if found.subsets:
        table = _table("shown", "accuracy", "95 % interval", "n")
        for subset in found.subsets:
            a = subset.accuracy
            table.add_row(" + ".join(subset.shown), _percent(a.value), f"{a.low:.1%} to {a.high:.1%}", f"{a.n:,}")
        say("", table)


def _table(first: str, *others: str) -> Any:
    from rich.table import Table

    table = Table(first, box=None, pad_edge=False)
    for column in others:
        table.add_column(column, justify="right")
    return table


def _percent(value: float) -> str:
    return "-" if value != value else f"{value:.1%}"


def _say_classes(figures: "ClassFigures") -> None:
    say(f"accuracy  {figures.accuracy}", f"macro F1  {_percent(figures.macro_f1)}", "")
    table = _table("class", "precision", "recall", "F1", "n", "said")
    for one in figures.classes:
        shares = map(_percent, (one.precision, one.recall, one.f1))
        table.add_row(one.name, *shares, f"{one.n:,}", f"{one.predicted:,}")
    say(table)


def _say_numbers(figures: "NumberFigures") -> None:
    say(
        f"root mean square error  {figures.rmse:.4g} (always saying the mean: {figures.spread:.4g})",
        f"mean absolute error     {figures.mae:.4g}",
        f"Pearson's correlation   {figures.pearson:.3f}",
        f"Spearman's correlation  {figures.spearman:.3f}",
    )


def _say_retrieval(figures: "RetrievalFigures") -> None:
    table = _table("", "there", "chance", "back", "chance")
    there, back = figures.there, figures.back
    for one, other in zip(there.recalls, back.recalls, strict=True):
        shares = map(_percent, (one.found.value, one.chance, other.found.value, other.chance))
        table.add_row(f"recall@{one.at}", *shares)
    ranks = (there.median_rank, there.chance_rank, back.median_rank, back.chance_rank)
    table.add_row("median rank", *(f"{rank:g}" for rank in ranks))
    table.add_row("asked for", f"{there.queries:,}", "", f"{back.queries:,}")
    table.add_row("among", f"{there.candidates:,}", "", f"{back.candidates:,}")
    say(table)


def _say_reading(ways: "tuple[ReadingFigures, ...]") -> None:
    table = _table("read by", "token error rate", "substituted", "left out", "put in", "labels", "rows without error")
    for way in ways:
        edits = (way.substitutions, way.deletions, way.insertions, way.labels)
        table.add_row(way.way, _percent(way.error_rate), *(f"{count:,}" for count in edits), str(way.whole))
    say(table, "")
    for sample in ways[0].samples:
        say(f"right  {' '.join(sample.right)}", f"read   {' '.join(sample.read)}", "")


def _say_translation(figures: "TranslationFigures") -> None:
    table = _table("", "chrF", "BLEU")
    table.add_row("model", f"{figures.model.chrf:.1f}", f"{figures.model.bleu:.1f}")
    if figures.copied:
        table.add_row("copying the source", f"{figures.copied.chrf:.1f}", f"{figures.copied.bleu:.1f}")
    say(table, *figures.signatures, "")
    for sample in figures.samples:
        source = [f"source   {sample.source}"] if sample.source is not None else []
        say(*source, f"right    {sample.right}", f"written  {sample.written}", "")


def look(
    subject: Annotated[Path, typer.Argument(help="A run's folder, or a recipe file (YAML) for fresh weights.")],
    node: Annotated[str, typer.Argument(help="A node of its graph, or one output of it: E.grid.")],
    row: Annotated[int, typer.Option(help="The validation row, counted from 1.", min=1)] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG; NODE.png unless given.", metavar="FILE.png")
    ] = None,
) -> None:
    """Draw what a node of a graph gives for a row, beside the row."""
    from atinuke.pipelines.drawing import draw
    from atinuke.pipelines.look import look as at

    picture = output or Path(f"{node}.png")
    draw(at(subject, node, row), picture)
    say(f"wrote {picture}")
