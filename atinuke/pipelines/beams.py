"""Beam search: the likeliest of many texts, where greedy decoding takes the likeliest token each time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atinuke.pipelines.constrained import Guide, mask
from atinuke.pipelines.decode import Decoder, Step
from atinuke.pipelines.sampling import Settings, mute
from atinuke.runtime.sampling import INVALID, Muted

NEVER = float("-inf")


@dataclass(frozen=True)
class Found:
    """The new tokens of a text, up to its end of text, and its score; `whole` unless it stops in the middle of a text
    of the language that it should belong to."""

    tokens: tuple[int, ...]
    score: float
    whole: bool = True


@dataclass(frozen=True)
class Going:
    """A text that goes on: its new tokens, their log-probability, and the beam that it came from."""

    tokens: tuple[int, ...] = ()
    sum: float = 0.0
    guide: Guide | None = None
    parent: int = 0


class Search:
    """The search of one row: the texts that go on, at most `beams`, and those that have ended."""

    def __init__(self, settings: Settings, ends: Sequence[int], guide: Guide | None) -> None:
        self.settings = settings
        self.ends = ends
        self.going = [Going(guide=guide)]
        self.done = False
        self._ended: list[Found] = []
        self._begun: Found | None = None  # the likeliest of those that were not whole at the last token

    def advance(self, candidates: Iterable[tuple[float, int, int]], last: bool) -> None:
        """Takes the likeliest ways to go on, best first: log-probability, beam and token of each."""
        beams, old, self.going = self.settings.beams, self.going, []
        for place, (total, beam, token) in enumerate(candidates):
            if total == NEVER or len(self.going) == beams:
                break
            tokens, guide = (*old[beam].tokens, token), old[beam].guide
            if token not in self.ends and not last:
                self.going.append(Going(tokens, total, guide and guide.after(token), beam))
            elif place < beams:  # the rest is there only so that enough texts go on
                self._end(Found(tokens, self._score(tokens, total), guide is None or guide.after(token).whole))
        full = len(self._ended) == beams
        best = self.going[0] if self.going else None
        self.done = best is None or (full and self._score(best.tokens, best.sum) <= self._ended[-1].score)

    def found(self) -> list[Found]:
        """The best texts, best first; the likeliest beginning where none is whole, if there is any."""
        return self._ended[: self.settings.best] or ([self._begun] if self._begun else [])

    def _score(self, tokens: Sequence[int], total: float) -> float:
        score: float = total / len(tokens) ** self.settings.length_penalty
        return score

    def _end(self, found: Found) -> None:
        if found.whole:
            self._ended = sorted([*self._ended, found], key=lambda one: -one.score)[: self.settings.beams]
        else:
            self._begun = self._begun or found


def search(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    given: Mapping[str, Tensor],
    settings: Settings,
    ends: Sequence[int],
    step: Step | None = None,
    guides: Sequence[Guide] | None = None,
    muted: Muted | None = None,
) -> list[list[Found]]:
    """The best texts of each row, `settings.best` at most, best first.

    A text ends with any of the tokens `ends`. Its score is the sum of the log-probabilities of its new tokens (the end
    of text is one of them), divided by their number to the power of `settings.length_penalty`. After each token the
    `settings.beams` likeliest texts that go on stay; one that has ended is laid aside if it is among the likeliest, and
    of these the `beams` best are kept. A row is done when there are as many, and the likeliest text that goes on has,
    at its present length, no better score than the worst of them; or when it has all its new tokens. So does
    transformers with `early_stopping=False`.

    What is `muted` is not written; the likelihood of the rest stays as it is. With `guides`, one for each row, only
    texts of a language are looked for; where none is found whole, the likeliest beginning is given, or nothing where no
    text goes on. A row whose logits are not numbers is INVALID and nothing else. Use it under `torch.inference_mode()`.
    """
    beams, rows = settings.beams, len(prompts)
    repeated = [prompt for prompt in prompts for _ in range(beams)]
    copies = {name: tensor.repeat_interleave(beams, 0) for name, tensor in given.items()}
    decoder = Decoder(model, repeated, step, copies)
    device = decoder.device
    searches = [Search(settings, ends, guides[row] if guides else None) for row in range(rows)]
    invalid = [False] * rows
    logits = decoder.prefill()
    for length in range(1, settings.max_new_tokens + 1):
        likelihood = logits.double().log_softmax(-1).view(rows, beams, -1)
        sums = [[one.sum for one in found.going] + [NEVER] * (beams - len(found.going)) for found in searches]
        for row, wrong in enumerate(likelihood.isnan().flatten(1).any(1).tolist()):
            invalid[row] |= wrong and not searches[row].done
        if muted:
            likelihood = mute(likelihood, muted, length - 1)
        if guides:
            some = [[one.guide for one in found.going if one.guide] for found in searches]
            likelihood = likelihood.masked_fill(~mask(some, likelihood.shape[1:]).to(device), NEVER)
        total = torch.tensor(sums, dtype=torch.float64, device=device)[..., None] + likelihood.nan_to_num(neginf=NEVER)
        candidates, best = total.flatten(1).topk(min((1 + len(ends)) * beams, total[0].numel()))
        width = total.shape[-1]
        ways = zip(candidates.tolist(), (best // width).tolist(), (best % width).tolist(), strict=True)
        for found, way, wrong in zip(searches, ways, invalid, strict=True):
            if not found.done:
                found.advance(zip(*way, strict=True), length == settings.max_new_tokens)
                found.done |= wrong
        if all(found.done for found in searches):
            break
        ahead = [(found.going + [Going((ends[0],))] * beams)[:beams] for found in searches]  # all rows stay full
        parents = [row * beams + one.parent for row, going in enumerate(ahead) for one in going]
        decoder.reorder(torch.tensor(parents, device=device))
        logits = decoder.next(torch.tensor([one.tokens[-1] for going in ahead for one in going], device=device))
    bad = [Found((INVALID,), NEVER)]
    return [bad if wrong else found.found() for found, wrong in zip(searches, invalid, strict=True)]
