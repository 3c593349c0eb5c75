"""How the model of a model folder writes texts: what they begin and end with, and what it never writes, as its
config.json, generation_config.json and its tokenizer's files say."""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from tokenizers import Tokenizer

from atinuke.core.errors import fail
from atinuke.pipelines.pretrained.config import CONFIG, read_json
from atinuke.pipelines.pretrained.folder import TOKENIZER, config_of
from atinuke.pipelines.tokenizer_files import read_tokenizer
from atinuke.runtime.tokenizer import readable

GENERATION = "generation_config.json"
_TOKEN, _TOKENS, _NUMBERED = TypeAdapter(int | None), TypeAdapter(list[int] | None), TypeAdapter(dict[str, int] | None)
_FORCED = list[Annotated[list[int | None], Field(min_length=2, max_length=2)]]  # places and tokens
WRITING: Mapping[str, TypeAdapter[Any]] = {
    "decoder_start_token_id": _TOKEN,
    "no_timestamps_token_id": _TOKEN,
    "eos_token_id": TypeAdapter(int | list[int] | None),
    "suppress_tokens": _TOKENS,
    "begin_suppress_tokens": _TOKENS,
    "forced_decoder_ids": TypeAdapter(_FORCED | None),
    "lang_to_id": _NUMBERED,
    "task_to_id": _NUMBERED,
}
"""The keys of theirs that say how texts are written, and the kinds of their values."""


def end_of_text(folder: Path) -> str | None:
    """The special token that ends a text of the model in a folder, the first where there are several; None where it has
    no tokenizer, or none is named."""
    if not (folder / TOKENIZER).is_file():
        return None
    added = read_json(folder / TOKENIZER).get("added_tokens") or []  # without building its vocabulary
    with readable(str(folder / TOKENIZER)):
        names = {token.get("id"): str(token.get("content")) for token in added if token.get("special")}
    return next((names[number] for number in ends_of_text(folder) if number in names), None)


def ends_of_text(folder: Path) -> tuple[int, ...]:
    """All tokens at which the model in a folder stops, such as Llama 3's ends of a text, a message and a turn."""
    found = _said(folder, GENERATION).get("eos_token_id", _said(folder, CONFIG).get("eos_token_id"))
    return tuple(one for one in (found if isinstance(found, list) else [found]) if one is not None and one >= 0)


def prefix_of_text(folder: Path, special: Mapping[str, int]) -> int | None:
    """The token behind which the model in a folder is asked how likely a text is: the beginning of text that its
    tokenizer's files name, or else their end of text, as in lm-evaluation-harness; None where they name neither.
    `special` are the tokenizer's tokens."""
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        said = read_json(folder / name) if (folder / name).is_file() else {}
        named |= {key: said[key] for key in ("bos_token", "eos_token") if said.get(key)}
    for token in (named.get("bos_token"), named.get("eos_token")):
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content in special:
            return special[content]
    number = config_of(folder).huggingface.get("bos_token_id")
    return number if number in special.values() else None


def begin_of_text(folder: Path) -> tuple[int, ...]:
    """The tokens that every text of the model in a folder begins with, as transformers has it: what starts a decoder
    beside an encoder, and for Whisper the language, what to do, and `<|notimestamps|>`. For a decoder by itself it is
    what its tokenizer puts in front of a text, such as Llama's beginning of text.

    `language` and `task` of generation_config.json say the language (`"yo"`) and what to do (`"transcribe"`, unless it
    is `"translate"`); or, as it was once, `forced_decoder_ids` does. Where neither says a language to a model that
    knows several, the language and what follows it come with the prompt.

    Raises:
        AtinukeError: the model knows no such language, or cannot do that.
    """
    said = _generation(folder)
    start = said.get("decoder_start_token_id")
    if start is None or not said.get("is_encoder_decoder", True):
        end = end_of_text(folder)
        return () if end is None else _in_front(folder / TOKENIZER, end)
    if "language" in said:
        languages, tasks = said.get("lang_to_id") or {}, said.get("task_to_id") or {}
        language, task = str(said["language"]).lower(), said.get("task", "transcribe")
        name = language if language in languages else f"<|{language}|>"
        for what, one, known in (("language", name, languages), ("task", task, tasks)):
            if one not in known:
                told = f"has a `{what}` that the model does not know: {said.get(what, task)}"
                raise fail(told, f"it knows {', '.join(known) or 'none'}", where=str(folder / GENERATION))
        forced = [languages[name], tasks[task]]
    else:
        forced = [token for _, token in said.get("forced_decoder_ids") or ()]
        if None in forced or _lacks_language(said):
            return (start, *takewhile(lambda token: token is not None, forced))
    untimed = said.get("no_timestamps_token_id")
    if untimed is not None and not said.get("return_timestamps") and forced[-1:] != [untimed]:
        forced.append(untimed)
    return (start, *forced)


def _in_front(tokenizer: Path, special: str) -> tuple[int, ...]:
    """What a tokenizer puts in front of a text: told by one of a special token, since no letter is in all of them."""
    with readable(str(tokenizer)):
        inner = Tokenizer.from_str(read_tokenizer(tokenizer))
        inner.no_padding()  # it may pad in front
        inner.no_truncation()
        found = inner.encode(special)
    if 0 not in found.special_tokens_mask:
        made = f"of `{special}` it makes: {' '.join(found.tokens)}"
        raise fail("makes nothing of a text", made, where=str(tokenizer))
    return tuple(found.ids[: found.special_tokens_mask.index(0)])


def require_language(folder: Path) -> None:
    """Raises AtinukeError where a model that knows several languages is not told one for all its texts."""
    said = _generation(folder)
    if _lacks_language(said):
        raise fail(
            "does not say in which language it writes",
            f"it knows {', '.join(said['lang_to_id'])}",
            where=str(folder / GENERATION),
            fix='add a line such as `"language": "yo"`, and `"task": "translate"` where it shall write English',
        )


def _lacks_language(said: dict[str, Any]) -> bool:
    forced = [token for _, token in said.get("forced_decoder_ids") or ()]
    return bool(said.get("lang_to_id")) and "language" not in said and forced[:1] in ([], [None])


def _generation(folder: Path) -> dict[str, Any]:
    """What config.json and, before it, generation_config.json say of writing; no key is null."""
    generation = {key: value for key, value in _said(folder, GENERATION).items() if value is not None}
    said = {**_said(folder, CONFIG), **generation}
    return {key: value for key, value in said.items() if value is not None}


def _said(folder: Path, name: str) -> dict[str, Any]:
    """What their config.json or generation_config.json says, nothing where that is not there.

    Raises:
        AtinukeError: a value about writing is of another kind than theirs.
    """
    file = folder / name
    theirs = read_json(file) if name == GENERATION and file.is_file() else {}
    said = config_of(folder).huggingface if name == CONFIG else theirs
    for key, kind in WRITING.items():
        try:
            kind.validate_python(said.get(key), strict=True)
        except ValidationError:
            what = f"has a `{key}` that cannot be read"
            raise fail(what, f"got {said[key]!r:.60}", where=str(file), fix="restore it from a copy") from None
    return said


def muted_tokens(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that the model in a folder never writes, and those that it does not begin with: Whisper's
    `suppress_tokens` and `begin_suppress_tokens`."""
    said = _said(folder, GENERATION if (folder / GENERATION).is_file() else CONFIG)
    always, first = (
        tuple(one for one in said.get(key) or () if one >= 0) for key in ("suppress_tokens", "begin_suppress_tokens")
    )
    return always, first
