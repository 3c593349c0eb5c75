"""What an example has: each field, named like the input of the graph that it feeds, is read out of a column of a row.

```yaml
fields:
  input_values: {name: audio, column: sound, rate: 16000}
  pixel_values: {name: image, column: file, size: [28, 28], channels: 1, optional: true}
  input_ids: {name: text, column: words, length: 64}
  labels: {name: class, column: label}      # or {name: classes, column: letters}: several in a row
  input_ids: {name: chat, column: messages, file: chat_template.jinja, length: 512}
```

A column that a row lacks, or that is `null`, is a missing modality where the field is `optional`, and else a mistake.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import model_validator

from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.pipelines.chat import Template
from atinuke.pipelines.rows import Row, Rows
from atinuke.pipelines.section import Section
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.fields import joined, number, tokens
from atinuke.runtime.picture import read_picture
from atinuke.runtime.sound import LONGEST, read_sound

Positive = Annotated[int, Setting(gt=0)]
Array = NDArray[Any]
ANSWERS = "answers"  # the tensor of a chat field that says which tokens the assistant has said


class Audio(Section):
    """Samples at `rate` Hz, float32 `[samples]`, of a sound file of at most `longest` seconds.

    A batch is padded with zeros to its longest, and further to a multiple of `multiple` samples; its mask, Bool
    `[batch, samples]`, is called `mask`, or else like the field with `_mask`.
    """

    name: Literal["audio"] = "audio"
    column: str
    rate: Positive
    longest: Annotated[float, Setting(gt=0)] = LONGEST
    multiple: Positive = 1
    mask: str | None = None
    optional: bool = False


class Image(Section):
    """Pixels, uint8 `[channels, height, width]`, of a picture file that is stretched to `size` (height, width).

    An optional one has a mask Bool `[batch]`, called `mask`, or else like the field with `_mask`.
    """

    name: Literal["image"] = "image"
    column: str
    size: Annotated[tuple[Positive, Positive], Setting(strict=False)]
    channels: Literal[1, 3] = 3
    mask: str | None = None
    optional: bool = False


class Text(Section):
    """Tokens, int64 `[tokens]`; without a tokenizer the bytes of UTF-8.

    A text of more than `length` tokens is a mistake, or with `cut` loses its end. Batches are padded and masked like
    those of `Audio`.

    With `pair`, the text of that column comes behind it, after the tokenizer's end of text, and `cut` takes from the
    longer of the two. `segments` names a tensor like the tokens, 0 for the first text and 1 for the second; that of a
    pair is called `segment_ids` where no other name is given. Tokens and segments are int64 `[2, tokens]` then.
    """

    name: Literal["text"] = "text"
    column: str
    pair: str | None = None
    segments: str | None = None
    length: Positive
    cut: bool = False
    multiple: Positive = 1
    mask: str | None = None
    optional: bool = False


class Chat(Section):
    """The tokens of a conversation, a list of `{"role": ..., "content": ...}`, by a chat template (see `chat`), and
    which of them the assistant has said, int64 `[2, tokens]`: for the objective `answers`.

    The template is in a `file`, a chat_template.jinja or tokenizer_config.json, or stands in the recipe as `template`,
    with the `special` tokens that it names; a run's recipe has it so. Else all is as for `Text`.
    """

    name: Literal["chat"] = "chat"
    column: str
    file: str | None = None
    template: str | None = None
    special: dict[str, str] = Setting(default_factory=dict)
    length: Positive
    cut: bool = False
    multiple: Positive = 1
    mask: str | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _one_template(self) -> Self:
        if (self.file is None) == (self.template is None):
            raise ValueError("must have either `file` or `template`")
        return self

    def read(self) -> Template:
        """Its template.

        Raises:
            AtinukeError: the file cannot be read or has none.
        """
        return Template.load(Path(self.file)) if self.file else Template(self.template or "", self.special)


class Class(Section):
    """The number of a class, int64: its place in `classes`, or else in all classes of the training rows, sorted.

    A class may be written as a text or as a whole number. Where an optional one is missing, the number is -100.
    """

    name: Literal["class"] = "class"
    column: str
    classes: Annotated[tuple[str, ...], Setting(strict=False, min_length=2)] | None = None
    optional: bool = False


class Classes(Section):
    """The numbers of several classes, int64 `[targets]`, of a text whose words are their names, or of a list of names:
    what an example says, in order, such as letters or phones for the objective `ctc`.

    Classes are numbered like those of `Class`. A batch is filled up with -100; where an optional field is missing, all
    are -100.
    """

    name: Literal["classes"] = "classes"
    column: str
    classes: Annotated[tuple[str, ...], Setting(strict=False, min_length=2)] | None = None
    optional: bool = False


class Number(Section):
    """A finite number, float32; tables may hold it as text."""

    name: Literal["number"] = "number"
    column: str


Tokens = Text | Chat
Field = Annotated[Audio | Image | Text | Chat | Class | Classes | Number, Setting(discriminator="name")]


@overload
def mask_name(name: str, field: Audio | Tokens) -> str: ...
@overload
def mask_name(name: str, field: Field) -> str | None: ...
def mask_name(name: str, field: Field) -> str | None:
    """What the mask of a field is called; None where it has none."""
    if isinstance(field, Audio | Tokens) or (isinstance(field, Image) and field.optional):
        return field.mask or f"{name}_mask"
    return None


def segments_name(field: Field) -> str | None:
    """What the segments of a text are called, or those of a conversation; None where it has none."""
    if isinstance(field, Chat):
        return ANSWERS
    if not isinstance(field, Text):
        return None
    return field.segments or ("segment_ids" if field.pair else None)


def columns(field: Field) -> tuple[str, ...]:
    """The columns that a field is read out of."""
    return (field.column, field.pair) if isinstance(field, Text) and field.pair else (field.column,)


def with_classes(fields: Mapping[str, Field], rows: Rows) -> dict[str, Field]:
    """The fields with the classes of the training rows filled in: in the order of numbers if all are, else of letters.

    Raises:
        AtinukeError: there are fewer than two classes.
    """
    open_ = {name: f for name, f in fields.items() if isinstance(f, Class | Classes) and f.classes is None}
    found: dict[str, set[str]] = {name: set() for name in open_}
    for row in map(rows.__getitem__, range(len(rows))) if open_ else ():
        for name, field in open_.items():
            value = row.get(field.column)
            names = _names(value) if isinstance(field, Classes) else [value]
            found[name].update(str(one) for one in names if _is_class(one))
    complete = dict(fields)
    for name, field in open_.items():
        classes = found[name]
        if len(classes) < 2:
            told = f"found in the column `{field.column}`: {', '.join(classes) or 'none'}"
            raise fail("fewer than two classes", told, where=name, fix="name another column, or list `classes`")
        numbers = all(value.isdecimal() for value in classes)
        order = sorted(classes, key=lambda value: (int(value) if numbers else 0, value))
        complete[name] = field.model_copy(update={"classes": tuple(order)})
    return complete


def with_templates(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The fields with their chat templates written out: a run must not depend on a file that may change.

    Raises:
        AtinukeError: a file cannot be read or has no template.
    """
    complete = dict(fields)
    for name, field in fields.items():
        if isinstance(field, Chat) and field.file:
            found = field.read()
            made = {"file": None, "template": found.text, "special": dict(found.special)}
            complete[name] = field.model_copy(update=made)
    return complete


