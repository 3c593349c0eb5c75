import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.encoding import Pieces, Texts, cut
from atinuke.pipelines.tokenizer_files import read_tokenizer
from tests.pipelines.tasks.toys import vocabulary

TEXTS = st.text(st.sampled_from("ab cdé.,?  \nGOOD1\u3000"), max_size=20)


def _bert(tmp):
    return read_tokenizer(vocabulary(tmp))


def _bytes(special, post):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.add_special_tokens(special)
    if post:
        inner.post_processor = post({token: inner.token_to_id(token) for token in special})
    return inner.to_str()


def _roberta(tmp):
    def post(ids):
        return processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True)

    return _bytes(["<s>", "</s>"], post)


def _llama(tmp):
    def post(ids):
        return processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", ids["<s>"])]
        )

    return _bytes(["<s>"], post)


def _gpt2(tmp):
    return _bytes(["<|endoftext|>"], None)


def _t5(tmp):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((c, -3.0) for c in "▁abcdé.,?good1"), ("▁good", -2.0)]
    inner = tokenizers.Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.add_special_tokens(["<pad>", "</s>", "<unk>"])
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return inner.to_str()


KINDS = {"bert": _bert, "roberta": _roberta, "llama": _llama, "gpt2": _gpt2, "t5": _t5}


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_and_a_pair_are_what_the_library_makes_of_them(kind, tmp_path):
    content = KINDS[kind](tmp_path)
    ours, theirs = Texts(content, "tokenizer.json"), tokenizers.Tokenizer.from_str(content)

    @given(TEXTS, TEXTS)
    @settings(max_examples=60)
    def check(first, second):
        for texts in ((first,), (first, second)):
            right, found = theirs.encode(*texts), ours.join(*map(ours.pieces, texts))
            assert found.ids.tolist() == right.ids
            assert found.segments.tolist() == right.type_ids
            assert [None if place < 0 else place for place in found.source] == right.sequence_ids
            for place, (start, stop) in zip(found.source, found.offsets.tolist(), strict=True):
                if place >= 0 and stop > start:
                    assert texts[place][start:stop] == texts[place][start:stop].strip()
        assert ours.added(pair=True) == theirs.num_special_tokens_to_add(True)

    check()


def test_offsets_are_those_of_the_text_as_it_was(tmp_path):
    texts = Texts(_bert(tmp_path), "x")
    pieces = texts.pieces("Good  FILMS?")
    assert ["Good  FILMS?"[start:stop] for start, stop in pieces.offsets] == ["Good", "FILM", "S", "?"]
    leading = Texts(_roberta(tmp_path), "x").pieces("a b")
    assert leading.offsets.tolist() == [[0, 0], [0, 1], [2, 2], [2, 3]]


def test_special_tokens_in_a_text_are_text(tmp_path):
    texts = Texts(_bert(tmp_path), "x")
    assert texts.token("[SEP]") not in texts.pieces("a [SEP] b").ids


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_the_longer_text_is_cut_first(first, second, room):
    made = [Pieces(np.arange(n), np.zeros((n, 2), np.int64)) for n in (first, second)]
    one, other = map(len, cut(*made, room))
    assert one + other == min(room, first + second)
    assert one == first or other == second or abs(one - other) <= 1
    assert not (one < first and one < other - 1)
    assert not (other < second and other < one - 1)


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(AtinukeError, match=r"is not a tokenizer\.json"):
        Texts('{"model": {}}', "tokenizer.json")
    with pytest.raises(AtinukeError, match="has no token `<x>`"):
        Texts(_bert(tmp_path), "tokenizer.json").token("<x>")


def test_special_tokens_that_do_not_stand_around_are_refused():
    inner = tokenizers.Tokenizer.from_str(_gpt2(None))
    inner.post_processor = processors.TemplateProcessing(single="$A $A", pair="$A $B", special_tokens=[])
    with pytest.raises(AtinukeError, match="do not stand around the texts, each of which comes once"):
        Texts(inner.to_str(), "tokenizer.json")


def test_wordpiece_is_berts(tmp_path):
    from transformers import BertTokenizerFast

    for lower in (True, False):
        file = vocabulary(tmp_path / str(lower), lower)
        theirs = BertTokenizerFast.from_pretrained(str(file.parent))
        ours = Texts.load(file)
        for text in ("Good film, a \u4e2d Bad É", "is it very films?", ""):
            assert ours.join(ours.pieces(text)).ids.tolist() == theirs(text)["input_ids"], (lower, text)


def test_a_vocabulary_says_what_is_wrong_with_it(tmp_path):
    file = vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(AtinukeError, match=r"needs `tokenizer_config.json` beside it"):
        read_tokenizer(file)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": "yes"}))
    with pytest.raises(AtinukeError, match="`do_lower_case` must be true or false"):
        read_tokenizer(file)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    file.write_text("[UNK]\n[CLS]\n[SEP]\na\na\n")
    with pytest.raises(AtinukeError, match=r"vocab.txt:5  has the token `a` twice"):
        read_tokenizer(file)
    file.write_text("a\n")
    with pytest.raises(AtinukeError, match=r"has no token `\[UNK\]`"):
        read_tokenizer(file)
    with pytest.raises(AtinukeError, match="is no tokenizer file of a known kind"):
        read_tokenizer(file.rename(tmp_path / "vocab.bin"))
