"""A vocabulary for another language: pieces, rows, and that nothing else changes."""

import json
import random
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from atinuke.cli import app
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint
from atinuke.pipelines.extend import extend, rows_of
from atinuke.pipelines.pieces import Learned, extended, fertility, learn
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.pretrained.opening import from_pretrained
from tests.pipelines.corpora import TEXTS, trained

transformers = pytest.importorskip("transformers", reason="needs the package `transformers`")

DRAW = random.Random(0)
WORDS = ["".join(DRAW.choices("abdẹfgghiìjkllmnǹoọpràsṣtúwy", k=DRAW.randint(2, 8))) for _ in range(60)]
OTHER = [" ".join(DRAW.choices(WORDS, k=40)) for _ in range(20)]
"""Texts in a language of made-up words."""


def wordpiece() -> str:
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(TEXTS[:20], trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    text: str = inner.to_str()
    return text


def sentencepiece() -> str:
    """BPE as Llama has it: no parting into words, bytes for what is unknown."""
    letters = sorted({letter for text in TEXTS[:20] for letter in text.replace(" ", "▁")})
    vocabulary = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁t", "th", "▁th", "an"]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(vocabulary))}
    merges = [("▁", "t"), ("t", "h"), ("▁t", "h"), ("a", "n")]
    inner = tokenizers.Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    text: str = inner.to_str()
    return text


KINDS = {"bytes": lambda: trained().content, "wordpiece": wordpiece, "sentencepiece": sentencepiece}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Learned]:
    content = KINDS[request.param]()
    return content, learn(content, OTHER, 60)


def encode(content: str, text: str) -> list[str]:
    tokens: list[str] = tokenizers.Tokenizer.from_str(content).encode(text, add_special_tokens=False).tokens
    return tokens


def test_what_was_there_stays_and_new_pieces_come_behind(kind: tuple[str, Learned]) -> None:
    content, learned = kind
    before, after = (json.loads(text)["model"]["vocab"] for text in (content, extended(content, learned)))
    assert {piece: after[piece] for piece in before} == before
    assert len(learned.pieces) == 60
    assert [after[piece] for piece in learned.pieces] == list(range(max(before.values()) + 1, max(after.values()) + 1))


def test_the_other_language_takes_fewer_tokens(kind: tuple[str, Learned]) -> None:
    content, learned = kind
    new = extended(content, learned)
    before, now = fertility(content, OTHER), fertility(new, OTHER)
    assert now.tokens < 0.75 * before.tokens or now.unknown < before.unknown / 5 < 0.2
    used = {token for text in OTHER for token in encode(new, text)}
    assert len(used & learned.pieces.keys()) > 30


def test_every_piece_is_made_of_what_it_stands_for(kind: tuple[str, Learned]) -> None:
    content, learned = kind
    for piece, parts in learned.pieces.items():
        first, *rest = parts
        assert piece == first + "".join(part.removeprefix("##") for part in rest)
    assert all(len(rows) >= 1 for rows in rows_of(learned, json.loads(content)["model"]))


BYTES = trained().content
LEARNED = learn(BYTES, OTHER, 100)
NEW = extended(BYTES, LEARNED)


SENTENCES = st.lists(st.sampled_from([*WORDS, "the", "statement", " ", "\n", "ß"]), max_size=12).map(" ".join)


@given(SENTENCES | st.text(max_size=40))
def test_new_pieces_of_bytes_are_the_old_ones_joined(text: str) -> None:
    """Old merges come first, so each new piece stands for exactly the old pieces that there would have been."""
    found = encode(NEW, text)
    assert [old for token in found for old in LEARNED.pieces.get(token, (token,))] == encode(BYTES, text)
    inner = tokenizers.Tokenizer.from_str(NEW)
    assert inner.decode(inner.encode(text).ids) == text


