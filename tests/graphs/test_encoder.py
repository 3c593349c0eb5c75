"""The shipped bidirectional encoder against transformers' BertModel with the same weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from atinuke.compile.front import open_graph
from atinuke.compile.measure import MetaMeter
from atinuke.compile.module import build
from atinuke.core.cost import cost

SMALL = ["vocab_size=50", "d_model=24", "heads=3", "layers=2"]
LENGTHS = torch.tensor([3, 12, 1, 7])


@pytest.fixture
def theirs() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=96,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    for parameter in model.parameters():  # fresh gains are 1 and biases 0, which would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return model


def ours(theirs: nn.Module) -> nn.Module:
    """The shipped graph with the weights of transformers' model."""
    model = build(open_graph("encoder", SMALL)).eval()
    old, new = theirs.state_dict(), {}
    for name, node in (("word", "E"), ("token_type", "S"), ("position", "P")):
        new[f"{node}.weight"] = old[f"embeddings.{name}_embeddings.weight"]
    new["O.weight"] = new["E.weight"]
    for kind in ("weight", "bias"):
        new[f"norm.{kind}"] = old[f"embeddings.LayerNorm.{kind}"]
        for layer in range(2):
            block, bert = f"stack.{layer}", f"encoder.layer.{layer}"
            qkv = [old[f"{bert}.attention.self.{one}.{kind}"] for one in ("query", "key", "value")]
            new[f"{block}.H.qkv.{kind}"] = torch.cat(qkv)
            new[f"{block}.H.output.{kind}"] = old[f"{bert}.attention.output.dense.{kind}"]
            new[f"{block}.norm1.{kind}"] = old[f"{bert}.attention.output.LayerNorm.{kind}"]
            new[f"{block}.F.up.{kind}"] = old[f"{bert}.intermediate.dense.{kind}"]
            new[f"{block}.F.down.{kind}"] = old[f"{bert}.output.dense.{kind}"]
            new[f"{block}.norm2.{kind}"] = old[f"{bert}.output.LayerNorm.{kind}"]
    model.load_state_dict(new)
    return model


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, segments and mask of texts of mixed lengths, with noise where they are padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (4, 12), generator=generator)
    segments = torch.randint(2, (4, 12), generator=generator)
    return ids, segments, torch.arange(12) < LENGTHS[:, None]


@torch.no_grad()
def test_is_transformers(theirs: nn.Module) -> None:
    ids, segments, mask = texts()
    expected = theirs(ids, attention_mask=mask.long(), token_type_ids=segments).last_hidden_state
    found = ours(theirs)(ids, segments, mask)
    torch.testing.assert_close(found.last_hidden_state[mask], expected[mask], rtol=0, atol=1e-5)
    logits = expected @ theirs.embeddings.word_embeddings.weight.T
    torch.testing.assert_close(found.logits[mask], logits[mask], rtol=0, atol=5e-5)


@torch.no_grad()
def test_a_batch_of_mixed_lengths_equals_its_rows_alone(theirs: nn.Module) -> None:
    model, (ids, segments, mask) = ours(theirs), texts()
    whole = model(ids, segments, mask)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(ids[row : row + 1, :length], segments[row : row + 1, :length], mask[row : row + 1, :length])
        for name in ("logits", "last_hidden_state"):
            found, expected = getattr(whole, name)[row, :length], getattr(alone, name)[0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_token_sees_what_comes_after_it(theirs: nn.Module) -> None:
    model, (ids, segments, mask) = ours(theirs), texts()
    changed = ids.clone()
    changed[1, 11] = (changed[1, 11] + 1) % 50
    before, after = (model(given, segments, mask).logits for given in (ids, changed))
    assert (before[1, 0] - after[1, 0]).abs().max() > 1e-3


def test_costs_what_torch_counts() -> None:
    checked = open_graph("encoder", SMALL)
    result, model = cost(checked, MetaMeter()), build(checked).eval()
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*texts())
    assert counter.get_total_flops() == result.at(batch=4, sequence=12).flops
