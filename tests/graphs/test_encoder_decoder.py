"""The shipped encoder-decoder against transformers' Pegasus with the same weights."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PegasusConfig, PegasusForConditionalGeneration

from atinuke.compile.eject import eject
from atinuke.compile.front import open_graph
from atinuke.compile.inductor import compile_step
from atinuke.compile.module import build

VOCAB, WIDTH = 60, 24
SMALL = ["d_model=24", "heads=3", "layers=2", "decoder_layers=3", "d_ff=40", f"vocab_size={VOCAB}"]
SOURCE = torch.arange(9)
LENGTHS = torch.tensor([9, 1, 5])


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    sides = {"attention_heads": 3, "ffn_dim": 40}
    config = PegasusConfig(
        vocab_size=VOCAB,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=3,
        **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sides.items()},
        max_position_embeddings=32,
        scale_embedding=True,
        activation_function="gelu",
        pad_token_id=0,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    model = PegasusForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():  # fresh gains are 1 and biases 0, which would hide mistakes
        if "embed_positions" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def ours(theirs: nn.Module) -> nn.Module:
    """The shipped graph with the weights of transformers' model.

    Pegasus has all sines before all cosines and the graph has them in turn, so the channels between the layers, whose
    order means nothing to a transformer, are put in the graph's order.
    """
    model = build(open_graph("encoder-decoder", SMALL)).eval()
    old = {name.removeprefix("model."): tensor for name, tensor in theirs.state_dict().items()}
    order = torch.arange(WIDTH).view(2, -1).T.flatten()
    tokens = old["shared.weight"][:, order]
    new = {"text.weight": tokens, "E.weight": tokens, "O.weight": tokens}

    def norm(ours_: str, theirs_: str) -> None:
        for kind in ("weight", "bias"):
            new[f"{ours_}.{kind}"] = old[f"{theirs_}.{kind}"][order]

    def linear(ours_: str, *theirs_: str, inside: bool = False) -> None:
        weights = torch.cat([old[f"{name}.weight"] for name in theirs_])
        biases = torch.cat([old[f"{name}.bias"] for name in theirs_])
        new[f"{ours_}.weight"] = weights[order] if inside else weights[:, order]
        new[f"{ours_}.bias"] = biases[order] if inside else biases

    for side, layers in (("encoder", 2), ("decoder", 3)):
        norm("memory" if side == "encoder" else "norm", f"{side}.layer_norm")
        for layer in range(layers):
            block, other = f"{side}.{layer}", f"{side}.layers.{layer}"
            linear(f"{block}.H.qkv", *(f"{other}.self_attn.{one}_proj" for one in "qkv"))
            linear(f"{block}.H.output", f"{other}.self_attn.out_proj", inside=True)
            linear(f"{block}.F.up", f"{other}.fc1")
            linear(f"{block}.F.down", f"{other}.fc2", inside=True)
            norm(f"{block}.norm1", f"{other}.self_attn_layer_norm")
            norm(f"{block}.norm{layers}", f"{other}.final_layer_norm")  # 2 in the encoder, 3 in the decoder
            if side == "decoder":
                norm(f"{block}.norm2", f"{other}.encoder_attn_layer_norm")
                linear(f"{block}.C.query", f"{other}.encoder_attn.q_proj")
                linear(f"{block}.C.key_value", *(f"{other}.encoder_attn.{one}_proj" for one in "kv"))
                linear(f"{block}.C.output", f"{other}.encoder_attn.out_proj", inside=True)
    model.load_state_dict(new)
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Sources of different lengths, which of their tokens count, and texts."""
    torch.manual_seed(1)
    return torch.randint(VOCAB, (3, 9)), LENGTHS[:, None] > SOURCE, torch.randint(VOCAB, (3, 7))


