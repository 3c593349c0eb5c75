"""The embedders of sound against transformers, and their lengths and masks."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import ASTConfig, Wav2Vec2Config, WhisperConfig
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTPatchEmbeddings
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder, Wav2Vec2FeatureProjection
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from atinuke.compile import module
from atinuke.compile.front import open_graph
from atinuke.core.dims import evaluate
from atinuke.core.errors import AtinukeError
from atinuke.core.signature import read_signature
from atinuke.plugins.audio import AudioFrames, AudioPad, AudioPatches, AudioWaveform
from atinuke.plugins.logmel import FilterBank, LogMel

# The class, its settings, the shortest input, what the first output needs, and how much more each further one.
CASES = {
    **{f"frames-{s}": (AudioFrames, {"mels": 3, "d_model": 2, "stride": s}, 1, 1, s) for s in (1, 2, 3)},
    **{
        f"patches-{p}-{s}": (AudioPatches, {"mels": p + s, "d_model": 2, "patch": p, "stride": s}, p, p, s)
        for p, s in [(16, 10), (16, 16), (16, 1), (5, 3), (1, 1)]
    },
    "waveform": (AudioWaveform, {"d_model": 2, "channels": 2}, 400, 400, 320),
    **{f"logmel-{r}": (LogMel, {"mels": 2, "rate": r}, h, h, h) for r, h in [(200, 2), (16000, 160), (22050, 220)]},
    **{
        f"fbank-{r}": (FilterBank, {"mels": 2, "rate": r}, w, w, h)
        for r, w, h in [(200, 5, 2), (16000, 400, 160), (22050, 551, 220)]
    },
}
BANDS = 2  # of patches: mels are a patch and a stride
cases = pytest.mark.parametrize("case", CASES)


def build(case):
    cls, settings, *_ = CASES[case]
    torch.manual_seed(0)
    return cls(**settings).eval()


def inputs(case, batch, length, dtype=torch.float32):
    cls, settings, *_ = CASES[case]
    features = (settings["mels"],) if cls in (AudioFrames, AudioPatches) else ()
    return torch.randn(batch, length, *features, dtype=dtype)


def counted(case):
    """How many outputs a row of each length up to 2000 has, told by trying every place."""
    cls, _, _, field, stride = CASES[case]
    ends = [field + t * stride for t in range(2000)]
    return [sum(end <= length for end in ends) * (BANDS if cls is AudioPatches else 1) for length in range(2001)]


@cases
def test_lengths_are_promised_and_right_for_every_length(case):
    cls, settings, least, *_ = CASES[case]
    ports = read_signature(cls).outputs
    trees = [ports["output"].shape.dims[1].tree, ports["mask"].shape.dims[1].tree]
    names = {f"self_{name}": value for name, value in settings.items()}
    axis = "frames" if cls in (AudioFrames, AudioPatches) else "samples"
    component, counts = build(case), counted(case)
    x = inputs(case, 1, 2000)
    with torch.no_grad():
        for length in range(least, 2001):
            found = component(x[:, :length])
            output, mask = found.output, found.mask
            promised = [evaluate(tree, {**names, axis: length}) for tree in trees]
            assert promised == [output.shape[1], mask.shape[1]] == [counts[length]] * 2, length


@cases
def test_the_mask_of_a_padded_row_has_the_length_of_the_row_alone(case):
    component, counts = build(case), torch.tensor(counted(case))
    x = inputs(case, 1, 2000)
    for lengths in torch.arange(1, 2001).split(100):
        mask = torch.arange(2000) < lengths[:, None]
        with torch.no_grad():
            found = component(x.expand(len(lengths), *x.shape[1:]), mask).mask
        assert torch.equal(found, torch.arange(found.shape[1]) < counts[lengths][:, None])


@cases
def test_padded_rows_are_the_rows_alone_whatever_the_padding_holds(case):
    torch.manual_seed(0)
    component = build(case).double()
    lengths = torch.tensor([2000, 1999, 1234, 700])
    mask = torch.arange(2000) < lengths[:, None]
    x = inputs(case, 4, 2000, torch.float64)
    hidden = ~mask.view(*mask.shape, *[1] * (x.dim() - 2))
    for padding in (1e6, math.nan):
        padded = component(x.masked_fill(hidden, padding), mask)
        for row, length in enumerate(lengths):
            alone = component(x[row : row + 1, :length])
            assert alone.mask.all()
            assert padded.mask[row].sum() == alone.output.shape[1]
            assert_close(padded.output[row, : alone.output.shape[1]], alone.output[0], rtol=1e-9, atol=1e-9)


@cases
def test_too_short_an_input_is_refused(case):
    least = CASES[case][2]
    build(case)(inputs(case, 2, least))
    if least > 1:
        with pytest.raises(ValueError, match=f"at least {least} .* are needed, but there are {least - 1}"):
            build(case)(inputs(case, 2, least - 1))


# Against transformers


def test_frames_are_whispers():
    torch.manual_seed(0)
    config = WhisperConfig(num_mel_bins=6, d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8)
    config.max_source_positions = 10
    theirs = WhisperEncoder(config).eval()
    nn.init.zeros_(theirs.embed_positions.weight)
    seen = []
    theirs.layers[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    ours = AudioFrames(6, 8)
    ours.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if name.startswith("conv")})
    x = torch.randn(2, 20, 6)
    theirs(x.transpose(1, 2))
    assert_close(ours(x).output, seen[0], rtol=1e-6, atol=1e-6)


def test_patches_are_asts_in_the_order_of_time():
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=8, patch_size=4, frequency_stride=3, time_stride=3, num_mel_bins=14, max_length=32, hidden_dropout=0
    )
    theirs = ASTPatchEmbeddings(config).eval()
    ours = AudioPatches(14, 8, patch=4, stride=3)
    with torch.no_grad():
        ours.projection.weight.copy_(theirs.projection.weight.transpose(2, 3))
        ours.projection.bias.copy_(theirs.projection.bias)
    x = torch.randn(2, 32, 14)
    by_time = theirs(x).unflatten(1, (4, 10)).transpose(1, 2).flatten(1, 2)
    assert_close(ours(x).output, by_time, rtol=1e-6, atol=1e-6)
    assert_close(ours(x).grid.flatten(1, 2), theirs(x), rtol=1e-6, atol=1e-6)


def test_zeros_are_put_behind_what_counts():
    x, mask = torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[5], [2]])
    padded = AudioPad(7)(x, mask)
    assert torch.equal(padded[0, :5], x[0])
    assert torch.equal(padded[1, :2], x[1, :2])
    assert not padded[0, 5:].any()
    assert not padded[1, 2:].any()
    assert torch.equal(AudioPad(5)(x), x)
    with pytest.raises(ValueError, match="at most 4 frames fit, but there are 5"):
        AudioPad(4)(x)


def test_waveform_is_wav2vecs():
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=6, conv_dim=(8,) * 7, feat_extract_norm="layer", conv_bias=True, feat_proj_dropout=0.0
    )
    encoder, projection = Wav2Vec2FeatureEncoder(config).eval(), Wav2Vec2FeatureProjection(config).eval()
    ours = AudioWaveform(6, channels=8)
    with torch.no_grad():
        for layer, convolution, norm in zip(encoder.conv_layers, ours.convolutions, ours.norms, strict=True):
            for part in (layer.conv, layer.layer_norm, projection.layer_norm):
                part.bias.normal_()
            convolution.load_state_dict(layer.conv.state_dict())
            norm.load_state_dict(layer.layer_norm.state_dict())
        ours.norm.load_state_dict(projection.layer_norm.state_dict())
        ours.projection.load_state_dict(projection.projection.state_dict())
    x = torch.randn(2, 3456)
    assert_close(ours(x).output, projection(encoder(x).transpose(1, 2))[0], rtol=1e-5, atol=1e-5)


# In a graph

GRAPH = """
atinuke: 1
name: hears
dims: {mels: 16, d_model: 8}
axes: {batch: 1..8, samples: 2000..48000}
inputs: {input_values: "float[batch, samples]", mask: "bool[batch, samples]"}
nodes:
  mel: {use: audio.logmel, in: [input_values, mask], with: {mels: $mels}}
  norm: {use: audio.normalise, in: [mel, mel.mask]}
  augmented: {use: audio.specaugment, in: [norm, mel.mask]}
  E: {use: audio.frames, in: [augmented, mel.mask], with: {mels: $mels, d_model: $d_model}}
