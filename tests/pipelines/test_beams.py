"""Beam search against every text there is, and against greedy decoding."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atinuke.pipelines.beams import search
from atinuke.runtime.sampling import INVALID

VOCAB, END, LONGEST = 3, 2, 4


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


@torch.inference_mode()
def test_with_enough_beams_it_is_the_best_of_all_texts() -> None:
    model = Moody()
    found = search(model, PROMPTS, {"mood": MOODS}, len(every_text()), LONGEST, END)
    for prompt, mood, tokens in zip(PROMPTS, MOODS, found, strict=True):
        scores = {text: log_probability(model, prompt, mood, text) / len(text) for text in every_text()}
        assert tuple(tokens) == max(scores, key=lambda text: scores[text])


@torch.inference_mode()
def test_rows_do_not_see_each_other_and_more_beams_than_tokens_are_fine() -> None:
    model = Moody()
    for beams in (1, 2, 5):
        together = search(model, PROMPTS, {"mood": MOODS}, beams, LONGEST, END)
        alone = [search(model, [p], {"mood": MOODS[i : i + 1]}, beams, LONGEST, END)[0] for i, p in enumerate(PROMPTS)]
        assert together == alone


@torch.inference_mode()
def test_one_beam_is_greedy() -> None:
    model = Moody()
    for prompt, mood in zip(PROMPTS, MOODS, strict=True):
        text: list[int] = []
        while len(text) < LONGEST and END not in text:
            text.append(max(range(VOCAB), key=lambda token: log_probability(model, prompt, mood, (*text, token))))
        assert search(model, [prompt], {"mood": mood[None]}, 1, LONGEST, END) == [text]


@torch.inference_mode()
def test_logits_that_are_not_numbers_are_told_and_other_rows_go_on() -> None:
    moods = torch.tensor([float("nan"), 0.4], dtype=torch.float64)
    model = Moody()
    (alone,) = search(model, [[1]], {"mood": moods[1:]}, 2, LONGEST, END)
    assert search(model, [[0], [1]], {"mood": moods}, 2, LONGEST, END) == [[INVALID], alone]
