"""A training recipe: one strict YAML file that says everything a run depends on.

Paths are relative to the recipe file. Every unknown, missing or wrong key is reported at once, each with its line.

```yaml
graph: {use: atinuke, set: {layers: 6}}        # a graph file, or the name of a graph that ships with Atinuke
data: {train: [corpus/*.txt], validation: [held-out.txt], context: 256}
tokenizer: {vocab_size: 8192}                  # train one on the training texts, or {file: tokenizer.json}
optimiser: {name: adamw, lr: 6e-4, weight_decay: 0.1}
schedule: {name: cosine, warmup: 100, final: 0.1}
steps: 2000
batch: 8
```
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, model_validator

from atinuke.core.document import parse, read_text
from atinuke.core.errors import fail
from atinuke.core.files import exists, is_file
from atinuke.pipelines.adapt import Adapt
from atinuke.pipelines.fields import Chat, Text
from atinuke.pipelines.fields import Field as Field_
from atinuke.pipelines.objective import Objective
from atinuke.pipelines.objective_text import Causal
from atinuke.pipelines.pretrained.folder import TOKENIZER, is_model_folder
from atinuke.pipelines.pretrained.writing import end_of_text
from atinuke.pipelines.rows import Source
from atinuke.pipelines.section import Section, read
from atinuke.pipelines.task import Task, Untrained
from atinuke.pipelines.text import Split
from atinuke.runtime.tokenizer import END_OF_TEXT

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]


def _plain(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number or an expression, but is `{value}`")
    return value


Size = Annotated[Any, AfterValidator(_plain)]


class GraphChoice(Section):
    """The graph to train: a file or a shipped graph's name; `set` overrides its dims and `swap` its components."""

    use: str
    set: dict[str, Size] = Field(default_factory=dict)
    swap: dict[str, str] = Field(default_factory=dict)


class Data(Section):
    """Texts: files, folders or patterns (`corpus/*.txt`); see `atinuke.pipelines.text` for `field` and `split`.

    Validation is texts of its own or a fraction of the documents. `context` is the number of tokens of a row.
    """

    train: Annotated[Texts, Field(min_length=1)]
    validation: Texts = ()
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    field: str = "text"
    split: Split = "file"
    context: Positive

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if self.validation and self.validation_fraction:
            raise ValueError("has both `validation` and `validation_fraction`: give one")
        return self


class RowsData(Section):
    """Rows of files and labels (see `atinuke.pipelines.rows` for sources and `atinuke.pipelines.fields` for fields).

    Each field feeds the input of the graph that it is named after. A bad row stops the run, or is skipped with a word.
    """

    train: Source
    validation: Source | None = None
    fields: Annotated[dict[str, Field_], Field(min_length=1)]
    bad: Literal["stop", "skip"] = "stop"


class Tokenizer(Section):
    """A `tokenizer.json`, or the size of a byte-level BPE vocabulary to be trained on the training texts."""

    file: str | None = None
    vocab_size: Annotated[int, Field(gt=256)] | None = None
    end_of_text: str = END_OF_TEXT

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.vocab_size is None):
            raise ValueError("must have either `file` or `vocab_size`")
        return self


class AdamW(Section):
    """Loshchilov and Hutter (2019), fused. Only parameters of two axes or more are decayed; the rate falls from each
    layer to the one before it by `layer_decay`. What a task puts on a graph may have a rate of its own, `head_lr`."""

    name: Literal["adamw"]
    lr: Annotated[float, Field(gt=0)]
    betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    layer_decay: Rate = 1.0
    head_lr: Annotated[float, Field(gt=0)] | None = None


