"""Our decoders under the Language Model Evaluation Harness, beside its own reading of the same weights."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from atinuke.core.errors import AtinukeError
from atinuke.runtime.tokenizer import END_OF_TEXT
from tests.pipelines import gpt2, toy

pytest.importorskip("lm_eval", reason="needs lm_eval, the Language Model Evaluation Harness")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from atinuke.pipelines import harness
from atinuke.pipelines.harness import Harnessed
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.run import open_run

CONTEXT = 64
TEXTS = ["", "A", "Ọ̀rọ̀ yìí gùn díẹ̀", "the same ", "x" * 90, "the same "]


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


@pytest.fixture(scope="module")
def ours() -> Harnessed:
    return Harnessed.of(gpt2.pair()[1], gpt2.BYTES, CONTEXT, batch_size=3)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The harness's own model, as far as what it needs is installed."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="needs accelerate")
    inner = PreTrainedTokenizerFast(
        tokenizer_object=gpt2.BYTES._inner, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )
    return huggingface.HFLM(
        pretrained=gpt2.pair()[0],
        tokenizer=inner,
        batch_size=3,
        max_length=CONTEXT,
        device="cpu",
        backend="causal",
        logits_cache=False,  # with it, 0.4.13 takes the wrong scores for windows of the same tokens split elsewhere
    )


def test_it_is_registered() -> None:
    assert get_model("atinuke") is Harnessed


def test_scores_equal_those_of_the_harness_itself(ours: Harnessed, theirs: Any) -> None:
    requests = asked("loglikelihood", *((text, after) for text in TEXTS for after in (" day", "s", "y" * 40)))
    for mine, other in zip(
        ours.loglikelihood(requests, disable_tqdm=True), theirs.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        assert mine == (pytest.approx(other[0], abs=1e-4), other[1])


def test_rolling_scores_equal_those_of_the_harness_itself(ours: Harnessed, theirs: Any) -> None:
    requests = asked("loglikelihood_rolling", *((text * times,) for text in TEXTS for times in (1, 3)))
    mine = ours.loglikelihood_rolling(requests)
    assert mine == pytest.approx(theirs.loglikelihood_rolling(requests, disable_tqdm=True), abs=1e-4)


def test_a_rolling_score_is_a_sum_of_log_probabilities(ours: Harnessed) -> None:
    text = "a text that fits"
    tokens = [gpt2.BYTES.end_of_text, *gpt2.BYTES.encode(text)]
    with torch.inference_mode():
        scores = gpt2.pair()[0](torch.tensor([tokens])).logits[0].log_softmax(-1)
    expected = sum(scores[at, token].item() for at, token in enumerate(tokens[1:]))
    assert ours.loglikelihood_rolling(asked("loglikelihood_rolling", (text,))) == [pytest.approx(expected)]


def test_what_a_run_s_texts_begin_with_stands_in_front_and_is_not_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = gpt2.BYTES.end_of_text
    deepcopy(gpt2.pair()[0]).float().save_pretrained(tmp_path / "theirs")
    gpt2.BYTES.save(tmp_path / "theirs/tokenizer.json")
    convert(tmp_path / "theirs", tmp_path / "ours")
    found = replace(open_run(tmp_path / "ours"), made=toy.recipe(), begin=(end,))
    monkeypatch.setattr(harness, "open_run", lambda _: found)
    run = Harnessed("run")
    tokens = [end, *gpt2.BYTES.encode("a text that fits")]
    with torch.inference_mode():
        scores = gpt2.pair()[0](torch.tensor([tokens])).logits[0].log_softmax(-1)
    expected = [scores[at, token].item() for at, token in enumerate(tokens[1:])]
    assert run.loglikelihood_rolling(asked("loglikelihood_rolling", ("a text that fits",))) == [
        pytest.approx(sum(expected))
    ]
    for first, after in (("", "a text that fits"), ("a text", " that fits")):
        [(total, _)] = run.loglikelihood(asked("loglikelihood", (first, after)), disable_tqdm=True)
        assert total == pytest.approx(sum(expected[len(first) :]))


def test_what_is_generated_equals_that_of_the_harness_itself(ours: Harnessed, theirs: Any) -> None:
    first = {"until": ["\n"], "max_gen_toks": 9}
    [sample] = ours.generate_until(asked("generate_until", ("the same", first)))
    assert len(sample) > 4
    ways = [first, {"until": [sample[3:5]], "max_gen_toks": 9}, {"max_gen_toks": 20, "do_sample": False}]
    requests = asked("generate_until", *((text, way) for text in TEXTS[1:] for way in ways))
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_what_a_task_cannot_have_is_refused_by_name(ours: Harnessed) -> None:
    with pytest.raises(AtinukeError, match="generation has no setting `typical_p`"):
        ours.generate_until(asked("generate_until", ("a", {"typical_p": 0.9, "max_gen_toks": 4})))
    with pytest.raises(AtinukeError, match="64 new tokens are wanted\n  the model reads 64 tokens in all"):
        ours.generate_until(asked("generate_until", ("a", {"max_gen_toks": 64})))
    with pytest.raises(AtinukeError, match="batch_size  a batch of `auto`"):
        Harnessed.of(gpt2.pair()[1], gpt2.BYTES, CONTEXT, batch_size="auto")


TASKS = {
    "chosen": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "rolled": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match"}],
    },
}
BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [gpt2.BYTES.end_of_text], "tokens": [END_OF_TEXT]}},
}


@pytest.mark.parametrize("template", [None, BEGINS])
def test_a_model_folder_has_the_results_that_the_harness_has_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: dict[str, Any] | None
) -> None:
    pytest.importorskip("lm_eval.models.huggingface", reason="needs accelerate")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    lines = [{"text": text, "choices": [" day", "s and on", "y"]} for text in TEXTS if text]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "tasks").mkdir()
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (tmp_path / f"tasks/{name}.yaml").write_text(json.dumps({"task": name, **source, **task}))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    deepcopy(gpt2.pair()[0]).float().save_pretrained(theirs)
    content = json.loads(gpt2.BYTES.content)
    (theirs / "tokenizer.json").write_text(json.dumps({**content, "post_processor": template}))
    named = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "tokenizer_class": "PreTrainedTokenizerFast"}
    (theirs / "tokenizer_config.json").write_text(json.dumps(named))
    convert(theirs, ours)
    found = []
    for model, arguments in (("atinuke", f"run={ours}"), ("hf", f"pretrained={theirs},logits_cache=False")):
        told = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
            batch_size=2,
            device="cpu",
            bootstrap_iters=0,
        )
        found.append({name: [sample["filtered_resps"] for sample in told["samples"][name]] for name in TASKS})
        found[-1]["results"] = [told["results"][name][f"{metric},none"] for name, metric in RESULTS]
    ours_, theirs_ = found
    assert ours_["written"] == theirs_["written"]
    for name in ("chosen", "rolled"):
        assert _numbers(ours_[name]) == pytest.approx(_numbers(theirs_[name]), abs=1e-3)
    assert ours_["results"] == pytest.approx(theirs_["results"], abs=1e-4)


RESULTS = [("chosen", "acc"), ("chosen", "acc_norm"), ("rolled", "bits_per_byte"), ("written", "exact_match")]


def _numbers(found: Any) -> list[float]:
    return [float(found)] if not isinstance(found, list | tuple) else [x for one in found for x in _numbers(one)]
