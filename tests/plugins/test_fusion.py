import pytest
import torch
from torch import nn

from atinuke.plugins.attention import SelfAttention
from atinuke.plugins.fusion import ConcatFusion, GateFusion, LateFusion, ModalityDropout, ModalityTag
from atinuke.plugins.pool import AttentionPool, FirstPool, MeanPool
from atinuke.plugins.resampler import Resampler

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EXACT = {"rtol": 1e-12, "atol": 1e-12}
MASK = torch.tensor([[True, True, False, False], [False, False, False, False], [True, True, True, True]])


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


def test_tag_adds_one_vector_everywhere():
    tag, x = randomised(ModalityTag(5)), torch.randn(2, 3, 5)
    torch.testing.assert_close(tag(x) - x, tag.weight.expand(2, 3, 5))


def test_concat_joins_sequences_and_masks():
    first, second, third = torch.randn(3, 4, 5), torch.randn(3, 2, 5), torch.randn(3, 1, 5)
    joined = ConcatFusion()(first, second, MASK)
    assert torch.equal(joined.output, torch.cat((first, second), 1))
    assert torch.equal(joined.mask, torch.cat((MASK, torch.ones(3, 2, dtype=torch.bool)), 1))
    all_three = ConcatFusion()(joined.output, third, joined.mask, torch.zeros(3, 1, dtype=torch.bool))
    assert torch.equal(all_three.mask, torch.cat((MASK, torch.ones(3, 2), torch.zeros(3, 1)), 1).bool())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pool", [MeanPool, FirstPool, lambda: AttentionPool(8, 2)])
def test_a_modality_that_is_wholly_masked_is_as_if_it_were_not_in_the_graph(pool, seed):
    """Two layers of attention and a pool over sound (missing), sight and text, against sight and text alone."""
    layers = [randomised(SelfAttention(8, 2, causal=False), seed + i) for i in range(2)]
    pool = randomised(pool(), seed)
    heard, seen, read = torch.randn(2, 6, 8), torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    seen_mask, read_mask = torch.tensor([[True] * 3, [True, True, False]]), torch.rand(2, 5) > 0.3

    def answer(joined):
        x = joined.output
        for layer in layers:
            x = x + layer(x, joined.mask)
        return x, pool(x, joined.mask).output

    concat = ConcatFusion()
    without = concat(seen, read, seen_mask, read_mask)
    missing = concat(heard, without.output, torch.zeros(2, 6, dtype=torch.bool), without.mask)
    (x, pooled), (expected, expected_pooled) = answer(missing), answer(without)
    torch.testing.assert_close(x[:, 6:], expected, **CLOSE)
    torch.testing.assert_close(pooled, expected_pooled, **CLOSE)


def test_gate_mixes_in_shares():
    gate, first, second = randomised(GateFusion(5)), torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    share = torch.sigmoid(torch.cat((first, second), -1) @ gate.gate.weight.t() + gate.gate.bias)
    mixed = gate(first, second)
    torch.testing.assert_close(mixed.output, share * first + (1 - share) * second, **CLOSE)
    assert mixed.mask.all()


def test_gate_passes_the_one_that_is_there():
    gate, first, second = randomised(GateFusion(5)), torch.randn(4, 5), torch.randn(4, 5)
    has_first, has_second = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    mixed = gate(first, second, has_first, has_second)
    both = gate(first, second).output[0]
    torch.testing.assert_close(mixed.output, torch.stack((both, first[1], second[2], torch.zeros(5))))
    assert mixed.mask.tolist() == [True, True, True, False]
    torch.testing.assert_close(gate(first, second, has_first).output[2:], second[2:])
    torch.testing.assert_close(gate(first, second, None, has_second).output[1], first[1])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rest", [(), (4,), (2, 3)])
def test_late_is_the_weighted_mean_of_what_is_there(count, rest):
    late = randomised(LateFusion()).double()
    terms = [torch.randn(2**count, *rest, dtype=torch.float64) for _ in range(count)]
    there = torch.tensor([[bool(row >> i & 1) for i in range(count)] for row in range(2**count)])
    masks = {f"{name}_mask": there[:, i] for i, name in enumerate(("first", "second", "third")[:count])}
    output, mask = late(*terms, **masks)
    weights = late.weight.exp().tolist()
    for row, present in enumerate(there.tolist()):
        kept = [(weights[i], terms[i][row]) for i in range(count) if present[i]]
        expected = sum(w * term for w, term in kept) / sum(w for w, _ in kept) if kept else torch.zeros(rest)
        torch.testing.assert_close(output[row], expected.double(), **EXACT)
    assert mask.tolist() == [any(present) for present in there.tolist()]
    everything = sum(weights[i] * term for i, term in enumerate(terms)) / sum(weights[:count])
    torch.testing.assert_close(late(*terms).output, everything, **EXACT)


def test_late_starts_as_the_plain_mean_and_its_gradients_are_finite():
    late = LateFusion()
    terms = [torch.randn(4, 3, requires_grad=True) for _ in range(3)]
    torch.testing.assert_close(late(*terms).output, torch.stack(terms).mean(0))
    nothing = torch.zeros(4, dtype=torch.bool)
    late(*terms, nothing, nothing, nothing).output.sum().backward()
    assert all(not tensor.grad.any() for tensor in (*terms, late.weight))


def test_modality_dropout_is_of_training_only():
    dropout = ModalityDropout(1.0).eval()
    assert torch.equal(dropout(MASK, MASK[:, 0]).first_mask, MASK)
    assert torch.equal(dropout(MASK, MASK[:, 0]).second_mask, MASK[:, 0])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_modality_dropout_hides_whole_modalities_at_its_rate(rate):
    torch.manual_seed(0)
    rows = 20000
    first, second = torch.rand(rows, 4) > 0.2, torch.ones(rows, dtype=torch.bool)
    first[:, 0] = True
    lost = ModalityDropout(rate)(first, second)
    loses_first, loses_second = ~lost.first_mask.any(1), ~lost.second_mask
    assert torch.equal(lost.first_mask, first & ~loses_first[:, None])
    assert not (loses_first & loses_second).any()
    for share in (loses_first, loses_second):
        assert abs(share.float().mean().item() - rate / 2) < 0.012


def test_modality_dropout_never_takes_the_only_one():
    torch.manual_seed(0)
    here, missing = torch.ones(500, 3, dtype=torch.bool), torch.zeros(500, 2, dtype=torch.bool)
    for first, second in ((here, missing), (missing, here), (missing, missing)):
        lost = ModalityDropout(1.0)(first, second)
        assert torch.equal(lost.first_mask, first)
        assert torch.equal(lost.second_mask, second)


def test_resampler_has_one_length_and_reads_only_what_counts():
    resampler = randomised(Resampler(8, 6, 5, 2)).double()
    memory = torch.randn(3, 4, 6).double()
    output, mask = resampler(memory, MASK)
    assert output.shape == (3, 5, 8)
    assert mask.tolist() == [[True] * 5, [False] * 5, [True] * 5]
    torch.testing.assert_close(output[:1], resampler(memory[:1, :2]).output, **EXACT)
    torch.testing.assert_close(output[2:], resampler(memory[2:]).output, **EXACT)
    attended = resampler.attention(resampler.weight[None], memory[2:])
    torch.testing.assert_close(output[2:] - resampler.weight, attended, **EXACT)
    assert resampler(memory).mask.all()
