"""GPT-2's kind of tokenizer read as tiktoken ranks: the same tokens, about ten times faster.

GPT-2 (Radford et al., 2019) splits text into pieces by a regular expression and merges the bytes of each piece, best
pair first. Hugging Face tokenizers know which pairs merge, and in which order; tiktoken knows the merged tokens, and
merges any two neighbours that make one. The two agree if every token is made by one merge only and its own bytes come
out as that token: what merges inside a token does not depend on what stands around it, so no other pair ever makes it.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail

Ids = NDArray[np.unsignedinteger[Any]]

# GPT-2's pattern, 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+, with all that needs no
# look-ahead in one group: tiktoken's engine matches the group as a finite automaton, and is 1.5 times faster.
PIECES = r"(?:'(?:[sdmt]|ll|ve|re)| ?(?:\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+))|\s+$|\s+(?!\S)|\s"

# Joins the texts of a batch, so that encoding it is one call, which does not hold the interpreter's lock.
SEPARATOR = "\x00\x1e\x00"

SAMPLE = (
    "They're sure I'd say we've won't've 'TIS  'twas\t1st 2nd\n\n\n  def f(x_1):\r\n\treturn x**2 != 3.14 # ok?!  \n"
    "naïve Ωmega Ẹ̀kọ́ Привет мир 你好，世界。 こんにちは 안녕 สวัสดี ٣٤ Ⅷ ½ ² e\u0301 \u200b\u00a0\u3000\u0085\u2028x "
    "<|endoftext|> <s> \x00\x1e \ufffd \ue000 end  "
)

# A piece of at least 2 * BLOCK characters covers one whole aligned block, in which nothing changes.
BLOCK = 4096
CHANGE = re.compile(r"[^\W_][\W_]|[\W_][^\W_]|\s\S|\S\s")


class Unlike(Exception):  # noqa: N818 - an answer, not a failure
    """Why tiktoken would not give the same tokens, or is not known to."""


class ByteLevel:
    """The fast twin of a byte-level BPE tokenizer, made of its `tokenizer.json`; its tokens are arrays of `dtype`.

    Raises:
        Unlike: the tokenizer has none.
        AtinukeError: tiktoken is not installed.
    """

    def __init__(self, config: dict[str, Any], dtype: np.dtype[Any]) -> None:
        try:
            import tiktoken
        except ImportError:
            raise fail("reading and writing text needs tiktoken", fix="pip install 'atinuke[runtime]'") from None
        _require_plain(config)
        vocabulary, merges = config["model"]["vocab"], [_pair(merge) for merge in config["model"]["merges"]]
        ranks = _ranks(vocabulary, merges)
        _require_whole(merges)
        names = [*alphabet().values(), *map("".join, merges)]
        self._ids = np.array([vocabulary[name] for name in names], dtype)
        self._separator = len(ranks)
        self._encoding = tiktoken.Encoding(
            "byte-level", pat_str=PIECES, mergeable_ranks=ranks, special_tokens={SEPARATOR: self._separator}
        )
        self._bytes = {vocabulary[name]: token for name, token in zip(names, ranks, strict=True)}
        self.sample = SAMPLE + "".join(token.decode("utf-8", "ignore") for token in ranks)
        """A text with every token, to be compared with other tokenizers."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, none of which has a long piece; UnicodeEncodeError for a lone surrogate."""
        found = self._encode(SEPARATOR.join(texts), {SEPARATOR})
        separators = np.flatnonzero(found == self._separator)
        if len(separators) != len(texts) - 1:  # a text contains the separator
            return [self._ids[self._encode(text, set())] for text in texts]
        cuts = [-1, *separators.tolist(), len(found)]
        return [self._ids[found[before + 1 : after]] for before, after in pairwise(cuts)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens, without special and unknown ones. Bytes that are no UTF-8 come out as U+FFFD."""
        return b"".join(self._bytes.get(token, b"") for token in tokens).decode(errors="replace")

    def stream(self) -> "ByteStream":
        """A decoder for tokens that come one by one."""
        return ByteStream(self._bytes)

    def _encode(self, text: str, special: set[str]) -> NDArray[np.uint32]:
        tokens: NDArray[np.uint32] = self._encoding.encode_to_numpy(
            text, allowed_special=special, disallowed_special=()
        )
        return tokens


class ByteStream:
    """Turns tokens that come one by one into text; bytes that do not yet form a character are held back."""

    def __init__(self, known: dict[int, bytes]) -> None:
        self._known = known
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that is certain now, often empty."""
        return self._decoder.decode(self._known.get(token, b""))

    def finish(self) -> str:
        """The rest, with U+FFFD for bytes that never became a character."""
        return self._decoder.decode(b"", final=True)


def has_long_piece(text: str) -> bool:
    """Whether some piece has 2 * BLOCK characters (perhaps already at BLOCK).

    On these tiktoken is slow (quadratic before 0.13) and fails in the end: a million spaces overflow its stack.
    """
    return any(not CHANGE.search(text, at, at + BLOCK) for at in range(0, len(text) - BLOCK + 1, BLOCK))


def alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in the vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    moved = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {byte: moved.get(byte, chr(byte)) for byte in range(256)}


def _require_plain(config: dict[str, Any]) -> None:
    """Nothing but GPT-2's splitting and the merges may have a say in the tokens."""
    model, splitter, decoder = config["model"], config.get("pre_tokenizer") or {}, config.get("decoder") or {}
    if model.get("type") != "BPE":
        raise Unlike(f"the model is {model.get('type')}, not BPE")
    if config.get("normalizer"):
        raise Unlike("it normalises text")
    if splitter.get("type") != "ByteLevel" or splitter["add_prefix_space"] or not splitter.get("use_regex", True):
        raise Unlike("it does not split text as GPT-2 does")
    if decoder.get("type") != "ByteLevel":
        raise Unlike("its tokens are not joined as bytes")
    for token in config.get("added_tokens", []):
        if not token["special"]:
            raise Unlike(f"the added token {token['content']!r} is not special and is looked for in all text")
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(setting):
            raise Unlike(f"the model sets {setting}")


def _ranks(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[bytes, int]:
    """tiktoken's ranks: the 256 bytes, then every merged token in the order of merging."""
    known = {name: bytes([byte]) for byte, name in alphabet().items()}
    if missing := [name for name in known if name not in vocabulary]:
        raise Unlike(f"{len(missing)} of the 256 bytes have no token")
    for left, right in merges:
        if left not in known or right not in known:
            raise Unlike(f"the merge of {left!r} and {right!r} comes before they are made")
        if left + right in known:
            raise Unlike(f"two merges make the token {left + right!r}")
        known[left + right] = known[left] + known[right]
    return {token: rank for rank, token in enumerate(known.values())}


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """A merge as older and newer files write it: `"a b"` or `["a", "b"]`."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _require_whole(merges: list[tuple[str, str]]) -> None:
    """Every merged token's own bytes must come out as that one token."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    never = len(ranks)
    for left, right in merges:
        parts = list(left + right)
        while len(parts) > 1:
            found = [ranks.get(pair, never) for pair in pairwise(parts)]
            best = min(found)
            if best == never:
                raise Unlike(f"the bytes of token {left + right!r} give other tokens")
            at = found.index(best)  # the next round finds the others
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
