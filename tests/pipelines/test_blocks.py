import copy

import pytest
import torch
from torch import Tensor, nn

from atinuke.pipelines.blocks import checkpoint_blocks, repeated_blocks
from tests.pipelines.toy import CONTEXT, Toy, make


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Toy()
        self.second = nn.ModuleList([nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]))])


def step(module: nn.Module) -> tuple[dict[str, Tensor], int]:
    """The gradients, and how many bytes were kept for the backward pass beside the parameters."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module(**make(range(64)))
    (output.loss + output.balance_loss).backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return gradients, sum(tensor.nbytes for tensor in kept.values())


def test_only_the_outermost_lists_are_blocks() -> None:
    nested = Nested()
    assert list(repeated_blocks(nested)) == [*nested.first.stack, nested.second[0]]


def test_gradients_are_the_same_and_memory_is_less() -> None:
    plain = Toy(dropout=0.3)
    kept = copy.deepcopy(plain)
    checkpoint_blocks(kept)
    wanted, much = step(plain)
    got, little = step(kept)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    activation = 64 * CONTEXT * 16 * 4
    assert little < much - 4 * activation
    assert list(kept.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
def test_blocks_are_compiled_once_and_still_keep_little() -> None:
    torch._dynamo.reset()
    plain = Toy(dropout=0.0)
    kept = copy.deepcopy(plain)
    checkpoint_blocks(kept)
    for block in kept.stack:
        block.compile(fullgraph=True)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    wanted, much = step(plain)
    got, little = step(kept)
    assert graphs["unique_graphs"] == before + 1
    assert all(torch.allclose(wanted[name], got[name], rtol=1e-4, atol=1e-6) for name in wanted)
    assert little < much - 4 * 64 * CONTEXT * 16 * 4
