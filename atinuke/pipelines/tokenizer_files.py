"""Tokenizer files of several kinds, all as the text of a `tokenizer.json`.

- `tokenizer.json` is taken as it is;
- `vocab.txt` is WordPiece (Wu et al., 2016; Devlin et al., 2019), with `do_lower_case`, `strip_accents` and
  `tokenize_chinese_chars` from the `tokenizer_config.json` beside it;
- `.model` is SentencePiece (Kudo and Richardson, 2018), see `sentencepiece_file`.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from atinuke.core.errors import Place, fail
from atinuke.pipelines.sentencepiece_file import read_sentencepiece

CONFIG = "tokenizer_config.json"
NAMES = ("tokenizer.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
UNKNOWN, FIRST, BETWEEN, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer file of a model folder.

    Raises:
        AtinukeError: there is none.
    """
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        raise fail("has no tokenizer", f"none of {', '.join(NAMES)}", where=str(folder), fix="copy it there")
    return found


def read_tokenizer(path: Path) -> str:
    """The file as the text of a `tokenizer.json`.

    Raises:
        AtinukeError: it is missing, unreadable, or of no known kind; or what it needs beside it is missing.
    """
    if path.suffix == ".model":
        return read_sentencepiece(path, _config(path) if path.with_name(CONFIG).is_file() else {})
    content = _read(path)
    if path.suffix == ".json":
        return content
    if path.suffix == ".txt":
        return _wordpiece(content, path)
    fix = "name a tokenizer.json, a vocab.txt or a .model of SentencePiece"
    raise fail("is no tokenizer file of a known kind", where=str(path), fix=fix)


def _wordpiece(content: str, path: Path) -> str:
    """A vocabulary, a token a line, by BERT's rules."""
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(content.removesuffix("\n").split("\n")):
        if token in vocabulary:
            told = f"also in line {vocabulary[token] + 1}"
            raise fail(f"has the token `{token}` twice", told, where=Place(str(path), number + 1))
        vocabulary[token] = number
    lacking = [token for token in (UNKNOWN, FIRST, BETWEEN) if token not in vocabulary]
    if lacking:
        raise fail(f"has no token `{lacking[0]}`", where=str(path), fix="name the vocab.txt of a BERT")
    config = _config(path)
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=_flag(config, "do_lower_case", path, True),
        strip_accents=_flag(config, "strip_accents", path, None),
        handle_chinese_chars=_flag(config, "tokenize_chinese_chars", path, True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens([token for token in (PAD, UNKNOWN, FIRST, BETWEEN, "[MASK]") if token in vocabulary])
    ends = [(token, vocabulary[token]) for token in (FIRST, BETWEEN)]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {BETWEEN}", pair=f"{FIRST} $A {BETWEEN} $B:1 {BETWEEN}:1", special_tokens=ends
    )
    return inner.to_str(pretty=True)


def _config(path: Path) -> dict[str, Any]:
    beside = path.with_name(CONFIG)
    if not beside.is_file():
        what = f"needs `{CONFIG}` beside it, which says whether text is made lower case"
        raise fail(what, where=str(path), fix="copy it from the same model")
    try:
        config = json.loads(_read(beside))
    except (ValueError, RecursionError) as error:
        raise fail("is not JSON, or not all of it", str(error), where=str(beside)) from None
    if not isinstance(config, dict):
        raise fail("is not a JSON object", where=str(beside))
    return config


def _flag(config: dict[str, Any], key: str, path: Path, default: bool | None) -> Any:
    """A key that is true or false; where it is missing, BERT's own default."""
    value = config.get(key, default)
    if value is not None and not isinstance(value, bool):
        raise fail(f"`{key}` must be true or false", f"got {value!r:.40}", where=str(path.with_name(CONFIG)))
    return value


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        fix = "name a tokenizer.json, a vocab.txt or a .model of SentencePiece"
        raise fail("is not UTF-8 text", f"byte {error.start}", where=str(path), fix=fix) from None
    except (OSError, ValueError) as error:
        raise fail(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None