def test_pieces_are_the_most_frequent_pairs() -> None:
    """By hand: `l` and `o` stand together six times, as `o` and `w` do; `lo` and `w` then; `low` and `low` twice."""
    inner = tokenizers.Tokenizer(models.BPE({letter: n for n, letter in enumerate("low")}, []))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learned = learn(inner.to_str(), ["lowlow low", "low lowlow"], 3)
    assert learned.merges == (("l", "o"), ("lo", "w"), ("low", "low"))
    assert dict(learned.pieces) == {"lo": ("l", "o"), "low": ("l", "o", "w"), "lowlow": tuple("lowlow")}


def test_letters_that_were_unknown_become_known() -> None:
    content = wordpiece()
    assert "[UNK]" in encode(content, "ọṣẹ")
    new = extended(content, learn(content, ["ọṣẹ ọṣẹ ẹṣọ ẹṣọ"], 6))
    assert "[UNK]" not in encode(new, "ọṣẹ ẹṣọ")


def test_what_cannot_be_learned_is_told() -> None:
    with pytest.raises(AtinukeError, match=r"these texts support [0-9]+ new pieces only"):
        learn(BYTES, ["low low"], 500)
    inner = tokenizers.Tokenizer(models.Unigram([("a", 0.0)]))
    with pytest.raises(AtinukeError, match="of the kind Unigram cannot be given more pieces"):
        learn(inner.to_str(), ["a"], 1)


BERT = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
GPT2 = {"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 64}


@pytest.mark.parametrize(
    ("architecture", "config", "content", "grown"),
    [
        ("GPT2LMHeadModel", GPT2, BYTES, {"E.weight"}),
        ("GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False}, BYTES, {"E.weight", "O.weight"}),
        ("BertForMaskedLM", BERT, wordpiece(), {"E.weight", "O.bias"}),
    ],
)
def test_rows_are_means_and_the_rest_stays(
    architecture: str, config: dict[str, int], content: str, grown: set[str], tmp_path: Path
) -> None:
    size = len(json.loads(content)["model"]["vocab"])
    torch.manual_seed(0)
    cls = getattr(transformers, architecture)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    cls(cls.config_class(vocab_size=size, **ends, **config)).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text(content)
    (tmp_path / "hf" / "vocab.txt").write_text("old")
    convert(tmp_path / "hf", tmp_path / "model")
    found = extend(tmp_path / "model", lambda: OTHER, 40, tmp_path / "wider")
    assert found.rows == (size, size + 40)
    assert found.fertility == (
        fertility(content, OTHER),
        fertility((tmp_path / "wider" / "tokenizer.json").read_text(), OTHER),
    )
    assert not (tmp_path / "wider" / "vocab.txt").exists()

    before, after = (checkpoint.weights(from_pretrained(tmp_path / name).model) for name in ("model", "wider"))
    assert before.keys() == after.keys()
    assert {name for name in before if not before[name].equal(after[name])} == grown
    rows = rows_of(learn(content, OTHER, 40), json.loads(content)["model"])
    for name in grown:
        assert after[name][:size].equal(before[name])
        expected = torch.stack([before[name][these].mean(0) for these in rows])
        assert torch.allclose(after[name][size:], expected, atol=1e-7)

    to_huggingface(tmp_path / "wider", tmp_path / "back")
    back, info = cls.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert back.config.vocab_size == size + 40
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_spare_rows_are_used_first(tmp_path: Path) -> None:
    size = len(json.loads(BYTES)["model"]["vocab"])
    config = transformers.GPT2Config(vocab_size=size + 24, bos_token_id=None, eos_token_id=None, **GPT2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text(BYTES)
    convert(tmp_path / "hf", tmp_path / "model")
    (tmp_path / "other.txt").write_text("\n".join(OTHER))
    words = ["extend", "model", "--texts", "other.txt", "--tokens", "20", "-o", "wider"]
    words = [str(tmp_path / word) if word in ("model", "other.txt", "wider") else word for word in words]
    app(words, standalone_mode=False)
    after = checkpoint.weights(from_pretrained(tmp_path / "wider").model)["E.weight"]
    before = checkpoint.weights(from_pretrained(tmp_path / "model").model)["E.weight"]
    assert after.shape == before.shape
    assert [row for row in range(size + 24) if not after[row].equal(before[row])] == list(range(size, size + 20))
