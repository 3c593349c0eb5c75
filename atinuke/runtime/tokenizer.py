"""A `tokenizer.json`, used to turn text into tokens and tokens into text.

GPT-2's kind is read by `atinuke.runtime.bytelevel`, all others by Hugging Face's tokenizers, which is an extra because
it brings a client of their hub. Where it is installed, it has to agree with what is read here.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.runtime.bytelevel import ByteLevel, ByteStream, Ids, Unlike, has_long_piece

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
FIX = "give the tokenizer.json of a model, or train one"


class Tokenizer:
    """The tokenizer of one `tokenizer.json`, whoever made it.

    Text is only ever text: a special token that is written in it is encoded letter by letter. And it is all of it:
    truncation, padding and added special tokens, which the file may ask for, are left out.

    `content` is the file's text, `end_of_text` the special token that ends a document (the format does not say which
    one it is), `where` is named in errors. `ends` are further tokens at which a model may stop.

    Raises:
        AtinukeError: this is no tokenizer, or it has no token `end_of_text`.
    """

    def __init__(
        self,
        content: str,
        end_of_text: str = END_OF_TEXT,
        where: str | Path | None = None,
        ends: Iterable[int] = (),
    ) -> None:
        where = str(where) if where else None
        self.content = content
        """The text of the file."""
        self._config = _parsed(content, where)
        self._inner = _read(content, where)
        special, tokens = _known(self._config, self._inner, where)
        if end_of_text not in special:
            raise fail(
                f"has no special token `{end_of_text}`",
                f"its special tokens: {', '.join(special) or 'none'}",
                where=where,
                fix="say which one ends a text",
            )
        self.special: dict[str, int] = special
        """The special tokens, which no text gives."""
        self.end_of_text: int = special[end_of_text]
        """The token that ends a document."""
        self.ends: tuple[int, ...] = tuple(dict.fromkeys([self.end_of_text, *ends]))
        """All tokens at which what is written ends, that one first."""
        self.vocab_size: int = 1 + max(tokens)
        """One more than the largest token: what an embedding needs (a vocabulary may have gaps)."""
        canonical = json.dumps([self._config, end_of_text], sort_keys=True)
        self.fingerprint: str = hashlib.sha256(canonical.encode()).hexdigest()
        """Equal for tokenizers that give equal tokens because their files say the same."""
        if self._inner is None and isinstance(self._fast, str):
            told = f"{self._fast}, so that the package `tokenizers` has to read it"
            raise fail("cannot be read here", told, where=where, fix="pip install 'atinuke[tokenizers]'")

    @classmethod
    def load(cls, path: str | Path, end_of_text: str = END_OF_TEXT, ends: Iterable[int] = ()) -> Self:
        """Reads any `tokenizer.json`.

        Raises:
            AtinukeError: the file is missing, unreadable, truncated, of another kind, or without `end_of_text`; or only
                the package `tokenizers` can read it, which is not installed.
        """
        try:
            content = Path(path).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise fail(
                "is not UTF-8 text", f"byte {error.start}", where=str(path), fix="name a tokenizer.json"
            ) from None
        except (OSError, ValueError) as error:
            what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise fail(what, where=str(path), fix="name a tokenizer.json") from None
        return cls(content, end_of_text, path, ends)

    def save(self, path: str | Path) -> None:
        """Writes the file as it was read or trained, whole or not at all.

        Raises:
            AtinukeError: it cannot be written.
        """
        with replacing(Path(path)) as draft:
            draft.write_bytes(self.content.encode())

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, without an end of text."""
        tokens: list[int] = self.encode_batch([text])[0].tolist()
        return tokens

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, as arrays of `dtype`; other threads go on running meanwhile.

        Raises:
            AtinukeError: a text contains half a surrogate pair, which is no character.
        """
        for text in texts:
            require_characters(text)
        fast = self._fast
        if isinstance(fast, str):
            return self._encode_slowly(texts)
        slow = [has_long_piece(text) for text in texts]
        quick = iter(fast.encode([text for text, is_slow in zip(texts, slow, strict=True) if not is_slow]))
        rest = iter(self._encode_slowly([text for text, is_slow in zip(texts, slow, strict=True) if is_slow]))
        return [next(rest if is_slow else quick) for is_slow in slow]

    def _encode_slowly(self, texts: Sequence[str]) -> list[Ids]:
        if not texts:
            return []
        if self._inner is None:
            raise fail(
                "a word of the text is too long", "thousands of letters", fix="pip install 'atinuke[tokenizers]'"
            )
        try:
            found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library's own type, for instance where a word has no token
            raise fail("the tokenizer cannot encode this text", str(error), fix="use another tokenizer") from None
        return [np.array(encoding.ids, self.dtype) for encoding in found]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens, without special ones. Bytes that are no UTF-8 come out as U+FFFD."""
        if isinstance(self._fast, ByteLevel):
            return self._fast.decode(tokens)
        assert self._inner is not None
        return self._inner.decode(list(tokens))

    def stream(self) -> "ByteStream | TextStream":
        """A decoder for tokens that come one by one."""
        if isinstance(self._fast, ByteLevel):
            return self._fast.stream()
        assert self._inner is not None
        return TextStream(self._inner)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds every token: uint16 or uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    @property
    def engine(self) -> str:
        """What encodes text, and why it is not the fast one where it is not."""
        return "tiktoken" if isinstance(self._fast, ByteLevel) else f"tokenizers, because {self._fast}"

    @cached_property
    def _fast(self) -> ByteLevel | str:
        try:
            fast = ByteLevel(self._config, self.dtype)
            if self._inner is not None:
                _require_same(fast, self._inner)
        except Unlike as reason:
            return str(reason)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return f"its file is not as GPT-2's: {error!r}"
        return fast


