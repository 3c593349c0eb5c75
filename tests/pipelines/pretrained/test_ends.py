"""Where texts begin and end: several ends of text, as Llama 3 has, and what stands before a text that is scored."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from atinuke import runtime
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.deploy import compile_bundle, open_subject
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.generate import generate
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.pretrained.writing import begin_of_text, end_of_text
from atinuke.pipelines.run import open_run
from atinuke.pipelines.sampling import Settings
from atinuke.pipelines.talk import answers, talker
from tests.pipelines import chats

BEGIN, END, TURN = (chats.BYTES.special[name] for name in ("<|begin_of_text|>", "<|endoftext|>", "<|eot_id|>"))
TEXTS = ["A", "Ọ̀rọ̀ yìí", "x" * 40, "the same"]
LONGEST, NEW = 128, 16


def rows(model: transformers.LlamaForCausalLM, ends: list[int], beams: int = 1) -> list[list[int]]:
    """What transformers writes behind each text, up to an end of text."""
    found = []
    for text in TEXTS:
        prompt = torch.tensor([chats.BYTES.encode(text)])
        ways = {"max_new_tokens": NEW, "do_sample": False, "num_beams": beams, "early_stopping": False}
        ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), eos_token_id=ends, pad_token_id=END, **ways
        )
        new = ids[0, prompt.shape[1] :].tolist()
        found.append(new[: next((at for at, token in enumerate(new) if token in ends), len(new))])
    return found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[transformers.LlamaForCausalLM, list[int], Path]:
    """A model, the tokens that it stops at, two of which it writes, and its model folder."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=chats.BYTES.vocab_size,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=40,
        max_position_embeddings=LONGEST,
        initializer_range=0.4,
        bos_token_id=BEGIN,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    free = rows(model, [TURN])
    written = Counter(token for row in free for token in {*row[2:]} - {*row[:2]})
    ends = [TURN, *(token for token, _ in written.most_common(2))]
    model.config.eos_token_id = model.generation_config.eos_token_id = ends
    model.save_pretrained(folder / "theirs")
    chats.BYTES.save(folder / "theirs/tokenizer.json")
    (folder / "theirs/tokenizer_config.json").write_text(json.dumps(chats.NAMED))
    (folder / "theirs/chat_template.jinja").write_text(chats.LLAMA3)
    convert(folder / "theirs", folder / "ours")
    return model, ends, folder / "ours"


@pytest.mark.parametrize("beams", [1, 3])
def test_any_of_several_ends_of_text_ends_it(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path], beams: int
) -> None:
    model, ends, folder = llama
    run = open_run(folder)
    assert run.tokenizer.ends == tuple(ends)
    settings = Settings(temperature=0, max_new_tokens=NEW, beams=beams)
    found = generate(run.model, run.tokenizer, TEXTS, settings, run.context)
    assert [list(one.tokens) for one in found] == rows(model, ends, beams)
    assert {len(one.tokens) for one in found} != {NEW}
    if beams == 1:  # each of the two ends a text
        free = rows(model, [TURN])
        assert {row[len(one.tokens)] for row, one in zip(free, found, strict=True) if len(one.tokens) < NEW} >= {
            *ends[1:]
        }


def test_an_answer_ends_with_any_of_them_too(llama: tuple[transformers.LlamaForCausalLM, list[int], Path]) -> None:
    model, ends, folder = llama
    run, template = talker(open_run(folder), folder)
    tokenizer = chats.theirs("llama3")
    asked = [[{"role": "user", "content": text}] for text in TEXTS]
    found = answers(run, template, asked, Settings(temperature=0, max_new_tokens=NEW))
    for messages, one in zip(asked, found, strict=True):
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        ids = prompt["input_ids"]
        new = model.generate(ids, max_new_tokens=NEW, do_sample=False, pad_token_id=END)[0, ids.shape[1] :].tolist()
        assert list(one.tokens) == new[: next((at for at, token in enumerate(new) if token in ends), NEW)]
    assert "end_of_text" in {one.reason for one in found}


