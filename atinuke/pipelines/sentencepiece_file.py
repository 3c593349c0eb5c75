"""A SentencePiece `.model` (Kudo and Richardson, 2018) as a `tokenizer.json`.

Its protocol buffer is read here, with nothing but the numbers of the fields in sentencepiece_model.proto; what it says
is then done by the library tokenizers, which keeps the offsets of the original text. A `.model` does not say which
special tokens stand around a text: `tokenizer_config.json` beside it does, for Llama (`add_bos_token`, `add_eos_token`)
and T5 (the end, and `extra_ids`). Models whose classes number the tokens otherwise are refused.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, processors

from atinuke.core.errors import AtinukeError, fail

BLANK = "\u2581"
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # types of pieces
UNIGRAM, BPE = 1, 2
FIX = "save the tokenizer as a tokenizer.json, and name that"


@dataclass(frozen=True)
class Piece:
    """A token of the vocabulary."""

    text: str
    score: float
    kind: int


def read_sentencepiece(path: Path, config: Mapping[str, Any]) -> str:
    """The file as the text of a tokenizer.json; `config` is what stands in tokenizer_config.json, if anything.

    Raises:
        AtinukeError: it cannot be read, is damaged, or asks for what cannot be done here.
    """
    try:
        pieces, trained, normal = _parts(path.read_bytes())
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, struct.error) as error:
        raise fail("is not a SentencePiece model, or not all of it", str(error), where=str(path)) from None
    try:
        return _made(pieces, trained, normal, path, config).to_str(pretty=True)
    except AtinukeError:
        raise
    except Exception as error:  # the library's own type
        raise fail("is not a sound SentencePiece model", str(error), where=str(path)) from None


def _made(
    pieces: list[Piece], trained: Mapping[int, Any], normal: Mapping[int, Any], path: Path, config: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    kind, unknown, fallback = trained.get(3, UNIGRAM), trained.get(40, 0), bool(trained.get(35, 0))
    odd = any(piece.kind == UNUSED for piece in pieces) or not normal.get(5, 1) or trained.get(24, 0)
    if odd or kind not in (UNIGRAM, BPE) or not unknown < len(pieces):
        raise fail("is a kind of SentencePiece model that is not read here", where=str(path), fix=FIX)
    if kind == UNIGRAM:
        model: models.Model = models.Unigram(
            [(p.text, p.score) for p in pieces], unk_id=unknown, byte_fallback=fallback
        )
    else:
        numbers = {piece.text: number for number, piece in enumerate(pieces)}
        name = pieces[unknown].text
        model = models.BPE(numbers, _merges(pieces), unk_token=name, fuse_unk=True, byte_fallback=fallback)
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.Sequence(_steps(normal))
    inner.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([piece.text for piece in pieces if piece.kind == CONTROL] + [pieces[unknown].text])
    inner.add_tokens([tokenizers.AddedToken(p.text, normalized=False) for p in pieces if p.kind == USER])
    _put_around(inner, path, config)
    return inner


def _steps(normal: Mapping[int, Any]) -> list[Any]:
    """What happens to a text first: its characters are mapped, white space is mended and made visible."""
    steps: list[Any] = [normalizers.Precompiled(normal[2])] if normal.get(2) else []
    if normal.get(4, 1):
        steps += [normalizers.Replace(Regex(pattern), made) for pattern, made in (("^ +| +$", ""), (" {2,}", " "))]
    if normal.get(3, 1):
        steps.append(normalizers.Prepend(BLANK))
    return [*steps, normalizers.Replace(" ", BLANK)]


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others; what scores highest is made first."""
    known = {piece.text for piece in pieces}
    found = [
        (-piece.score, number, (piece.text[:at], piece.text[at:]))
        for number, piece in enumerate(pieces)
        if piece.kind == NORMAL
        for at in range(1, len(piece.text))
        if piece.text[:at] in known and piece.text[at:] in known
    ]
    return [pair for _, _, pair in sorted(found)]


def _put_around(inner: tokenizers.Tokenizer, path: Path, config: Mapping[str, Any]) -> None:
    """The special tokens around texts, as the class does that the config names."""
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    if kind == "":
        return
    if kind not in ("Llama", "T5"):
        told = f"tokenizer_config.json names {config['tokenizer_class']}, which may number tokens otherwise"
        raise fail("says too little about its special tokens", told, where=str(path), fix=FIX)
    first, last = ("<s>" if config.get("add_bos_token", True) else ""), ("</s>" if config.get("add_eos_token") else "")
    if kind == "T5":
        first, last = "", "</s>"
        inner.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(config.get("extra_ids", 100)))])
    ends = [(token, inner.token_to_id(token)) for token in (first, last) if token]
    if any(number is None for _, number in ends):
        raise fail("has no token `<s>` or `</s>`, which its class needs", where=str(path), fix=FIX)
    if ends:
        single, pair = (
            " ".join(f"{first} {text} {last}".strip() for text in texts) for texts in (("$A",), ("$A", "$B"))
        )
        inner.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)


def _parts(raw: bytes) -> tuple[list[Piece], dict[int, Any], dict[int, Any]]:
    """The pieces, and the fields of trainer_spec and normalizer_spec by number."""
    pieces: list[Piece] = []
    specs: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in _fields(raw):
        if number == 1:
            found = dict(_fields(value))
            pieces.append(
                Piece(found[1].decode(), struct.unpack("<f", found.get(2, b"\0\0\0\0"))[0], found.get(3, NORMAL))
            )
        elif number in specs:
            specs[number] = dict(_fields(value))
    if not pieces:
        raise ValueError("it has no pieces")
    return pieces, specs[2], specs[3]


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: whole numbers, and bytes of all else."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(raw, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {wire}")
        if at + size > len(raw):
            raise ValueError("it ends within a field")
        yield number, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = raw[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number that does not end")
