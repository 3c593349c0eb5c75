"""Vectors of spans and the choice of the best, against plain loops."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.plugins.span import BestSpans, SpanVectors


@torch.no_grad()
def test_vectors_are_those_of_the_paper() -> None:
    """Ends, head and length side by side, mapped by one matrix; what is no span is 0."""
    torch.manual_seed(0)
    spans = SpanVectors(4, 3, lengths=2).double()
    for parameter in spans.parameters():
        parameter.normal_()
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    places = torch.tensor([[[0, 1], [1, 4], [4, 6], [2, 2]], [[0, 6], [5, 6], [3, 7], [-1, 2]]])
    found = spans(x, places)
    matrix = torch.cat((*spans.map.weight.chunk(3), torch.eye(3, dtype=torch.float64)), 1)
    for row, (of, said) in enumerate(zip(places.tolist(), found, strict=True)):
        for (start, stop), vector in zip(of, said, strict=True):
            if not 0 <= start < stop <= 6:
                assert not vector.any()
                continue
            inside = x[row, start:stop]
            weights = (inside @ spans.attention.weight[0]).softmax(0)
            head = sum(weight * part for weight, part in zip(weights, inside, strict=True))
            length = spans.length[min(stop - start, 2) - 1]
            together = torch.cat((inside[0], inside[-1], head, length))
            bias = spans.map.bias.view(3, 3).sum(0)
            torch.testing.assert_close(vector, (matrix @ together + bias).relu(), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**16))
def test_the_best_are_kept_in_order(keep: int, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    start = torch.randint(4, (2, count))
    spans = torch.stack((start, start + torch.randint(3, (2, count))), 2)
    x, scores = torch.randn(2, count, 5), torch.randn(2, count)
    found = BestSpans(keep)(x, scores, spans)
    for row in range(2):
        there = [i for i in range(count) if spans[row, i, 0] < spans[row, i, 1]]
        kept = sorted(sorted(there, key=lambda i: -float(scores[row, i]))[:keep])
        for given_, got in zip((x, scores, spans), found, strict=True):
            assert torch.equal(got[row, : len(kept)], given_[row, kept])
            assert not got[row, len(kept) :].any()


def test_only_scores_that_are_kept_pass_on_gradients() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    spans = torch.tensor([[[0, 1], [0, 2], [1, 2]]])
    BestSpans(2)(torch.zeros(1, 3, 1), scores, spans).scores.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 1.0, 1.0]]
