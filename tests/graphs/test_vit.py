"""The shipped vision transformer against transformers' ViTForImageClassification with the same weights."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig, ViTForImageClassification

from atinuke.compile.eject import eject
from atinuke.compile.front import open_graph
from atinuke.compile.measure import MetaMeter
from atinuke.compile.module import build
from atinuke.core.cost import cost

SMALL = ["d_model=24", "heads=3", "layers=2", "patch=4", "rows=4", "columns=4", "channels=2", "classes=5"]


@pytest.fixture
def theirs() -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=96,
        patch_size=4,
        image_size=16,
        num_channels=2,
        layer_norm_eps=1e-6,
        num_labels=5,
    )
    model = ViTForImageClassification(config).eval()
    for parameter in model.parameters():  # fresh gains are 1 and biases 0, which would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return model


def ours(theirs: nn.Module, *more: str) -> nn.Module:
    """The shipped graph with the weights of transformers' model."""
    model = build(open_graph("vit", [*SMALL, *more])).eval()
    old = {name.removeprefix("vit."): tensor for name, tensor in theirs.state_dict().items()}
    new = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("pixels")}
    place = old["embeddings.position_embeddings"][0]
    new["E.projection.weight"] = old["embeddings.patch_embeddings.projection.weight"]
    new["E.projection.bias"] = old["embeddings.patch_embeddings.projection.bias"]
    new["P.weight"] = place[1:].view(4, 4, 24)
    new["C.weight"], new["C.position"] = old["embeddings.cls_token"][0, 0], place[0]
    for kind in ("weight", "bias"):
        new[f"norm.{kind}"] = old[f"layernorm.{kind}"]
        new[f"O.{kind}"] = old[f"classifier.{kind}"]
        for layer in range(2):
            block, theirs_ = f"stack.{layer}", f"layers.{layer}"
            qkv = [old[f"{theirs_}.attention.{one}_proj.{kind}"] for one in "qkv"]
            new[f"{block}.H.qkv.{kind}"] = torch.cat(qkv)
            new[f"{block}.H.output.{kind}"] = old[f"{theirs_}.attention.o_proj.{kind}"]
            new[f"{block}.norm1.{kind}"] = old[f"{theirs_}.layernorm_before.{kind}"]
            new[f"{block}.norm2.{kind}"] = old[f"{theirs_}.layernorm_after.{kind}"]
            new[f"{block}.F.up.{kind}"] = old[f"{theirs_}.mlp.fc1.{kind}"]
            new[f"{block}.F.down.{kind}"] = old[f"{theirs_}.mlp.fc2.{kind}"]
    model.load_state_dict(new)
    return model


def pictures(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (batch, 2, height, width), dtype=torch.uint8)


@torch.no_grad()
def test_is_transformers(theirs: nn.Module) -> None:
    pixels = pictures(3, 16, 16)
    expected = theirs(pixels / 127.5 - 1, output_hidden_states=True)
    found = ours(theirs)(pixels)
    last = theirs.vit.layernorm(expected.hidden_states[-1])
    torch.testing.assert_close(found.last_hidden_state, last, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 32), (8, 20), (16, 24)])
@torch.no_grad()
def test_is_transformers_at_other_sizes(theirs: nn.Module, size: tuple[int, int]) -> None:
    pixels = pictures(2, *size)
    expected = theirs(pixels / 127.5 - 1, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(ours(theirs)(pixels).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "swap",
    [
        "E=vision.stem(d_model=24, channels=2, filters=8)",
        "P=position.grid_sinusoidal",
        "varied=vision.resize(height=12, width=20)",
    ],
)
@torch.no_grad()
def test_parts_are_exchanged_with_a_word(swap: str) -> None:
    model = build(open_graph("vit", SMALL, [swap])).eval()
    pixels = pictures(3, 16, 24)
    whole = model(pixels).last_hidden_state
    cells = 3 * 5 if "resize" in swap else 4 * 6
    assert whole.shape == (3, 1 + cells, 24)
    for row in range(3):
        torch.testing.assert_close(model(pixels[row : row + 1]).last_hidden_state, whole[row : row + 1])


def test_pictures_are_varied_in_training_alone() -> None:
    model = build(open_graph("vit", [*SMALL, "flip=0.5", "shift=2", "erase=0.5"]))
    pixels = pictures(4, 16, 16)
    first, second = (model.train()(pixels).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval()(pixels).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)


def test_costs_what_torch_counts() -> None:
    checked = open_graph("vit", SMALL)
    result, model = cost(checked, MetaMeter()), build(checked).eval()
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())
    for batch, height, width in ((1, 16, 16), (2, 23, 40), (3, 32, 17)):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            model(pictures(batch, height, width))
        assert counter.get_total_flops() == result.at(batch=batch, height=height, width=width).flops


def test_ejected_source_gives_the_same(tmp_path: Path) -> None:
    checked = open_graph("vit", SMALL)
    model = build(checked).eval()
    (tmp_path / "ejected_vit.py").write_text(eject(checked))
    spec = importlib.util.spec_from_file_location("ejected_vit", tmp_path / "ejected_vit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    twin = getattr(module, type(model).__name__)().eval()
    twin.load_state_dict(model.state_dict())
    pixels = pictures(2, 16, 20)
    with torch.no_grad():
        assert torch.equal(twin(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_exports_with_free_sizes() -> None:
    model = build(open_graph("vit", SMALL)).eval()
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    program = torch.export.export(
        model, (pictures(3, 16, 24),), dynamic_shapes=(dims,), prefer_deferred_runtime_asserts_over_guards=True
    ).module()
    for size in ((1, 16, 16), (2, 40, 9), (4, 8, 35)):
        pixels = pictures(*size)
        with torch.no_grad():
            expected = model(pixels).last_hidden_state
            torch.testing.assert_close(program(pixels).last_hidden_state, expected, rtol=0, atol=2e-5)
