"""What tasks on texts share: cells that are texts, slices by length and by column, special tokens around texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from atinuke.core.errors import Place, fail
from atinuke.pipelines.encoding import Encoded, Pieces, Texts, cut
from atinuke.pipelines.task import MASK, Item
from atinuke.pipelines.tasks.columns import Found

WORDS = (8, 16, 32, 64)  # longest texts of the slices by length


def framed(item: Item, given: Sequence[str], texts: Texts, length: int, between: str | None = None) -> Encoded:
    """One or two texts of an item with the special tokens around them, cut to a length.

    Raises:
        AtinukeError: the length has no room for them, nothing would stand between two, or there is no token.
    """
    first, *others = (texts.pieces(one) for one in given)
    room = length - texts.added(bool(others))
    if others and not texts.parts_pairs:
        if between is None:
            fix = "name a token that does: task.between"
            raise fail("the tokenizer puts nothing between two texts", where=texts.where, fix=fix)
        room -= 1
    if room < 1 + len(others):
        raise fail("`length` has no room for a text", f"it is {length}", where="task.length", fix="set it higher")
    if others:
        first, second = cut(first, others[0], room)
        if between is not None and not texts.parts_pairs:
            second = _after(texts.token(between), second)
        found = texts.join(first, second)
    else:
        found = texts.join(first[:room])
    if not len(found):
        raise fail("is an empty text, which gives no token", where=item.where)
    return found


def read_as(texts: Texts, length: int, pair: bool = False, between: int | None = None) -> dict[str, dict[str, Any]]:
    """How a deployed model reads what `framed` frames; see `Task.reads`."""
    if not texts.special:
        return {}
    field = {
        "name": "text",
        "pair": pair,
        "segments": "segment_ids",
        "length": length,
        "cut": True,
        "end_of_text": texts.special[-1],  # a name that opens the tokenizer; the template has the tokens
        "template": texts.template(pair, between),
        "multiple": 1,
        "mask": MASK,
        "optional": False,
    }
    return {"input_ids": field}


def band(given: Sequence[str]) -> str:
    """How many words texts have, for slices by length."""
    words = sum(len(one.split()) for one in given)
    return next((f"up to {most}" for most in WORDS if words <= most), f"from {WORDS[-1] + 1}")


def named(slices: Sequence[str], found: Found) -> dict[str, str]:
    """The columns of a row by which it is counted too.

    Raises:
        AtinukeError: it has no such column.
    """
    for name in slices:
        if name not in found.values:
            has = f"it has: {', '.join(found.values)}"
            raise fail(f"has no column `{name}`", has, where=found.where, fix="name another in `slices`")
    return {name: str(found.values[name]) for name in slices}


def text_of(value: object, name: str, where: Place) -> str:
    """A cell that has to be a text."""
    if not isinstance(value, str):
        raise fail(f"`{name}` is not a text", f"got {value!r:.40}", where=where)
    return value


def _after(token: int, pieces: Pieces) -> Pieces:
    """The pieces behind a token that stands nowhere in the text."""
    return Pieces(np.concatenate([[token], pieces.ids]), np.concatenate([np.zeros((1, 2), np.int64), pieces.offsets]))
