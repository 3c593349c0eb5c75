"""The tokenizer of a run, whatever it reads."""

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from atinuke.pipelines.recipe import Tokenizer as Choice
from atinuke.pipelines.tokenizer import Tokenizer


def run_tokenizer(
    wanted: Choice, special: tuple[str, ...], texts: Callable[[], Iterable[str]], path: Path, console: Console
) -> Tokenizer:
    """The run's own, in the file `path`; the first time, a copy of the one that the recipe names, or one trained on
    `texts()` with these `special` tokens.

    Raises:
        AtinukeError: a tokenizer cannot be read, trained or written.
    """
    if path.exists():
        return Tokenizer.load(path, wanted.end_of_text)
    if wanted.file:
        tokenizer = Tokenizer.load(wanted.file, wanted.end_of_text)
    else:
        assert wanted.vocab_size
        found = texts()
        with console.status(f"training a tokenizer of {wanted.vocab_size:,} tokens"):
            tokenizer = Tokenizer.train(found, wanted.vocab_size, wanted.end_of_text, special)
    tokenizer.save(path)
    return tokenizer