def decode(field: Field, row: Row, tokenizer: Tokenizer | None = None) -> Array | None:
    """The value of a field in a row; None where it is missing and may be.

    Raises:
        AtinukeError: it is missing and may not be, or cannot be read.
    """
    value = row.get(field.column)
    if any(row.get(column) is None for column in columns(field)):
        if isinstance(field, Number) or not field.optional:
            raise fail("is missing", f"the row has: {', '.join(_given(row)) or 'nothing'}")
        return None
    match field:
        case Audio():
            return read_sound(_file(value, row), field.rate, field.longest)
        case Image():
            return read_picture(_file(value, row), field.channels, field.size)
        case Text():
            return _text(field, row, tokenizer)
        case Chat():
            return _chat(field, value, tokenizer)
        case Class():
            return np.array(_class(field, value), np.int64)
        case Classes():
            return _classes(field, value)
        case Number():
            return number(value)


def _given(row: Row) -> list[str]:
    return [name for name, value in row.items() if value is not None]


def _file(value: object, row: Row) -> Path | bytes:
    """A path, bytes, or both as Hugging Face keeps them."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return row.folder / value
    raise fail("names no file", f"got {value!r:.40}")


def _text(field: Text, row: Row, tokenizer: Tokenizer | None) -> Array:
    texts = [tokens(row.get(column), tokenizer) for column in columns(field)]
    end = tokenizer.end_of_text if tokenizer else None
    return joined(texts, field.length, field.cut, field.segments is not None, end)


def _chat(field: Chat, value: object, tokenizer: Tokenizer | None) -> Array:
    if tokenizer is None:
        raise fail("is a conversation, which needs a tokenizer", fix="give the recipe a `tokenizer`")
    found = field.read().conversation(value, tokenizer)  # type: ignore[arg-type] # which it refuses itself
    if found.shape[1] > field.length and not field.cut:
        told = f"{found.shape[1]:,} tokens; at most {field.length:,}"
        raise fail("is too long", told, fix="set `length` higher, or `cut: true`")
    found = found[:, : field.length]
    if not found[1].any():
        raise fail(f"has no answer in its first {field.length:,} tokens", fix="set `length` higher, or leave it out")
    return found


def _is_class(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _names(value: object) -> list[Any]:
    """What stands for several classes, one by one."""
    if isinstance(value, str):
        return value.split()
    return value if isinstance(value, list) else []


def _classes(field: Classes, value: object) -> Array:
    if not isinstance(value, str | list):
        raise fail("is neither a text of several classes nor a list of them", f"got {value!r:.40}")
    names = _names(value)
    if not names:
        raise fail("names no class", fix="write null where there is none")
    return np.array([_class(field, one) for one in names], np.int64)


def _class(field: Class | Classes, value: object) -> int:
    assert field.classes is not None, "with_classes comes first"
    if not _is_class(value) or str(value) not in field.classes:
        known = field.classes[:10]
        more = f" and {len(field.classes) - 10} more" if len(field.classes) > 10 else ""
        told = f"got `{value}`", f"the classes: {', '.join(known)}{more}"
        raise fail("is not one of the classes", *told, fix=close(str(value), field.classes))
    return field.classes.index(str(value))
