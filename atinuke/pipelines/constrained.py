"""Texts of a language: which tokens may come next so that what is written matches a pattern, a schema or a choice.

The work is done by llguidance (Moskal et al., 2025), which keeps a parser of the language beside each text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atinuke.core.document import read_text
from atinuke.core.errors import fail, first_line
from atinuke.pipelines.sampling import Sampler, Settings
from atinuke.runtime.text import Continuation
from atinuke.runtime.tokenizer import Tokenizer

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
"""As `json.dumps` writes, in one line: white space that may go on for ever would be an invitation."""


class Guide:
    """A language and the beginning of a text of it."""

    def __init__(self, matcher: Any, tokenizer: Tokenizer, spelling: Any) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._spelling = spelling  # llguidance's own reading of the tokenizer
        self._ended = False

    @property
    def whole(self) -> bool:
        """Whether the text belongs to the language as it is."""
        return bool(self._matcher.is_accepting())

    def allowed(self) -> NDArray[np.bool_]:
        """The tokens that may come next, Bool `[vocab_size]`; none where no token of the tokenizer fits."""
        found = np.zeros(self._tokenizer.vocab_size, bool)
        if not self._ended:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            found |= np.unpackbits(bits, count=len(found), bitorder="little").astype(bool)
            if found.sum() == 1:  # where no token is allowed, llguidance 1.9 names the first
                found[found] = self._matcher.validate_tokens(found.nonzero()[0].tolist()) == 1
        ends = [token for token in self._tokenizer.ends if token < len(found)]
        found[ends] = self._ended or (self.whole and not self._matcher.is_error())
        return found

    def take(self, token: int) -> None:
        """Adds a token that is allowed; what follows the end is ignored."""
        if not self._ended:
            self._ended = token in self._tokenizer.ends
            self._matcher.consume_token(self._tokenizer.end_of_text if self._ended else token)

    def require(self, found: Continuation) -> None:
        """Raises AtinukeError where the text is not what was held to the language, letter by letter."""
        for one in (found, *found.others):
            spelt = self._spelling.decode_bytes(list(one.tokens)).decode(errors="replace")
            if spelt != one.text:
                raise fail(
                    "this tokenizer's texts cannot be held to anything",
                    f"it reads {one.text!r:.60} for tokens that spell {spelt!r:.60}",
                    fix="use one that spells bytes, as GPT-2's and Llama's do",
                )

    def copy(self) -> Self:
        """Another text that begins alike."""
        found = type(self)(self._matcher.deep_copy(), self._tokenizer, self._spelling)
        found._ended = self._ended
        return found

    def after(self, token: int) -> Self:
        """A copy that has taken the token."""
        found = self.copy()
        found.take(token)
        return found


class Guided:
    """A sampler that takes only allowed tokens."""

    def __init__(self, sampler: Sampler, guides: Sequence[Guide]) -> None:
        self.sampler = sampler
        self.guides = guides

    def __call__(self, logits: Tensor, step: int) -> Tensor:
        """The tokens `[batch]` that follow, given `logits[batch, vocab_size]`.

        Raises:
            AtinukeError: no token of the tokenizer goes on with the text of a row.
        """
        allowed = mask([[guide] for guide in self.guides], (1, logits.shape[-1]))[:, 0]
        for row in (~allowed.any(-1)).nonzero()[:, 0].tolist():
            raise dead_end(row)
        told = logits.masked_fill(~allowed.to(logits.device) & ~logits.isnan(), float("-inf"))
        tokens = self.sampler(told, step)
        for guide, token in zip(self.guides, tokens.tolist(), strict=True):
            if token >= 0:
                guide.take(token)
        return tokens


def mask(guides: Sequence[Sequence[Guide]], shape: Sequence[int]) -> Tensor:
    """What each guide allows, Bool `[rows, *shape]`: a shape is so many guides, and tokens that the model knows. Where
    a row has fewer guides, nothing is allowed."""
    found = np.zeros((len(guides), *shape), bool)
    for row, some in enumerate(guides):
        for place, guide in enumerate(some):
            allowed = guide.allowed()[: shape[-1]]
            found[row, place, : len(allowed)] = allowed
    return torch.from_numpy(found)


def guides(settings: Settings, tokenizer: Tokenizer, rows: int) -> list[Guide] | None:
    """A guide for each row; None where any text will do.

    Raises:
        AtinukeError: llguidance is not installed, the language does not parse or has no text, or the tokenizer is of a
            kind that it cannot read.
    """
    name = next((name for name in ("regex", "choices", "schema") if getattr(settings, name)), None)
    if name is None:
        return None
    try:
        import llguidance
    except ImportError:
        raise fail(f"`{name}` needs llguidance", fix="pip install 'atinuke[constrained]'") from None
    try:
        read = llguidance.LLTokenizer(tokenizer.content, eos_token=tokenizer.end_of_text)
    except ValueError as error:
        raise fail(
            f"`{name}` cannot be held to with this tokenizer",
            first_line(error),
            fix="use one that spells bytes, as GPT-2's and Llama's do",
        ) from None
    matcher = llguidance.LLMatcher(read, _grammar(llguidance.LLMatcher, name, settings), log_level=0)
    found = Guide(matcher, tokenizer, read)
    wrong = [*_lines(matcher.get_error()), *matcher.get_grammar_warnings()]
    if wrong:
        raise fail(f"`{name}` is no language that texts can be held to", *wrong, fix=_fix(name))
    if not found.allowed().any():
        raise fail(
            f"`{name}` cannot be met", "no text that this tokenizer can write begins with it", fix="let it match more"
        )
    return [found.copy() for _ in range(rows)]


def dead_end(row: int) -> Exception:
    """What to raise where the text of a row can neither end nor go on."""
    return fail(
        f"row {row + 1} can neither end nor go on",
        "no token of the tokenizer goes on with what is to be matched, or it is too intricate",
        fix="let it match more, or simplify it",
    )


def _grammar(matcher: Any, name: str, settings: Settings) -> str:
    if name == "schema":
        schema = _schema(settings.schema or "", None)
        schema.pop("x-guidance", None)  # how to read a schema is not its own to say
        try:
            found = matcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_STYLE)
        except ValueError as error:
            raise fail("`schema` is no language that texts can be held to", first_line(error), fix=_fix(name)) from None
    else:
        choices = "|".join(map(_literal, settings.choices))
        found = matcher.grammar_from_regex(settings.regex if name == "regex" else choices)
    return str(found)


def read_schema(file: Path) -> str:
    """The text of a file that is to be a JSON Schema.

    Raises:
        AtinukeError: it cannot be read, or is no JSON object.
    """
    text = read_text(file)
    _schema(text, str(file))
    return text


def _schema(text: str, where: str | None) -> dict[str, Any]:
    fix = 'write a JSON Schema, such as {"type": "object"}'
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fail("`schema` is not JSON", first_line(error), where=where, fix=fix) from None
    if not isinstance(found, dict):
        raise fail("`schema` is not a JSON object", f"got {text!r:.60}", where=where, fix=fix)
    return found


def _literal(text: str) -> str:
    """A pattern of this text alone, letter by letter."""
    return re.sub(r"[^0-9A-Za-z]", lambda found: f"\\x{{{ord(found[0]):X}}}", text)


def _lines(error: str) -> Iterator[str]:
    """What is wrong, without where llguidance's own files have it."""
    for line in error.splitlines():
        if line.strip() in ("<state>", ""):
            return
        if not re.match(r"\s*\d* \|", line):
            yield re.sub(r"^at \d+\(\d+\): |\(in regex\): ", "", line)


def _fix(name: str) -> str:
    return {
        "regex": "write it as Rust's regex does: without look-around, back-references and word boundaries",
        "choices": "give other texts",
        "schema": "leave out what cannot be held to: uniqueItems, not, contains and the like",
    }[name]
