"""A `tokenizer.json`: trained, loaded, and used to turn text into tokens and tokens into text."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, Self

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines.bytelevel import ByteLevel, Ids, Unlike, alphabet, has_long_piece

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """The tokenizer of one `tokenizer.json`, whoever made it.

    Text is only ever text: a special token that is written in it is encoded letter by letter. And it is all of it:
    truncation, padding and added special tokens, which the file may ask for, are left out.

    `content` is the file's text, `end_of_text` the special token that ends a document (the format does not say which
    one it is), `where` is named in errors.

    Raises:
        AtinukeError: this is no tokenizer, or it has no token `end_of_text`.
    """

    def __init__(self, content: str, end_of_text: str = END_OF_TEXT, where: str | Path | None = None) -> None:
        where = str(where) if where else None
        self.content = content
        """The text of the file."""
        self._inner = _read(content, where)
        self._inner.encode_special_tokens = True
        self._inner.no_truncation()
        self._inner.no_padding()
        special = {
            token.content: number for number, token in self._inner.get_added_tokens_decoder().items() if token.special
        }
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
        self.vocab_size: int = 1 + max(self._inner.get_vocab().values())
        """One more than the largest token: what an embedding needs (a vocabulary may have gaps)."""
        canonical = json.dumps([json.loads(content), end_of_text], sort_keys=True)
        self.fingerprint: str = hashlib.sha256(canonical.encode()).hexdigest()
        """Equal for tokenizers that give equal tokens because their files say the same."""

    @classmethod
    def load(cls, path: str | Path, end_of_text: str = END_OF_TEXT) -> Self:
        """Reads any `tokenizer.json`.

        Raises:
            AtinukeError: the file is missing, unreadable, truncated, of another kind, or without `end_of_text`.
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
        return cls(content, end_of_text, path)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        end_of_text: str = END_OF_TEXT,
        special_tokens: Sequence[str] = (),
        progress: bool = False,
    ) -> Self:
        """Trains byte-level BPE with GPT-2's splitting (Sennrich et al., 2016; Radford et al., 2019).

        `end_of_text` and further `special_tokens` come first in the vocabulary, then the 256 bytes, then the merges of
        pairs that occur at least twice. The same texts give the same tokenizer.

        Raises:
            AtinukeError: the size is below the bytes and special tokens, or above what the texts support; or a special
                token could come out of text.
        """
        special = [end_of_text, *special_tokens]
        if vocab_size < 256 + len(special):
            raise fail(
                f"a vocabulary of {vocab_size:,} is too small",
                f"it has to hold 256 bytes and {len(special)} special tokens",
                fix=f"set `vocab_size` to at least {256 + len(special)}",
            )
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.decoder = decoders.ByteLevel()
        for token in special:
            # No merge crosses two pieces. A letter beyond ASCII could be how the vocabulary spells a byte.
            if not token.isascii() or len(splitter.pre_tokenize_str(token)) < 2:
                raise fail(f"the special token `{token}` could come out of text", fix="write it like `<|name|>`")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=special,
            initial_alphabet=list(alphabet().values()),
            show_progress=progress,
        )
        _train(inner, trainer, texts)
        if inner.get_vocab_size() < vocab_size:
            raise fail(
                f"these texts support a vocabulary of {inner.get_vocab_size():,} only",
                f"{vocab_size:,} were asked for; every merge must occur at least twice",
                fix=f"set `vocab_size` to at most {inner.get_vocab_size()}, or give more text",
            )
        return cls(inner.to_str(pretty=True), end_of_text)

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
            _require_characters(text)
        fast = self._fast
        if isinstance(fast, str):
            return self._encode_slowly(texts)
        slow = [has_long_piece(text) for text in texts]
        quick = iter(fast.encode([text for text, is_slow in zip(texts, slow, strict=True) if not is_slow]))
        rest = iter(self._encode_slowly([text for text, is_slow in zip(texts, slow, strict=True) if is_slow]))
        return [next(rest if is_slow else quick) for is_slow in slow]

    def _encode_slowly(self, texts: Sequence[str]) -> list[Ids]:
        try:
            found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library's own type, for instance where a word has no token
            raise fail("the tokenizer cannot encode this text", str(error), fix="use another tokenizer") from None
        return [np.array(encoding.ids, self.dtype) for encoding in found]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens, without special ones. Bytes that are no UTF-8 come out as U+FFFD."""
        return self._inner.decode(list(tokens))

    def stream(self) -> "TextStream":
        """A decoder for tokens that come one by one."""
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
            return ByteLevel(self._inner, self.dtype)
        except Unlike as reason:
            return str(reason)


class TextStream:
    """Turns tokens that come one by one into text; bytes that do not yet form a character are held back."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
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


def _train(inner: tokenizers.Tokenizer, trainer: trainers.BpeTrainer, texts: Iterable[str]) -> None:
    """Trains in a thread, because the library does not look for Ctrl-C; but it ends soon after `read` raises."""
    stopped = Event()

    def read() -> Iterator[str]:
        for text in texts:
            if stopped.is_set():
                raise InterruptedError
            _require_characters(text)
            yield text

    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(inner.train_from_iterator, read(), trainer).result()
        finally:
            stopped.set()


def _read(content: str, where: str | None) -> tokenizers.Tokenizer:
    fix = "give the tokenizer.json of a model, or train one"
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise fail("is not JSON, or not all of it", str(error), where=where, fix=fix) from None
    try:
        inner = tokenizers.Tokenizer.from_str(content)
    except BaseException as error:
        # The library panics on some files, and its PanicException is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise fail("is not a tokenizer.json", str(error), where=where, fix=fix) from None
    if not inner.get_vocab():
        raise fail("has no tokens", where=where, fix=fix)
    return inner


def _require_characters(text: str) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise fail(
            f"this text has half a surrogate pair (U+{ord(text[error.start]):04X}), which is no character",
            f"at character {error.start}: {text[max(0, error.start - 20) : error.start]!r}",
            fix="decode it as UTF-8, or join its surrogate pairs",
        ) from None
