"""What a text is written from, such as the source of a translation: as people say it, and as a batch of rows."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from atinuke.core.errors import AtinukeError, fail
from atinuke.core.names import close
from atinuke.pipelines.collate import collate
from atinuke.pipelines.feed_rows import known
from atinuke.pipelines.fields import Array, Field, Number, decode
from atinuke.pipelines.generate import generate
from atinuke.pipelines.rows import Row
from atinuke.pipelines.run import Run
from atinuke.pipelines.sampling import Settings


def answers(run: Run, batch: Mapping[str, Tensor], max_new_tokens: int | None = None) -> list[str]:
    """What a run writes for each row of a batch, greedily: at most so many tokens, or as many as it reads.

    Of the batch only the inputs that the text depends on are read (`run.given`), so a batch of the training rows will
    do.

    Raises:
        AtinukeError: the run's texts depend on nothing but their beginning, or an input is missing.
    """
    if not run.given:
        raise fail("the run answers nothing", "its texts depend on a prompt alone", fix="generate from prompts")
    given = {name: batch[name] for name in run.given if name in batch}
    rows = len(next(iter(given.values()), ()))
    most = run.context - 1 if max_new_tokens is None else max_new_tokens
    settings = Settings(temperature=0, max_new_tokens=most)
    found = generate(run.model, run.tokenizer, [""] * rows, settings, run.context, given=given, muted=run.muted)
    return [continuation.text for continuation in found]


def read_given(run: Run, values: Mapping[str, str], rows: int) -> dict[str, Tensor]:
    """Values of the fields of the run's rows, as a batch of equal rows; a file's path starts from the working folder.
    An optional field without a value is missing, as it may be in training.

    Raises:
        AtinukeError: a name is not of such a field, a needed one is missing, or a value cannot be read or is too long.
    """
    data = run.made.rows if run.made else None
    fields = {name: field for name, field in (data.fields if data else {}).items() if name in run.given}
    for name in values:
        if name not in fields:
            told = f"it reads: {', '.join(fields) or 'nothing but a prompt'}"
            raise fail(f"the run writes nothing from `{name}`", told, fix=close(name, fields))
    wanted = [name for name in fields if not run.checked.graph.inputs[name].optional]
    for name, field in ((name, fields[name]) for name in wanted if name not in values):
        if isinstance(field, Number) or not field.optional:
            told = ", ".join(f"{one} ({fields[one].name})" for one in wanted)
            raise fail(f"the run needs `{name}`", f"it writes from: {told}", fix=f"--given {name}=...")
    used = {name: field for name, field in fields.items() if name in values or name in wanted}
    used = known(used, data) if data else used
    row = {name: _read(run, name, field, values[name]) if name in values else None for name, field in used.items()}
    batch = collate([row] * rows, used)
    given = {name: tensor for name, tensor in batch.items() if name in run.given}
    for name, tensor in given.items():
        _require_size(run, name, tensor)
    return given


def _read(run: Run, name: str, field: Field, value: str) -> Array | None:
    try:
        return decode(field, Row({field.column: value}, "--given", Path.cwd()), run.tokenizer)
    except AtinukeError as error:
        mistake = error.mistakes[0]
        told = (str(mistake.where), *mistake.details) if mistake.where else mistake.details
        raise fail(f"`{name}` {mistake.what}", *told, where="--given", fix=mistake.fix) from None


def _require_size(run: Run, name: str, tensor: Tensor) -> None:
    """Refuses what is longer or shorter than the graph was proved for."""
    for size, number in zip(run.checked.body.inputs[name].shape[1:], tensor.shape[1:], strict=True):
        axis = run.checked.graph.axes.get(str(size))
        if axis is not None and not axis.low <= number <= axis.high:
            raise fail(f"`{name}` has {number:,} {size}, but the graph reads {axis}", where="--given")
