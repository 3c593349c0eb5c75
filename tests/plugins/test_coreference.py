"""Scores of antecedents against plain loops, and the losses against all clusterings of a few mentions."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atinuke.plugins.coreference import DISTANCES, IMPOSSIBLE, AntecedentHead, AntecedentLoss, MentionLoss

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@torch.no_grad()
def test_scores_are_those_of_a_network_over_each_pair() -> None:
    torch.manual_seed(0)
    head = AntecedentHead(4, 3).double()
    for parameter in head.parameters():
        parameter.normal_()
    x, scores = torch.randn(1, 12, 4, dtype=torch.float64), torch.randn(1, 12, dtype=torch.float64)
    spans = torch.tensor([[[i, i + 1] for i in range(11)] + [[0, 0]]])
    found = head(x, scores, spans)[0]
    matrix = torch.cat((*head.span.weight.chunk(2), head.product.weight), 1)
    for i, j in itertools.product(range(12), repeat=2):
        if j >= i or i == 11:
            assert found[i, j] == IMPOSSIBLE
            continue
        one, other = x[0, i], x[0, j]
        bucket = {**dict(zip(range(1, 5), range(4), strict=True)), **dict.fromkeys((5, 6, 7), 4)}.get(i - j, 5)
        hidden = matrix @ torch.cat((one, other, one * other)) + head.span.bias.view(2, 3).sum(0)
        pair = head.score.weight[0] @ (hidden + head.distance[bucket]).relu()
        torch.testing.assert_close(found[i, j], scores[0, i] + scores[0, j] + pair, **EXACT)
    assert len(head.distance) == len(DISTANCES) + 1


def clusters_of(parents: tuple[int, ...]) -> frozenset[frozenset[int]]:
    """The clusters that a choice of antecedents makes; -1 is none."""
    found: list[set[int]] = []
    for i, parent in enumerate(parents):
        if parent < 0:
            found.append({i})
        else:
            next(one for one in found if parent in one).add(i)
    return frozenset(map(frozenset, found))


def brute(scores: Tensor, numbers: list[int]) -> Tensor:
    """Minus the logarithm of the probability of the right clusters, over every choice of antecedents of all spans."""
    count = len(numbers)
    right = clusters_of(
        tuple(max((j for j in range(i) if numbers[j] == numbers[i] > 0), default=-1) for i in range(count))
    )
    every, good = [], []
    for parents in itertools.product(*(range(-1, i) for i in range(count))):
        total = sum((scores[i, j] for i, j in enumerate(parents) if j >= 0), torch.zeros((), dtype=scores.dtype))
        every.append(total)
        if clusters_of(parents) == right:
            good.append(total)
    return torch.stack(every).logsumexp(0) - torch.stack(good).logsumexp(0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2**16))
def test_the_loss_is_that_of_all_clusterings(numbers: list[int], seed: int) -> None:
    """Number 0 is a span that is no mention. A span that fills up and a mention that is not kept change nothing but
    the number of mentions."""
    torch.manual_seed(seed)
    count = len(numbers)
    scores = torch.randn(1, count + 1, count + 1, dtype=torch.float64, requires_grad=True)
    spans = torch.tensor([[[i, i + 1] for i in range(count)] + [[0, 0]]])
    right = [[i, i + 1, number] for i, number in enumerate(numbers) if number] + [[7, 9, 1], [-100] * 3, [0, 0, 0]]
    loss = AntecedentLoss()(scores, spans, torch.tensor([right]))
    expected = brute(scores[0, :count, :count], numbers) / (1 + sum(number > 0 for number in numbers))
    expected = expected + 0 * scores.sum()  # of a single span no score says anything
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(*(torch.autograd.grad(one, scores)[0] for one in (loss, expected)), **EXACT)


def test_the_loss_of_mentions_is_cross_entropy() -> None:
    scores = torch.randn(2, 4, dtype=torch.float64)
    spans = torch.tensor([[[0, 1], [0, 2], [1, 2], [0, 0]], [[0, 1], [3, 5], [4, 5], [5, 6]]])
    labels = torch.tensor([[[0, 2, 1], [1, 2, 4], [0, 0, 2]], [[-100] * 3] * 3])
    right = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0] * 4], dtype=torch.float64)
    each = torch.nn.functional.binary_cross_entropy_with_logits(scores, right, reduction="none")
    expected = (each[0, :3].sum() / 3 + each[1].sum()) / 2
    torch.testing.assert_close(MentionLoss()(scores, spans, labels), expected, **EXACT)


def test_nothing_kept_is_no_loss() -> None:
    scores = torch.zeros(2, 3, 3, requires_grad=True)
    empty, nothing = torch.zeros(2, 3, 2, dtype=torch.int64), torch.full((2, 1, 3), -100)
    loss = AntecedentLoss()(scores, empty, nothing) + MentionLoss()(scores[:, 0], empty, nothing)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()
