"""How likely a decoder finds texts that are there already."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from atinuke.core.errors import fail

Pair = tuple[Sequence[int], Sequence[int]]


def likelihoods(model: nn.Module, pairs: Sequence[Pair], context: int, batch: int) -> list[tuple[float, bool]]:
    """For each pair, the tokens of a beginning and those that are to go on with it: the sum of the log-probabilities of
    the latter, and whether each of them was the likeliest.

    `model` gives `logits` for `input_ids`, of at most `context` tokens; a beginning loses tokens in front until it
    fits. Pairs are scored `batch` at a time, longest first, padded on the right, where no token sees it.

    Raises:
        AtinukeError: one of them has no tokens, or what goes on is longer than the context.
    """
    rows = []
    for before, after in pairs:
        if not before or not 0 < len(after) <= context:
            told = f"it is to be scored after {len(before):,}, and the model reads {context:,}"
            raise fail(
                f"a text of {len(after):,} tokens cannot be scored", told, fix="score it in windows, or leave it out"
            )
        rows.append([*before, *after][-context - 1 :])
    found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    device = next(model.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            padded = pad_sequence([torch.tensor(rows[row][:-1]) for row in some], batch_first=True)
            logits = model(input_ids=padded.to(device)).logits
            for row, given in zip(some, logits, strict=True):
                right = torch.tensor(pairs[row][1], device=device)
                end = len(rows[row]) - 1
                scores = given[end - len(right) : end].double().log_softmax(-1)
                total = scores.gather(-1, right[:, None]).sum()
                found[row] = float(total), bool((scores.argmax(-1) == right).all())
    return found
