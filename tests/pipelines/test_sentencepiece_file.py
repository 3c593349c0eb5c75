import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.sentencepiece_file import read_sentencepiece

sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("google.protobuf")
LINES = [
    f"the {degree} film of {who} is {letter} good, {degree} and {letter}!"
    for degree in ("very", "not", "so")
    for who in ("you", "me", "her")
    for letter in ("a", "b", "cé")
]
TEXTS = st.text(st.sampled_from("the filmsvrygodé \u00a0\uff21 ,!\u4e2d"), max_size=25)


def trained(folder, **options):
    file = folder / "tokenizer.model"
    with file.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES * 20), model_writer=model, vocab_size=options.pop("vocab_size", 80),
            hard_vocab_limit=False, minloglevel=2, num_threads=1, **options,
        )  # fmt: skip
    return file


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram"},
        {"model_type": "bpe"},
        {"model_type": "bpe", "byte_fallback": True, "vocab_size": 350, "normalization_rule_name": "identity"},
        {"model_type": "unigram", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
    ],
)
def test_tokens_and_offsets_are_the_librarys(options, tmp_path):
    file = trained(tmp_path, **options)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(file))
    ours = Texts.load(file)
    assert ours.vocab_size == theirs.vocab_size()

    @given(TEXTS)
    @settings(max_examples=150)
    def check(text):
        found, right = ours.pieces(text), theirs.encode(text, return_type="proto")
        assert found.ids.tolist() == [piece.id for piece in right.pieces]
        for (start, stop), piece in zip(found.offsets.tolist(), right.pieces, strict=True):
            shown = text.encode()[piece.begin : piece.end]  # theirs are offsets of bytes
            if not options.get("byte_fallback") and (word := shown.decode().strip()):
                assert text[start:stop] == word

    check()


def test_special_tokens_are_put_around_as_the_class_does(tmp_path):
    file = trained(tmp_path)
    for config, single, pair in (
        ({}, "$", "$ $"),
        ({"tokenizer_class": "LlamaTokenizer"}, "<s> $", "<s> $ <s> $"),
        ({"tokenizer_class": "LlamaTokenizer", "add_eos_token": True}, "<s> $ </s>", "<s> $ </s> <s> $ </s>"),
        ({"tokenizer_class": "T5TokenizerFast"}, "$ </s>", "$ </s> $ </s>"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        texts = Texts.load(file)
        ids = {texts.token(name): name for name in ("<s>", "</s>")}
        for count, right in ((1, single), (2, pair)):
            found = texts.join(*[texts.pieces("film")] * count).ids.tolist()
            told = " ".join(ids.get(number, "$") for number in found)
            while "$ $" in told and count == 1:
                told = told.replace("$ $", "$")
            size = len(texts.pieces("film"))
            assert told == right.replace("$", " ".join(["$"] * size) if count == 2 else "$")
    assert texts.token("<extra_id_0>") == texts.vocab_size - 1


def test_what_is_not_read_here_is_refused(tmp_path):
    file = trained(tmp_path)
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 3])
    with pytest.raises(AtinukeError, match="is not a SentencePiece model, or not all of it"):
        read_sentencepiece(file, {})
    file.write_bytes(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(AtinukeError, match="a number that does not end"):
        read_sentencepiece(file, {})
    file.write_bytes(raw)
    with pytest.raises(AtinukeError, match="names XLMRobertaTokenizer, which may number tokens otherwise"):
        read_sentencepiece(file, {"tokenizer_class": "XLMRobertaTokenizer"})
    with pytest.raises(AtinukeError, match="is a kind of SentencePiece model that is not read here"):
        read_sentencepiece(trained(tmp_path, model_type="char"), {})


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_refused_and_nothing_else(tmp_path_factory, raw):
    file = tmp_path_factory.mktemp("x") / "x.model"
    file.write_bytes(raw)
    try:
        read_sentencepiece(file, {})
    except AtinukeError:
        return