def test_a_bundle_stops_at_any_of_them_and_does_not_write_what_is_muted(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path], tmp_path: Path
) -> None:
    _, ends, folder = llama
    shutil.copytree(folder, tmp_path / "model")
    free = open_run(tmp_path / "model")
    settings = Settings(temperature=0, max_new_tokens=NEW)
    written = [one.tokens for one in generate(free.model, free.tokenizer, TEXTS, settings, free.context)]
    file = tmp_path / "model/generation_config.json"
    muted = {"suppress_tokens": [written[0][1]], "begin_suppress_tokens": [written[0][0], written[1][0]]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **muted}))
    run = open_run(tmp_path / "model")
    expected = generate(run.model, run.tokenizer, TEXTS, settings, run.context, muted=run.muted)
    assert [one.tokens for one in expected] != written
    assert {one.reason for one in expected} == {"end_of_text", "length"}
    compile_bundle(open_subject(str(tmp_path / "model")), ["onnx/fp32"], tmp_path / "bundle", seconds=1)
    found = runtime.load(tmp_path / "bundle").generate(TEXTS, temperature=0, max_new_tokens=NEW)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert f"or any of the tokens {ends[1:]}, ends it" in (tmp_path / "bundle/README.md").read_text()


@pytest.mark.parametrize(
    ("named", "prefix"), [(chats.NAMED, BEGIN), ({"eos_token": "<|endoftext|>"}, END), ({}, BEGIN)]
)
def test_a_text_that_is_scored_stands_behind_the_beginning_of_text(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path], tmp_path: Path, named: dict[str, str], prefix: int
) -> None:
    model, _, folder = llama
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (tmp_path / "text.txt").write_text(TEXTS[1])
    evaluate_task(folder, "perplexity", [tmp_path / "text.txt"], output=tmp_path / "out")
    tokens = [prefix, *chats.BYTES.encode(TEXTS[1])]
    with torch.inference_mode():
        scores = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    wanted = -sum(scores[at, token].item() for at, token in enumerate(tokens[1:]))
    item = json.loads((tmp_path / "out/items.jsonl").read_text())
    assert item["prediction"]["nats"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suppress_tokens", 5),
        ("begin_suppress_tokens", ["a"]),
        ("eos_token_id", "</s>"),
        ("forced_decoder_ids", [1, 2]),
        ("lang_to_id", []),
    ],
)
def test_what_says_how_texts_are_written_is_of_its_kind(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path], tmp_path: Path, key: str, value: object
) -> None:
    shutil.copytree(llama[2], tmp_path / "model")
    (tmp_path / "model/generation_config.json").write_text(json.dumps({"eos_token_id": [END, -1], key: value}))
    with pytest.raises(AtinukeError, match=rf"generation_config.json  has a `{key}` that cannot be read\n  got "):
        open_run(tmp_path / "model")
    (tmp_path / "model/generation_config.json").write_text(json.dumps({"eos_token_id": [END, -1]}))
    assert open_run(tmp_path / "model").tokenizer.ends == (END,)


IN_FRONT = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [
        {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ],
    "special_tokens": {
        "<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [BEGIN], "tokens": ["<|begin_of_text|>"]}
    },
}


