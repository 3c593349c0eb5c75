"""A `tokenizer.json` that is trained here."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import Self

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from atinuke.core.errors import fail
from atinuke.runtime import tokenizer
from atinuke.runtime.bytelevel import alphabet
from atinuke.runtime.tokenizer import END_OF_TEXT, require_characters


class Tokenizer(tokenizer.Tokenizer):
    __doc__ = tokenizer.Tokenizer.__doc__

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


def _train(inner: tokenizers.Tokenizer, trainer: trainers.BpeTrainer, texts: Iterable[str]) -> None:
    """Trains in a thread, because the library does not look for Ctrl-C; but it ends soon after `read` raises."""
    stopped = Event()

    def read() -> Iterator[str]:
        for text in texts:
            if stopped.is_set():
                raise InterruptedError
            require_characters(text)
            yield text

    with ThreadPoolExecutor(1) as thread:
        try:
            training = thread.submit(inner.train_from_iterator, read(), trainer)
            # A wait is not ended by a signal that comes just before it or to another thread.
            while not wait([training], timeout=0.1).done:
                pass
            training.result()
        finally:
            stopped.set()