class SGD(Section):
    """Stochastic gradient descent, fused. Only parameters of two axes or more are decayed. Rates as in AdamW."""

    name: Literal["sgd"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    layer_decay: Rate = 1.0
    head_lr: Annotated[float, Field(gt=0)] | None = None


class Cosine(Section):
    """Linear warm-up over `warmup` steps, then half a cosine down to `final` times the peak rate."""

    name: Literal["cosine"]
    warmup: Annotated[int, Field(ge=0)] = 0
    final: Fraction = 0.1


class WSD(Section):
    """Warm-up, stable, decay (Hu et al., 2024): the rate falls linearly to `final` in the last `decay` of all steps."""

    name: Literal["wsd"]
    warmup: Annotated[int, Field(ge=0)] = 0
    decay: Fraction = 0.2
    final: Fraction = 0.0


class BadLoss(Section):
    """What to do with a bad step: one whose loss or gradient norm is not finite, or whose loss is a spike.

    A spike is a loss above the mean plus `spike` standard deviations of the last `window` good steps (`null`: never;
    nothing is a spike before the window is full). `stop` ends the run with an error and keeps the last checkpoint;
    `skip` leaves the weights as they were, logs the step and goes on, unless `most` bad steps come in a row.
    """

    do: Literal["stop", "skip"] = "stop"
    spike: Annotated[float, Field(gt=0)] | None = 10.0
    window: Annotated[int, Field(gt=1, lt=2**31)] = 100
    most: Positive = 10


class Recipe(Section):
    """Everything a run depends on. It reads the texts of `data`, as tokens, the `rows` of any files, or the files of a
    `task`, which brings its own objective.

    It begins with a `graph`, or with the model folder `pretrained` (see docs/pretrained.md): its graph, its weights,
    and its tokenizer where texts are read and the recipe names no other.

    One step takes `batch * accumulate` rows (of texts: of `context` tokens) in every process.

    `compile: blocks` compiles each block once, however many layers there are; `whole` compiles the model as one, which
    takes longer the deeper it is and steps a little faster.
    """

    graph: GraphChoice | None = None
    pretrained: str | None = None
    data: Data | None = None
    rows: RowsData | None = None
    task: Task | None = None
    tokenizer: Tokenizer | None = None
    objective: Objective = Causal(name="causal")
    adapt: Adapt | None = None
    optimiser: Annotated[AdamW | SGD, Field(discriminator="name")]
    schedule: Annotated[Cosine | WSD, Field(discriminator="name")]
    steps: Positive
    batch: Positive
    accumulate: Positive = 1
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["none", "blocks", "whole"] = "none"
    activation_checkpointing: bool = False
    evaluate_every: Positive = 100
    evaluate_batches: Positive = 100
    save_every: Positive = 100
    keep: Positive = 2
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    on_bad_loss: BadLoss = BadLoss()

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        if sum(one is not None for one in (self.data, self.rows, self.task)) != 1:
            raise ValueError("must have either `data` or `rows` or `task`")
        if (self.graph is None) == (self.pretrained is None):
            raise ValueError("must have either `graph` or `pretrained`")
        if self.data and not (self.tokenizer or self.pretrained):
            raise ValueError("must have a `tokenizer`: texts are read as tokens")
        if self.data and "data" not in self.objective.reads:
            raise ValueError(f"`objective` {self.objective.name} needs `rows`; it cannot be learnt from `data`")
        if not (self.tokenizer or self.pretrained or self.task) and self.objective.needs_tokenizer:
            raise ValueError(f"`objective` {self.objective.name} needs a `tokenizer`, or name another")
        return self

    @model_validator(mode="after")
    def _task_is_whole(self) -> Self:
        if self.task is None:
            return self
        if isinstance(self.task, Untrained):
            raise ValueError(f"`task` {self.task.name} trains nothing: `atinuke evaluate RUN --task {self.task.name}`")
        if not self.task.train:
            raise ValueError("`task.train` is missing")
        if "objective" in self.model_fields_set and self.objective != self.task.objective():
            raise ValueError("`objective` comes with the task: leave it out")
        if self.tokenizer and not self.tokenizer.file:
            raise ValueError("`tokenizer.file` is missing: a task is read by a tokenizer that is there already")
        if not self.tokenizer and not self.pretrained:
            raise ValueError("must have a `tokenizer` where nothing is `pretrained`")
        return self

    @model_validator(mode="after")
    def _has_a_head(self) -> Self:
        if self.optimiser.head_lr is not None and self.task is None:
            raise ValueError("`optimiser.head_lr` is the rate of what a `task` adds, and there is none")
        return self

    @model_validator(mode="after")
    def _has_others_in_a_batch(self) -> Self:
        if self.task and self.task.together and self.batch < 2:
            raise ValueError(
                f"`batch` must be at least 2: `task` {self.task.name} tells a row from others of its batch"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.schedule.warmup >= self.steps:
            raise ValueError(f"`schedule.warmup` {self.schedule.warmup} must be less than `steps` {self.steps}")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with `key.path=value` overrides applied and its paths made absolute.

    Raises:
        AtinukeError: the file cannot be read, or anything in it or in the overrides is wrong; carries every mistake.
    """
    recipe = _absolute(read(Recipe, parse(read_text(path), str(path)), overrides), path.resolve().parent)
    recipe = _with_tokenizer(recipe)
    return recipe.model_copy(update={"objective": recipe.task.objective()}) if recipe.task else recipe


def _with_tokenizer(recipe: Recipe) -> Recipe:
    """The recipe with the tokenizer of its pretrained model, where it reads texts by none of its own."""
    if recipe.tokenizer or recipe.task or not recipe.pretrained:
        return recipe
    folder = Path(recipe.pretrained)
    needed = recipe.data is not None or recipe.objective.needs_tokenizer
    fields = recipe.rows.fields.values() if recipe.rows else ()
    reads = needed or any(isinstance(field, Text | Chat) for field in fields)
    if not reads or not is_model_folder(folder):  # the latter is told where it is opened
        return recipe
    if end := end_of_text(folder):
        return recipe.model_copy(update={"tokenizer": Tokenizer(file=str(folder / TOKENIZER), end_of_text=end)})
    if needed:
        what = f"has no `{TOKENIZER}` with a token that ends texts"
        raise fail(what, where=recipe.pretrained, fix="name a tokenizer: {file: ..., end_of_text: ...}")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; `load_recipe` reads it back as an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its paths made absolute."""

    def path(text: str) -> str:
        try:
            return str(folder / Path(text).expanduser())
        except RuntimeError as error:  # a home that nobody has
            raise fail(f"`{text}` cannot be found", str(error), fix="write the path out") from None

    def paths(texts: tuple[str, ...]) -> tuple[str, ...]:
        """Of data: a pattern stays one, but the folder's own name is none."""
        return tuple(
            path(text) if exists(Path(path(text))) else str(Path(glob.escape(str(folder))) / Path(text).expanduser())
            for text in texts
        )

    def source(source: Source) -> Source:
        made: dict[str, Any] = {}
        if files := getattr(source, "files", None):
            made["files"] = paths(files)
        if folder := getattr(source, "path", None):
            made["path"] = path(folder)
        return source.model_copy(update=made)

    def chats(fields: dict[str, Field_]) -> dict[str, Field_]:
        return {
            name: field.model_copy(update={"file": path(field.file)})
            if isinstance(field, Chat) and field.file
            else field
            for name, field in fields.items()
        }

    data, rows, graph, tokenizer, task = recipe.data, recipe.rows, recipe.graph, recipe.tokenizer, recipe.task
    beside = graph and is_file(Path(path(graph.use)))  # else it must be the name of a graph that ships
    return recipe.model_copy(
        update={
            "graph": graph.model_copy(update={"use": path(graph.use)}) if graph and beside else graph,
            "pretrained": recipe.pretrained and path(recipe.pretrained),
            "task": task and task.model_copy(update={"train": paths(task.train), "validation": paths(task.validation)}),
            "data": data and data.model_copy(update={"train": paths(data.train), "validation": paths(data.validation)}),
            "rows": rows
            and rows.model_copy(
                update={
                    "train": source(rows.train),
                    "validation": rows.validation and source(rows.validation),
                    "fields": chats(rows.fields),
                }
            ),
            "tokenizer": tokenizer and tokenizer.model_copy(update={"file": tokenizer.file and path(tokenizer.file)}),
        }
    )
