import pytest
import torch

from atinuke.plugins.text import TextEmbedding


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
