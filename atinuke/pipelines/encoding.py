"""Texts as tokens that know where they stand in the text, alone and in pairs, as a `tokenizer.json` says.

What a file's post-processor adds ([CLS] a [SEP] b [SEP], and to which segment each token belongs) is read out of it
once, as a template; so texts can be cut, or become several windows, before the special tokens are put around them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.pipelines.tokenizer_files import read_tokenizer
from atinuke.runtime.tokenizer import readable, require_characters

Ids = NDArray[np.int64]
NOWHERE = -1  # where a special token stands


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text: `ids` int64 `[tokens]`; `offsets` int64 `[tokens, 2]` are the first character of each and
    the one behind its last, without white space at its ends."""

    ids: Ids
    offsets: Ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice, /) -> "Pieces":
        return Pieces(self.ids[part], self.offsets[part])


@dataclass(frozen=True)
class Encoded:
    """One or two texts with the special tokens around them, a number each `[tokens]`: `ids`, `segments`, and `source`,
    which of the texts a token is of (-1: none); `offsets` `[tokens, 2]` are those in its text."""

    ids: Ids
    segments: Ids
    source: Ids
    offsets: Ids

    def __len__(self) -> int:
        return len(self.ids)


class Texts:
    """Encodes texts by one tokenizer. A special token that is written in a text is encoded letter by letter.

    `vocab_size` is one more than the largest token.

    Raises:
        AtinukeError: the content is no tokenizer.json, or one whose special tokens do not stand around the texts.
    """

    def __init__(self, content: str, where: str | Path) -> None:
        self.where = str(where)
        with readable(self.where):
            inner = tokenizers.Tokenizer.from_str(content)
        inner.encode_special_tokens = True
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        tokens = inner.get_vocab().values()
        if not tokens:
            raise fail("has no tokens", where=self.where)
        self.vocab_size: int = 1 + max(tokens)
        self.fingerprint: str = hashlib.sha256(json.dumps(json.loads(content), sort_keys=True).encode()).hexdigest()
        """Equal for files that say the same."""
        self._templates = {pair: self._template(pair) for pair in (False, True)}
        pairs = self._templates[True]
        self.segments: int = 1 + max([*pairs.texts, *(int(s) for _, found in pairs.around for s in found)])
        """How many segments a pair of texts has."""

    @classmethod
    def load(cls, path: Path) -> "Texts":
        """Reads a tokenizer file, whatever kind it is (see `tokenizer_files`)."""
        return cls(read_tokenizer(path), path)

    def token(self, name: str) -> int:
        """The number of a token by its name.

        Raises:
            AtinukeError: there is none.
        """
        found = self._inner.token_to_id(name)
        if found is None:
            raise fail(f"has no token `{name}`", where=self.where, fix="name one of its tokens")
        return found

    def pieces(self, text: str) -> Pieces:
        """The tokens of a text, without special ones.

        Raises:
            AtinukeError: it holds half a surrogate pair, or what the tokenizer has no token for.
        """
        require_characters(text)
        try:
            found = self._inner.encode(text, add_special_tokens=False)
        except Exception as error:  # the library's own type
            raise fail("the tokenizer cannot encode this text", str(error), where=self.where) from None
        offsets = np.array(found.offsets, np.int64).reshape(-1, 2)
        return Pieces(np.array(found.ids, np.int64), _trimmed(offsets, text))

    def added(self, pair: bool) -> int:
        """How many special tokens stand around one text, or a pair of them."""
        return sum(len(ids) for ids, _ in self._templates[pair].around)

    @property
    def parts_pairs(self) -> bool:
        """Whether anything stands between the two texts of a pair."""
        return len(self._templates[True].around[1][0]) > 0

    def template(self, pair: bool, between: int | None = None) -> dict[str, Any]:
        """What `join` puts around texts, in the words of a bundle's fields; `between` is the token that stands between
        two where the tokenizer puts nothing there."""
        found = self._templates[pair]
        around = [[ids.tolist(), segments.tolist()] for ids, segments in found.around]
        if pair and between is not None and not self.parts_pairs:
            around[1] = [[between], [found.texts[1]]]
        return {"around": around, "texts": list(found.texts)}

    @property
    def special(self) -> tuple[str, ...]:
        """The names of the special tokens."""
        return tuple(one.content for one in self._inner.get_added_tokens_decoder().values() if one.special)

    def join(self, first: Pieces, second: Pieces | None = None) -> Encoded:
        """One text, or a pair, with the special tokens around it."""
        template = self._templates[second is not None]
        parts: list[tuple[Ids, Ids, int, Ids | None]] = []
        for place, (ids, segments) in enumerate(template.around):
            parts.append((ids, segments, NOWHERE, None))
            text = (first, second, None)[place] if place < len(template.texts) else None
            if text is not None:
                parts.append((text.ids, np.full(len(text), template.texts[place]), place, text.offsets))
        return Encoded(
            np.concatenate([ids for ids, *_ in parts]),
            np.concatenate([segments for _, segments, *_ in parts]),
            np.concatenate([np.full(len(ids), source, np.int64) for ids, _, source, _ in parts]),
            np.concatenate([np.zeros((len(i), 2), np.int64) if given is None else given for i, _, _, given in parts]),
        )

    def _template(self, pair: bool) -> "_Template":
        """What stands around texts: told by what the library makes of one letter, or of two."""
        with readable(self.where):
            found = self._inner.encode("a", "a") if pair else self._inner.encode("a")
        places = [NOWHERE if place is None else place for place in found.sequence_ids]
        order = [place for i, place in enumerate(places) if place != NOWHERE and (i == 0 or places[i - 1] != place)]
        once = len(self._inner.encode("a", add_special_tokens=False).ids)
        if order != ([0, 1] if pair else [0]) or places.count(0) != once:
            what = "its special tokens do not stand around the texts, each of which comes once"
            raise fail(what, f"it makes: {' '.join(found.tokens)}", where=self.where)
        around: list[tuple[list[int], list[int]]] = [([], [])]
        texts: list[int] = []
        for i, place in enumerate(places):
            if place == NOWHERE:
                around[-1][0].append(found.ids[i])
                around[-1][1].append(found.type_ids[i])
            elif place == len(texts):
                texts.append(found.type_ids[i])
                around.append(([], []))
        return _Template(tuple((np.array(i, np.int64), np.array(s, np.int64)) for i, s in around), tuple(texts))


@dataclass(frozen=True)
class _Template:
    """Ids and segments of the special tokens before, between and behind the texts, and the segment of each text."""

    around: tuple[tuple[Ids, Ids], ...]
    texts: tuple[int, ...]


def cut(first: Pieces, second: Pieces, room: int) -> tuple[Pieces, Pieces]:
    """As much of the beginnings of two texts as `room` tokens hold; the longer one loses first."""
    most = max(room // 2, room - len(second))
    first = first[:most]
    return first, second[: room - len(first)]


def _trimmed(offsets: Ids, text: str) -> Ids:
    """Offsets without the white space that some tokenizers count to a word."""
    for row, (start, stop) in enumerate(offsets.tolist()):
        piece = text[start:stop]
        if piece[:1].isspace() or piece[-1:].isspace():
            start += len(piece) - len(piece.lstrip())
            offsets[row] = start, max(start, start + len(piece.strip()))
    return offsets
