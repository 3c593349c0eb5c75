"""Beam search against every text there is, and against greedy decoding."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.beams import Found, Search, search
from atinuke.pipelines.sampling import Settings
from atinuke.runtime.sampling import INVALID
from tests.pipelines import gpt2

VOCAB, END, LONGEST = 3, 2, 4
TEXTS = ["A", "Ọ̀rọ̀ yìí", "x" * 61, "the same"]


class Output(NamedTuple):
    logits: Tensor


class Moody(nn.Module):
    """The logits depend on what is given and on every token so far, in order; the state has the rows second."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(scale))

    def prepare(self, mood: Tensor) -> tuple[Tensor]:
        return (mood,)

    def state(self, batch: int, capacity: int) -> tuple[Tensor]:
        return (torch.zeros(1, batch, capacity, dtype=torch.float64),)

    def step(
        self, ids: Tensor, position: Tensor, state: tuple[Tensor], prepared: tuple[Tensor], last: Tensor | None = None
    ) -> tuple[Output, tuple[Tensor]]:
        cache = state[0][0]
        places = position[:, None] + torch.arange(ids.shape[1])
        cache.scatter_(1, places, ids.double() + 1)
        sums = (cache * (torch.arange(cache.shape[1]) + 1.7).sqrt()).cumsum(1).gather(1, places)
        waves = torch.tensor([3.1, 7.7, 12.9], dtype=torch.float64)
        logits = torch.sin((sums + prepared[0][:, None])[..., None] * waves) * self.weight
        return Output(logits if last is None else logits[torch.arange(len(ids)), last][:, None]), state


def log_probability(model: Moody, prompt: list[int], mood: Tensor, text: tuple[int, ...]) -> float:
    ids = torch.tensor([[*prompt, *text]])
    output, _ = model.step(ids, torch.zeros(1, dtype=torch.int64), model.state(1, ids.shape[1]), (mood[None],))
    likelihood = output.logits[0].log_softmax(-1)
    return sum(likelihood[len(prompt) - 1 + i, token].item() for i, token in enumerate(text))


def every_text() -> list[tuple[int, ...]]:
    """All that end, and all that are as long as can be."""
    texts = itertools.chain.from_iterable(itertools.product(range(VOCAB), repeat=n) for n in range(1, LONGEST + 1))
    return [t for t in texts if END not in t[:-1] and (t[-1] == END or len(t) == LONGEST)]


PROMPTS = [[0], [1, 0, 1], [0], [1, 1]]
MOODS = torch.tensor([0.0, 0.4, 1.1, 2.3], dtype=torch.float64)


def found(
    model: Moody, prompts: Sequence[Sequence[int]], moods: Tensor, beams: int, **settings: float
) -> list[list[Found]]:
    wanted = Settings.read(temperature=0, max_new_tokens=LONGEST, beams=beams, **settings)
    with torch.inference_mode():
        return search(model, prompts, {"mood": moods}, wanted, [END])


def best(model: Moody, prompts: Sequence[Sequence[int]], moods: Tensor, beams: int) -> list[list[int]]:
    return [list(texts[0].tokens) for texts in found(model, prompts, moods, beams)]


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.5, 3.0])
def test_with_enough_beams_they_are_the_best_of_all_texts_in_order(penalty: float) -> None:
    model = Moody()
    count = len(every_text())
    searched = found(model, PROMPTS, MOODS, count, length_penalty=penalty, best=count)
    for prompt, mood, texts in zip(PROMPTS, MOODS, searched, strict=True):
        scores = {text: log_probability(model, prompt, mood, text) / len(text) ** penalty for text in every_text()}
        assert [one.tokens for one in texts] == sorted(scores, key=lambda text: -scores[text])
        assert [one.score for one in texts] == pytest.approx(sorted(scores.values(), reverse=True))
        assert all(one.whole for one in texts)


def test_rows_do_not_see_each_other_and_more_beams_than_tokens_are_fine() -> None:
    model = Moody()
    for beams in (1, 2, 5):
        alone = [found(model, [p], MOODS[i : i + 1], beams)[0] for i, p in enumerate(PROMPTS)]
        assert found(model, PROMPTS, MOODS, beams) == alone


def test_one_beam_is_greedy() -> None:
    model = Moody()
    for prompt, mood in zip(PROMPTS, MOODS, strict=True):
        text: list[int] = []
        while len(text) < LONGEST and END not in text:
            text.append(max(range(VOCAB), key=lambda token: log_probability(model, prompt, mood, (*text, token))))
        assert best(model, [prompt], mood[None], 1) == [text]


def test_logits_that_are_not_numbers_are_told_and_other_rows_go_on() -> None:
    moods = torch.tensor([float("nan"), 0.4], dtype=torch.float64)
    model = Moody()
    (alone,) = best(model, [[1]], moods[1:], 2)
    assert best(model, [[0], [1]], moods, 2) == [[INVALID], alone]


# Against transformers


@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (4, 0.0), (5, 2.0), (3, -1.0)])
def test_prompts_of_different_lengths_are_searched_as_transformers_does(beams: int, penalty: float) -> None:
    theirs, ours = gpt2.pair()
    prompts = [gpt2.BYTES.encode(text) for text in TEXTS]
    settings = Settings(temperature=0, max_new_tokens=12, beams=beams, best=beams, length_penalty=penalty)

    def mine(end: int) -> list[list[Found]]:
        with torch.inference_mode():
            return search(ours, prompts, {}, settings, [end])

    written = Counter(token for texts in mine(gpt2.BYTES.end_of_text) for one in texts for token in one.tokens[2:])
    end = written.most_common(1)[0][0]  # ends some texts early and others not at all
    lengths = set()
    for prompt, texts in zip(prompts, mine(end), strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=12,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=penalty,
            early_stopping=False,
            eos_token_id=end,
            pad_token_id=gpt2.VOCAB,
            return_dict_in_generate=True,
            output_scores=True,
        )
        right = [
            tuple(token for token in row.tolist() if token < gpt2.VOCAB) for row in expected.sequences[:, len(prompt) :]
        ]
        assert [one.tokens for one in texts] == right
        assert [one.score for one in texts] == pytest.approx(expected.sequences_scores.tolist(), rel=1e-5)
        lengths |= {*map(len, right)}
    assert min(lengths) < 12 or penalty > 1, "the comparison would show little if no text ended"


def test_only_a_text_among_the_likeliest_is_laid_aside_when_it_ends() -> None:
    row = Search(Settings(temperature=0, beams=2, best=2, length_penalty=0.0), [END], None)
    row.advance([(-1.0, 0, 0), (-2.0, 0, END), (-3.0, 0, END), (-4.0, 0, 1)], last=False)
    assert [one.tokens for one in row.going] == [(0,), (1,)]
    assert row.found() == [Found((END,), -2.0)]
    assert not row.done
    row.advance([(-2.5, 0, END), (-2.6, 1, 0), (-2.7, 1, 1), (-2.8, 0, 0)], last=False)
    assert row.found() == [Found((END,), -2.0), Found((0, END), -2.5)]
    assert row.done, "what goes on at -2.6 is no better than the worst that ended"


def test_more_texts_than_beams_and_penalties_without_a_search() -> None:
    with pytest.raises(AtinukeError, match="`best` 3 is more than `beams` 2"):
        Settings(temperature=0, beams=2, best=3)
    with pytest.raises(AtinukeError, match="`length_penalty` has no effect without a search"):
        Settings(temperature=0, length_penalty=2.0)
    with pytest.raises(AtinukeError, match="`length_penalty`: must be a finite number"):
        Settings(temperature=0, beams=2, length_penalty=float("nan"))
