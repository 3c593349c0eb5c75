import torch

from atinuke.plugins.token import ClassToken


def test_a_token_stands_in_front_of_every_row() -> None:
    token = ClassToken(8)
    x, mask = torch.randn(3, 5, 8), torch.rand(3, 5) > 0.5
    output, counts = token(x, mask)
    assert torch.equal(output[:, 1:], x)
    assert torch.equal(output[:, 0], token.weight.expand(3, 8))
    assert counts[:, 0].all()
    assert torch.equal(counts[:, 1:], mask)
    assert token(x).mask.all()


def test_a_token_may_have_a_position() -> None:
    token = ClassToken(8, placed=True)
    assert torch.equal(token(torch.randn(2, 5, 8)).output[:, 0], (token.weight + token.position).expand(2, 8))