class TextStream:
    """Turns tokens that come one by one into text; bytes that do not yet form a character are held back."""

    def __init__(self, inner: "tokenizers.Tokenizer") -> None:
        from tokenizers import decoders

        self._inner = inner
        self._stream = decoders.DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._length = 0

    def feed(self, token: int) -> str:
        """The text that is certain now, often empty."""
        self._tokens.append(token)
        text: str = self._stream.step(self._inner, token) or ""
        self._length += len(text)
        return text

    def finish(self) -> str:
        """The rest, with U+FFFD for bytes that never became a character."""
        return self._inner.decode(self._tokens)[self._length :]


def _parsed(content: str, where: str | None) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise fail("is not JSON, or not all of it", str(error), where=where, fix=FIX) from None
    if not isinstance(config, dict):
        raise fail("is not a tokenizer.json", where=where, fix=FIX)
    return config


@contextmanager
def readable(where: str | None) -> Iterator[None]:
    """Says as an AtinukeError what the library says of a broken file. On some it panics, and its PanicException is no
    Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise fail("is not a tokenizer.json", str(error), where=where, fix=FIX) from None


def _read(content: str, where: str | None) -> "tokenizers.Tokenizer | None":
    """The tokenizer as the library reads it; None where that is not installed."""
    try:
        import tokenizers
    except ImportError:
        return None
    with readable(where):
        inner = tokenizers.Tokenizer.from_str(content)
    inner.encode_special_tokens = True
    inner.no_truncation()
    inner.no_padding()
    return inner


def _known(
    config: dict[str, Any], inner: "tokenizers.Tokenizer | None", where: str | None
) -> tuple[dict[str, int], list[int]]:
    """The special tokens by name, and the numbers of all tokens."""
    if inner is not None:
        added = inner.get_added_tokens_decoder()
        special = {token.content: number for number, token in added.items() if token.special}
        numbers = list(inner.get_vocab().values())
    else:
        try:
            marked = [token for token in config["added_tokens"] if token["special"]]
            special = {str(token["content"]): int(token["id"]) for token in marked}
            vocabulary = config["model"]["vocab"]
            pieces = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
            numbers = [*map(int, pieces), *special.values()]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise fail("is not a tokenizer.json", repr(error), where=where, fix=FIX) from None
    if not numbers:
        raise fail("has no tokens", where=where, fix=FIX)
    return special, numbers


def _require_same(fast: ByteLevel, inner: "tokenizers.Tokenizer") -> None:
    """A text with every token must be the same tokens to both engines."""
    if inner.encode(fast.sample, add_special_tokens=False).ids != fast.encode([fast.sample])[0].tolist():
        import tiktoken
        import tokenizers

        raise Unlike(f"tokenizers {tokenizers.__version__} and tiktoken {tiktoken.__version__} split text differently")


def require_characters(text: str) -> None:
    """Refuses half a surrogate pair."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise fail(
            f"this text has half a surrogate pair (U+{ord(text[error.start]):04X}), which is no character",
            f"at character {error.start}: {text[max(0, error.start - 20) : error.start]!r}",
            fix="decode it as UTF-8, or join its surrogate pairs",
        ) from None
