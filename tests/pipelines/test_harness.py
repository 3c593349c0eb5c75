"""Our decoders under the Language Model Evaluation Harness, beside its own reading of the same weights."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from atinuke.core.errors import AtinukeError
from atinuke.runtime.tokenizer import END_OF_TEXT
from tests.pipelines import gpt2

pytest.importorskip("lm_eval", reason="needs lm_eval, the Language Model Evaluation Harness")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from atinuke.pipelines.harness import Harnessed

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
