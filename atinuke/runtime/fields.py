"""What people have, a text, a sound file, a picture, as a batch of what a model reads, the way a bundle's `fields` say.

A field is what a recipe's field is (`atinuke.pipelines.fields`), without the columns of a table. Its `mask` and
`segments` are the names of further inputs, or null; a text that is a `pair` takes two texts a row; `end_of_text` is
that of the tokenizer, and null where a text is read as bytes. A text with a `template` has its special tokens
around it: `around` are tokens and segments before, between and behind one or two texts, `texts` the segment of each.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import AtinukeError, fail
from atinuke.runtime.interface import Array
from atinuke.runtime.picture import read_picture
from atinuke.runtime.sound import read_sound
from atinuke.runtime.tokenizer import Tokenizer

Field = Mapping[str, Any]


def read(field: Field, value: object, tokenizer: Tokenizer | None) -> Array:
    """One value of a field: the path or bytes of a file, a text (two of a pair), or a number.

    Raises:
        AtinukeError: it cannot be read, or is longer than the field allows.
    """
    match field["name"]:
        case "audio":
            return read_sound(_file(value), field["rate"], field["longest"])
        case "image":
            height, width = field["size"]
            return read_picture(_file(value), field["channels"], (height, width))
        case "text":
            own = tokenizer if field["end_of_text"] is not None else None
            texts = list(value) if field["pair"] and isinstance(value, Sequence) else [value]
            found = [tokens(text, own) for text in texts]
            if template := field.get("template"):
                return framed(found, field["length"], field["cut"], template, field["segments"] is not None)
            end = own.end_of_text if own else None
            return joined(found, field["length"], field["cut"], field["segments"] is not None, end)
        case "number":
            return number(value)
    raise fail(f"a field of the kind `{field['name']}` cannot be read here")


def batch(name: str, field: Field, values: Sequence[Array | None]) -> dict[str, Array]:
    """What the values of a field are for the model, a row each, with mask and segments where it has them; None is
    missing."""
    found: dict[str, Array] = {}
    mask = None
    match field["name"]:
        case "text" if field["segments"]:
            firsts, marks = ([None if pair is None else pair[i] for pair in values] for i in (0, 1))
            found[field["segments"]], _ = padded(marks, field["multiple"], np.int64)
            found[name], mask = padded(firsts, field["multiple"], np.int64)
        case "text":
            found[name], mask = padded(values, field["multiple"], np.int64)
        case "audio":
            found[name], mask = padded(values, field["multiple"], np.float32)
        case "image":
            found[name], mask = stacked(values, (field["channels"], *field["size"]))
        case _:
            found[name] = np.array([value for value in values if value is not None], np.float32)
    if field.get("mask") and mask is not None:
        found[field["mask"]] = mask
    return found


def tokens(value: object, tokenizer: Tokenizer | None) -> Array:
    """The tokens of a text, int64; without a tokenizer its bytes."""
    if not isinstance(value, str):
        raise fail("is not a text", f"got {value!r:.40}")
    found = np.frombuffer(_utf8(value), np.uint8) if tokenizer is None else np.array(tokenizer.encode(value))
    if not len(found):
        raise fail("is an empty text", fix="write null where there is none")
    return found.astype(np.int64)


def joined(texts: Sequence[Array], length: int, cut: bool, segments: bool, end_of_text: int | None) -> Array:
    """One text, or a pair of them with the end of text between, in at most `length` tokens: int64 `[tokens]`, or with
    segments `[2, tokens]`.

    Raises:
        AtinukeError: it is too long and may not be cut, or a pair has no end of text.
    """
    pair = len(texts) > 1
    if pair and end_of_text is None:
        raise fail("a pair of texts needs a tokenizer, whose end of text stands between them")
    between = len(texts) - 1
    total = sum(map(len, texts)) + between
    if total > length and not cut:
        told = f"{total:,} tokens; at most {length:,}"
        raise fail("is too long", told, fix="set `length` higher, or `cut: true`")
    if not pair:
        kept = texts[0][:length]
        return np.stack([kept, np.zeros_like(kept)]) if segments else kept
    if length < len(texts) + between:
        raise fail("`length` has no room for a pair", f"it is {length}", fix="set it higher")
    room = length - between
    first, second = texts
    most = max(room // 2, room - len(second))  # of the first, where it is too long
    first, second = first[:most], second[: room - min(len(first), most)]
    whole = np.concatenate([first, [end_of_text], second])
    return np.stack([whole, np.arange(len(whole)) > len(first)]).astype(np.int64)


def framed(texts: Sequence[Array], length: int, cut: bool, template: Mapping[str, Any], segments: bool) -> Array:
    """One text, or two, with a template's special tokens around them, in at most `length` tokens: int64 `[tokens]`, or
    with segments `[2, tokens]`. What is too long loses its end, the longer of two first, if it may be `cut`.

    Raises:
        AtinukeError: the template is for another number of texts, or leaves no room for them; or they are too long.
    """
    wanted = len(template["texts"])
    if len(texts) != wanted:
        raise fail(f"is of {wanted} texts", f"got {len(texts)}")
    around = [np.array(part, np.int64).reshape(2, -1) for part in template["around"]]
    room = length - sum(part.shape[1] for part in around)
    if room < wanted:
        raise fail("`length` has no room for a text", f"it is {length}", fix="compile a run with a larger one")
    total = sum(map(len, texts))
    if not cut and total > room:
        raise fail("is too long", f"{total:,} tokens; there is room for {room:,}", fix="give a part of it")
    if wanted == 2:
        most = max(room // 2, room - len(texts[1]))
        texts = [texts[0][:most], texts[1]]
        room -= len(texts[0])
    kept = [*texts[:-1], texts[-1][:room]]
    parts = [around[0]]
    for text, segment, behind in zip(kept, template["texts"], around[1:], strict=True):
        parts += [np.stack([text, np.full_like(text, segment)]), behind]
    whole: Array = np.concatenate(parts, 1)
    return whole if segments else whole[0]


def number(value: object) -> Array:
    """A finite float32; it may come as text."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found) or abs(found) > float(np.finfo(np.float32).max):
        raise fail("is not a finite number", f"got {value!r:.40}")
    return np.array(found, np.float32)


def padded(values: Sequence[Array | None], multiple: int, dtype: type[np.generic]) -> tuple[Array, Array]:
    """Rows of the same length, a multiple of `multiple`, filled up with zeros; and the mask of what is there."""
    longest = max(1, *(0 if value is None else len(value) for value in values))
    width = -(-longest // multiple) * multiple
    found, mask = np.zeros((len(values), width), dtype), np.zeros((len(values), width), bool)
    for row, value in enumerate(values):
        if value is not None:
            found[row, : len(value)] = value
            mask[row, : len(value)] = True
    return found, mask


def stacked(values: Sequence[Array | None], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Rows of one shape, uint8, zeros where one is missing; and which are there."""
    found = np.zeros((len(values), *shape), np.uint8)
    for row, value in enumerate(values):
        if value is not None:
            found[row] = value
    return found, np.array([value is not None for value in values])


def named(name: str, error: AtinukeError) -> AtinukeError:
    """An error about a value, with the field that it was given for."""
    mistake = error.mistakes[0]
    told = (str(mistake.where), *mistake.details) if mistake.where else mistake.details
    return fail(f"`{name}` {mistake.what}", *told, fix=mistake.fix)


def _file(value: object) -> Path | bytes:
    if isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, bytes):
        return value
    raise fail("names no file", f"got {value!r:.40}")


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise fail("has half a surrogate pair, which is no character") from None
