"""The texts of a deployed model are those of the torch model, token by token."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from atinuke import runtime
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.generate import generate
from atinuke.pipelines.sampling import Settings
from atinuke.runtime.model import Model
from tests.runtime.conftest import BYTES, CONTEXT, Deployed

PROMPTS = ["A", "Ọ̀rọ̀ yìí gùn díẹ̀", "the same", "x" * 61, "the same"]
WAYS = [
    Settings(temperature=0, max_new_tokens=90),
    Settings(temperature=0, max_new_tokens=40, repetition_penalty=1.3),
    Settings(seed=1, max_new_tokens=90),
    Settings(seed=2, max_new_tokens=40, temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=1.2, stop=("a", "e ")),
]


@pytest.fixture(scope="module")
def opened(decoder: Deployed) -> Model:
    return runtime.load(decoder.folder, threads=1)


@pytest.mark.parametrize("settings", WAYS)
def test_the_texts_of_the_torch_model(decoder: Deployed, opened: Model, settings: Settings) -> None:
    expected = generate(decoder.model, BYTES, PROMPTS, settings, CONTEXT)
    assert opened.generate(PROMPTS, settings) == expected
    assert len({one.tokens for one in expected}) > 2, "equal texts would show nothing"
    assert max(len(one.tokens) for one in expected) > 3


@pytest.mark.parametrize("settings", [WAYS[0], WAYS[2]])
def test_the_texts_of_the_torch_encoder_decoder(translator: Deployed, settings: Settings) -> None:
    opened = runtime.load(translator.folder, threads=1)
    given = opened.read({"source_ids": ["Good morning", "A", "a longer text than that"]})
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    expected = generate(translator.model, BYTES, [""] * 3, settings, CONTEXT, given=tensors)
    assert opened.generate([""] * 3, settings, given=given) == expected
    assert len({one.tokens for one in expected}) > 1, "texts that do not depend on the source would show nothing"


def test_a_prompt_in_pieces_gives_the_same(opened: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened.generate(PROMPTS, WAYS[0])
    for tokens in (1, 35, 5 * 61):
        monkeypatch.setattr("atinuke.runtime.generate.PREFILL_TOKENS", tokens)
        assert opened.generate(PROMPTS, WAYS[0]) == expected


def test_the_cache_grows_to_the_very_end_of_the_context(decoder: Deployed, opened: Model) -> None:
    settings = Settings(temperature=0, max_new_tokens=CONTEXT - 4)
    [found] = opened.generate(["abcd"], settings)
    assert [found] == generate(decoder.model, BYTES, ["abcd"], settings, CONTEXT)
    with pytest.raises(AtinukeError, match=f"the model reads at most {CONTEXT}"):
        opened.generate(["abcde"], settings)


def test_a_stream_is_the_text_while_it_is_written(opened: Model) -> None:
    expected = opened.generate(PROMPTS, WAYS[3])
    pieces = opened.stream(PROMPTS, WAYS[3])
    assert isinstance(pieces, Iterator)
    shown = list(pieces)
    for row, one in enumerate(expected):
        assert "".join(text for number, text in shown if number == row) == one.text
    calls = 0
    step = opened.runner.step

    def counted(program: str, feeds: dict[str, np.ndarray], memory: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        return step(program, feeds, memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened.runner, "step", counted)
        next(opened.stream(["Some"], temperature=0, max_new_tokens=90))
    assert 1 <= calls < 10, "the first piece does not wait for the last"


def test_what_cannot_be_written_is_refused(opened: Model, translator: Deployed, classifier: Deployed) -> None:
    with pytest.raises(AtinukeError, match="prompt 1 is empty"):
        opened.generate([""])
    with pytest.raises(AtinukeError, match="does not depend on `source`"):
        opened.generate(["a"], given={"source": np.zeros((1, 1))})
    with pytest.raises(AtinukeError, match=r"axis `batch` must be 1\.\.8"):
        opened.generate(["a"] * 9, max_new_tokens=2)
    writer = runtime.load(translator.folder)
    with pytest.raises(AtinukeError, match="the model needs `source_ids`"):
        writer.generate()
    with pytest.raises(AtinukeError, match="`source_ids` has 2 rows for 1 prompts"):
        writer.generate(given=writer.read({"source_ids": ["a", "b"]}))
    with pytest.raises(AtinukeError, match="the model writes no texts"):
        runtime.load(classifier.folder).generate(["a"])
    assert opened.generate([]) == []