@torch.no_grad()
def test_is_transformers(ours: nn.Module, theirs: nn.Module) -> None:
    source, mask, text = batch()
    expected = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=text).logits
    torch.testing.assert_close(ours(source, text, mask).logits, expected, rtol=0, atol=1e-5)
    expected = theirs(input_ids=source, decoder_input_ids=text).logits
    torch.testing.assert_close(ours(source, text).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing(ours: nn.Module) -> None:
    source, mask, text = batch()
    whole = ours(source, text, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = ours(source[row : row + 1, :length], text[row : row + 1]).logits
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_steps_are_forward(ours: nn.Module, masked: bool) -> None:
    source, mask, text = batch()
    given = (source, mask) if masked else (source,)
    expected = ours(source, text, *given[1:]).logits
    prepared = ours.prepare(*given)
    lengths = torch.tensor([1, 3, 2])  # each row's prompt; what lies behind it in the first step is noise
    output, state = ours.step(text[:, :3], torch.zeros(3, dtype=torch.int64), ours.state(3, 7), prepared)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(output.logits[row, :length], expected[row, :length], rtol=0, atol=1e-5)
    for offset in range(4):
        at = lengths + offset
        output, state = ours.step(text.gather(1, at[:, None]), at, state, prepared)
        torch.testing.assert_close(output.logits[:, 0], expected[torch.arange(3), at], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_step_can_give_the_last_token_of_each_row_only(ours: nn.Module) -> None:
    source, mask, text = batch()
    prepared, last = ours.prepare(source, mask), torch.tensor([6, 0, 2])
    zeros = torch.zeros(3, dtype=torch.int64)
    whole, _ = ours.step(text, zeros, ours.state(3, 7), prepared)
    part, _ = ours.step(text, zeros, ours.state(3, 7), prepared, last)
    torch.testing.assert_close(part.logits[:, 0], whole.logits[torch.arange(3), last])


def test_embeddings_are_shared_and_every_choice_is_a_dim() -> None:
    model = build(open_graph("encoder-decoder", [*SMALL, "dropout=0.25"]))
    assert model.E.weight is model.text.weight
    assert model.O.weight is model.text.weight
    assert (len(model.encoder), len(model.decoder), model.drop.rate) == (2, 3, 0.25)
    assert len(build(open_graph("encoder-decoder", ["layers=2", "d_model=24", "heads=2"])).decoder) == 2


@torch.no_grad()
def test_ejected_source_gives_the_same(ours: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "ejected.py").write_text(eject(open_graph("encoder-decoder", SMALL)))
    spec = importlib.util.spec_from_file_location("ejected_encoder_decoder", tmp_path / "ejected.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    twin = module.EncoderDecoder().eval()
    twin.load_state_dict(ours.state_dict())
    source, mask, text = batch()
    assert torch.equal(twin(source, text, mask).logits, ours(source, text, mask).logits)
    zeros = torch.zeros(3, dtype=torch.int64)
    steps = [
        model.step(text, zeros, model.state(3, 7), model.prepare(source, mask))[0].logits for model in (ours, twin)
    ]
    assert torch.equal(*steps)


class Form(nn.Module):
    """A method of the model as a forward over flat tensors, which is what exporters take."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.method == "prepare":
            return self.model.prepare(*tensors)
        ids, position, *rest = tensors
        memory = [tensor.clone() for tensor in rest[:6]]
        output, state = self.model.step(ids, position, tuple(memory), tuple(rest[6:]))
        return (output.logits, *state)


@torch.no_grad()
def test_prepare_and_step_export_with_free_sizes(ours: nn.Module) -> None:
    def inputs(rows: int, length: int, capacity: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        given = (torch.randint(VOCAB, (rows, length)), torch.rand(rows, length) > 0.3)
        step = (torch.randint(VOCAB, (rows, 1)), torch.arange(rows), *ours.state(rows, capacity))
        return given, (*step, *ours.prepare(*given))

    batch, source, capacity = (torch.export.Dim(name, min=1) for name in ("batch", "source", "capacity"))
    axes = [{0: batch, 1: source}] * 2, [{0: batch}] * 2 + [{0: batch, 2: capacity}] * 6
    axes[1].extend([{0: batch, 2: source}, {0: batch, 2: source}, {0: batch, 1: source}] * 3)
    for method, example, free in zip(("prepare", "step"), inputs(3, 9, 12), axes, strict=True):
        program = torch.export.export(
            Form(ours, method), example, dynamic_shapes=(tuple(free),), prefer_deferred_runtime_asserts_over_guards=True
        ).module()
        for sizes in ((2, 1, 5), (5, 12, 40)):
            given = inputs(*sizes)[method == "step"]
            for got, expected in zip(program(*given), Form(ours, method)(*given), strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_step_is_forward_for_sources_of_any_length() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    ours = build(open_graph("encoder-decoder", [*SMALL, "layers=1", "decoder_layers=1"])).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    step = compile_step(ours)
    source, _, text = batch()
    for length in (9, 4, 7):
        expected = ours(source[:, :length], text).logits
        prepared = ours.prepare(source[:, :length])
        state = ours.state(3, 7)
        for at in range(7):
            output, state = step(text[:, at : at + 1], torch.full((3,), at), state, prepared)
            torch.testing.assert_close(output.logits[:, 0], expected[:, at], rtol=0, atol=1e-4)
    torch._dynamo.reset()