outputs: {output: E, mask: E.mask}
"""


@pytest.mark.parametrize("swaps", [[], ["mel=audio.fbank"]])
def test_a_graph_from_waveform_to_vectors_keeps_rows_apart(tmp_path, swaps):
    (tmp_path / "hears.yaml").write_text(GRAPH)
    torch.manual_seed(0)
    model = module.build(open_graph(str(tmp_path / "hears.yaml"), (), swaps)).eval()
    x, lengths = torch.randn(3, 9000), torch.tensor([9000, 2100, 5555])
    mask = torch.arange(9000) < lengths[:, None]
    together = model(x.masked_fill(~mask, 1e3), mask)
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length], mask[row : row + 1, :length])
        assert together.mask[row].sum() == alone.output.shape[1]
        assert_close(together.output[row, : alone.output.shape[1]], alone.output[0], rtol=1e-5, atol=1e-5)


def test_the_checker_refuses_a_range_with_too_short_sounds(tmp_path):
    (tmp_path / "hears.yaml").write_text(GRAPH)
    with pytest.raises(AtinukeError, match="axis 1 of output would be 0 at samples = 100"):
        open_graph(str(tmp_path / "hears.yaml"), ["samples=100..9000"])
    with pytest.raises(AtinukeError, match="mels 15 are fewer than a patch of 16 has"):
        open_graph(str(tmp_path / "hears.yaml"), ["mels=15"], ["E=audio.patches"])
