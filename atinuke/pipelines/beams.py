"""Beam search: the likeliest of many texts, where greedy decoding takes the likeliest token each time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from atinuke.pipelines.decode import Decoder, Step
from atinuke.runtime.sampling import INVALID


def search(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    given: Mapping[str, Tensor],
    beams: int,
    max_new_tokens: int,
    end_of_text: int,
    step: Step | None = None,
) -> list[list[int]]:
    """The new tokens of each row, up to its end of text: of the texts found, the one whose tokens (the end of text is
    one of them) have the highest mean log-probability.

    After each token the `beams` likeliest texts of a row stay; a text that has ended stays as it is. A row whose logits
    are not numbers is INVALID and nothing else. Use it under `torch.inference_mode()`.
    """
    repeated = [prompt for prompt in prompts for _ in range(beams)]
    copies = {name: tensor.repeat_interleave(beams, 0) for name, tensor in given.items()}
    decoder = Decoder(model, repeated, step, copies)
    rows, device = len(prompts), decoder.device
    scores = torch.full((rows, beams), float("-inf"), dtype=torch.float64, device=device)
    scores[:, 0] = 0  # all beams of a row begin alike: but one are left out
    texts = torch.empty((rows, beams, 0), dtype=torch.int64, device=device)
    lengths = torch.zeros((rows, beams), dtype=torch.int64, device=device)
    ended = torch.zeros((rows, beams), dtype=torch.bool, device=device)
    invalid = torch.zeros(rows, dtype=torch.bool, device=device)
    logits = decoder.prefill()
    for at in range(max_new_tokens):
        likelihood = logits.double().log_softmax(-1).view(rows, beams, -1)
        invalid |= likelihood.isnan().any(-1).any(-1)
        likelihood = likelihood.nan_to_num(nan=0.0, neginf=float("-inf"))
        stay = torch.full_like(likelihood[0, 0], float("-inf"))
        stay[end_of_text] = 0
        total = scores[..., None] + torch.where(ended[..., None], stay, likelihood)
        scores, best = total.flatten(1).topk(beams)
        beam, tokens = best // likelihood.shape[-1], best % likelihood.shape[-1]
        texts = torch.cat((texts.gather(1, beam[..., None].expand(-1, -1, at)), tokens[..., None]), -1)
        before = ended.gather(1, beam)
        lengths = lengths.gather(1, beam) + ~before
        ended = before | (tokens == end_of_text)
        if at + 1 == max_new_tokens or bool((ended.all(1) | invalid).all()):
            break
        decoder.reorder((beam + beams * torch.arange(rows, device=device)[:, None]).flatten())
        logits = decoder.next(tokens.flatten())
    chosen = (scores / lengths).argmax(1)
    found = [texts[row, beam, : lengths[row, beam]].tolist() for row, beam in enumerate(chosen.tolist())]
    return [[INVALID] if wrong else tokens for tokens, wrong in zip(found, invalid.tolist(), strict=True)]