@pytest.mark.parametrize("said", [{}, {"add_bos_token": True}, {"add_bos_token": False}])  # the template rules
@pytest.mark.parametrize("template", [IN_FRONT, None])
def test_a_prompt_stands_behind_what_the_tokenizer_puts_in_front(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path],
    tmp_path: Path,
    template: dict[str, object] | None,
    said: dict[str, bool],
) -> None:
    model, ends, folder = llama
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    shutil.copytree(folder.parent / "theirs", theirs)
    content = json.loads((theirs / "tokenizer.json").read_text())
    (theirs / "tokenizer.json").write_text(json.dumps({**content, "post_processor": template}))
    (theirs / "tokenizer_config.json").write_text(json.dumps({**chats.NAMED, **said}))
    convert(theirs, ours)
    run = open_run(ours)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(theirs)
    settings = Settings(temperature=0, max_new_tokens=NEW)
    found = generate(run.model, run.tokenizer, TEXTS, settings, run.context, begin=run.begin)
    for text, one in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert [*run.begin, *run.tokenizer.encode(text)] == ids[0].tolist()
        new = model.generate(ids, max_new_tokens=NEW, do_sample=False, pad_token_id=END)[0, ids.shape[1] :].tolist()
        assert list(one.tokens) == new[: next((at for at, token in enumerate(new) if token in ends), NEW)]
    asked = [[{"role": "user", "content": text}] for text in TEXTS]
    talked = [answers(*talker(one, ours), asked, settings) for one in (run, replace(run, begin=()))]
    assert talked[0] == talked[1]  # the template has it already


SPECIAL = [("<s>", 0), ("</s>", 1)]


def dna(folder: Path, processor: processors.PostProcessor) -> Path:
    """A model folder whose texts have no letter but these, with what its tokenizer puts around them."""
    inner = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "A": 2, "C": 3, "G": 4, "T": 5}))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(["<s>", "</s>"])
    inner.post_processor = processor
    inner.enable_padding(direction="left", length=9)
    inner.save(str(folder / "tokenizer.json"))
    ours = {"format": "atinuke.model", "version": 1, "family": "llama", "architecture": "", "structure": ""}
    (folder / "config.json").write_text(json.dumps({**ours, "huggingface": {"eos_token_id": 1}}))
    return folder


def template(single: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, pair="$B <s> $A", special_tokens=SPECIAL)


@pytest.mark.parametrize(
    ("processor", "begin"),
    [
        (template("<s> $A"), (0,)),
        (template("<s> <s> $A </s>"), (0, 0)),
        (template("$A </s>"), ()),
        (template("$A"), ()),
        (processors.RobertaProcessing(("</s>", 1), ("<s>", 0)), (0,)),
        (processors.Sequence([template("<s> $A"), processors.ByteLevel()]), (0,)),
        (processors.Sequence([processors.RobertaProcessing(("</s>", 1), ("<s>", 0)), processors.ByteLevel()]), (0,)),
    ],
)
def test_what_stands_in_front_of_a_text_does_not_depend_on_its_alphabet(
    tmp_path: Path, processor: processors.PostProcessor, begin: tuple[int, ...]
) -> None:
    assert begin_of_text(dna(tmp_path, processor)) == begin


def test_a_tokenizer_that_makes_nothing_of_a_text_or_breaks_on_it_is_refused(tmp_path: Path) -> None:
    folder = dna(tmp_path, template("<s>"))
    with pytest.raises(AtinukeError, match=r"tokenizer\.json  makes nothing of a text\n  of `</s>` it makes: <s>"):
        begin_of_text(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(AtinukeError, match=r"tokenizer\.json  is not a tokenizer\.json"):
        begin_of_text(folder)
    (folder / "tokenizer.json").write_text(json.dumps({**content, "added_tokens": {"a": 1}}))
    with pytest.raises(AtinukeError, match=r"tokenizer\.json  is not a tokenizer\.json"):
        end_of_text(folder)


def test_a_text_begins_with_what_the_model_knows(
    llama: tuple[transformers.LlamaForCausalLM, list[int], Path], tmp_path: Path
) -> None:
    shutil.copytree(llama[2], tmp_path / "model")
    file = tmp_path / "model/tokenizer.json"
    beyond = {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [5000], "tokens": ["<|begin_of_text|>"]}}
    processor = {**IN_FRONT, "special_tokens": beyond}
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": processor}))
    known = f"the model has the tokens 0 to {chats.BYTES.vocab_size - 1}"
    with pytest.raises(AtinukeError, match=f"a text would begin with token 5000\n  {known}"):
        open_run(tmp_path / "model")
