import pytest
import torch
from transformers import ByT5Tokenizer

from atinuke.plugins.text import ByteEmbedding, SegmentEmbedding, TextEmbedding


def test_looks_up_rows_of_any_shape():
    embedding = TextEmbedding(50, 8)
    for ids in (torch.tensor(7), torch.tensor([3, 3, 49]), torch.randint(50, (2, 3, 4))):
        assert torch.equal(embedding(ids), embedding.weight[ids])


def test_starts_as_gpt2():
    torch.manual_seed(0)
    weight = TextEmbedding(1000, 64).weight
    assert abs(weight.std().item() - 0.02) < 3e-4
    assert abs(weight.mean().item()) < 3e-4


def test_a_token_outside_the_vocabulary_is_an_error():
    with pytest.raises(IndexError):
        TextEmbedding(50, 8)(torch.tensor([50]))


def test_segments_are_added() -> None:
    segments = SegmentEmbedding(8, 3)
    x, ids = torch.randn(2, 5, 8), torch.randint(3, (2, 5))
    torch.testing.assert_close(segments(x, ids), x + segments.weight[ids])
    with pytest.raises(IndexError):
        segments(x, ids + 3)


def test_bytes_are_byt5s() -> None:
    embedding = ByteEmbedding(8)
    ids = torch.tensor([ByT5Tokenizer()("Ẹ kú àárọ̀, Atinuke!").input_ids])
    assert embedding.weight.shape[0] == 256 + 3
    assert ids.tolist()[0] == [*(3 + byte for byte in "Ẹ kú àárọ̀, Atinuke!".encode()), 1]
    output, mask = embedding(ids)
    assert torch.equal(output, embedding.weight[ids])
    assert mask.all()
    with pytest.raises(IndexError):
        embedding(torch.tensor([[259]]))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 11])
def test_patches_of_bytes_are_a_linear_map_of_theirs_side_by_side(length: int) -> None:
    embedding = ByteEmbedding(6, patch=4).double()
    ids = torch.randint(259, (2, length))
    vectors = torch.zeros(2, 12, 6, dtype=torch.float64)
    vectors[:, :length] = embedding.weight[ids]
    count = -(-length // 4)
    weight = embedding.join.weight.view(6, 4, 6)
    expected = torch.einsum("bpkd,okd->bpo", vectors[:, : 4 * count].view(2, count, 4, 6), weight) + embedding.join.bias
    torch.testing.assert_close(embedding(ids).output, expected, rtol=0, atol=1e-12)


def test_rows_of_bytes_of_different_lengths_equal_themselves_alone() -> None:
    embedding = ByteEmbedding(6, patch=4)
    lengths = torch.tensor([1, 4, 6, 11])
    ids, mask = torch.randint(259, (4, 11)), torch.arange(11) < lengths[:, None]
    output, counts = embedding(ids, mask)
    for row, length in enumerate(lengths):
        alone = embedding(ids[row : row + 1, :length])
        assert counts[row].sum() == alone.mask.sum() == alone.mask.shape[1]
        torch.testing.assert_close(output[row, counts[row]], alone.output[0], rtol=0, atol=1e-6)
