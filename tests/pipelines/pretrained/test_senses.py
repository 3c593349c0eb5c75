"""ViT, AST and CLIP against transformers: the same scores, and back without a tensor lost."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import atinuke
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.pretrained.opening import Pretrained

TOKENS, END = 40, 39
BODY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
SEEN = {"image_size": 32, "patch_size": 8}
TEXT = {**BODY, "vocab_size": TOKENS, "bos_token_id": 1, "max_position_embeddings": 12}
VISION = {**BODY, **SEEN, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
AST = {**BODY, "max_length": 50, "num_mel_bins": 32, "time_stride": 9, "frequency_stride": 9}
CLIP = {"text_config": {**TEXT, "eos_token_id": END}, "vision_config": VISION, "projection_dim": 6}
GELU = {
    "text_config": {**TEXT, "eos_token_id": END, "hidden_act": "gelu"},
    "vision_config": {**VISION, "hidden_act": "gelu"},
}
SAMPLES = 8000
NAMES = {"pooled": "pooler_output"}  # outputs that transformers calls differently
KINDS = {
    "vit": ("ViTForImageClassification", {**BODY, **SEEN, "num_labels": 5}),
    "vit tanh": ("ViTForImageClassification", {**BODY, **SEEN, "num_channels": 1, "hidden_act": "gelu_new"}),
    "vit wide patches": ("ViTForImageClassification", {**BODY, "image_size": 64, "patch_size": 32}),
    "vit body": ("ViTModel", {**BODY, **SEEN}),
    "ast": ("ASTForAudioClassification", {**AST, "num_labels": 3}),
    "clip": ("CLIPModel", CLIP),
    "clip gelu": ("CLIPModel", GELU),
    "clip old": ("CLIPModel", {**CLIP, "text_config": {**TEXT, "eos_token_id": 2}}),  # which means the last token
}


@dataclass(frozen=True)
class Pair:
    theirs: Any
    ours: Pretrained
    folder: Path


def small(name: str, folder: Path) -> Any:
    """A saved model whose biases and gains are no zeros and ones."""
    architecture, config = KINDS[name]
    torch.manual_seed(0)
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**config)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if name == "ast":
        extractor(mean=-6.5, std=5.5).save_pretrained(folder)
    return model


def extractor(**more: float) -> transformers.ASTFeatureExtractor:
    return transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=50, **more)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("model")
    theirs = small(request.param, folder / "theirs")
    convert(folder / "theirs", folder / "ours")
    return Pair(theirs, atinuke.from_pretrained(folder / "ours"), folder)


def pictures(number: int, channels: int, height: int, width: int, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """Pixels 0..255, and as the image processors of transformers give them."""
    pixels = torch.randint(256, (number, channels, height, width), dtype=torch.uint8)
    spread = [torch.tensor(values)[:, None, None] for values in (mean, std)]
    return pixels, (pixels / 255 - spread[0]) / spread[1]


def seen(pair: Pair, lengths: list[int], data: st.DataObject) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pictures of any size: theirs interpolates its positions too where it is told to."""
    size, channels = pair.theirs.config.image_size, pair.theirs.config.num_channels
    height, width = (data.draw(st.sampled_from([size, size + 8, size * 3 // 4, size + 3])) for _ in range(2))
    ours, theirs = pictures(len(lengths), channels, height, width, [0.5], [0.5])
    return {"pixel_values": ours}, {"pixel_values": theirs, "interpolate_pos_encoding": (height, width) != (size, size)}


def heard(pair: Pair, lengths: list[int], data: st.DataObject) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Recordings of different lengths, with garbage behind them."""
    waves = 0.1 * torch.randn(len(lengths), SAMPLES)
    mask = torch.arange(SAMPLES) < torch.tensor(lengths)[:, None] * 600
    rows = [wave[counts].numpy() for wave, counts in zip(waves, mask, strict=True)]
    features = extractor(mean=-6.5, std=5.5)(rows, sampling_rate=16000).input_values
    return {"input_values": waves, "sample_mask": mask}, {"input_values": torch.from_numpy(np.array(features))}


def told_and_seen(pair: Pair, lengths: list[int], data: st.DataObject) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Texts that end with their token and are padded with it, or with others that a mask hides; and pictures."""
    longest = max(lengths)
    place, last = torch.arange(longest), torch.tensor(lengths)[:, None] - 1
    ids = torch.where(place < last, torch.randint(3, END, (len(lengths), longest)), END)
    mask = None
    if data.draw(st.booleans()):
        ids = torch.where(place > last, torch.randint(3, END, ids.shape), ids)
        mask = place <= last
    image = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    pixels, normalised = pictures(len(lengths), 3, 32, 32, **image)
    more = {} if mask is None else {"attention_mask": mask}
    return {"pixel_values": pixels, "input_ids": ids, **more}, {"pixel_values": normalised, "input_ids": ids, **more}


@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.data())
@settings(max_examples=10)
@torch.no_grad()
def test_gives_what_transformers_gives(pair: Pair, lengths: list[int], data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    makers = {"vit": seen, "audio-spectrogram-transformer": heard, "clip": told_and_seen}
    ours, theirs = makers[pair.theirs.config.model_type](pair, lengths, data)
    found, expected = pair.ours.model(**ours), pair.theirs(**theirs)
    for name in found._fields:
        wanted = getattr(expected, NAMES.get(name, name))
        torch.testing.assert_close(getattr(found, name), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_comes_back_whole(pair: Pair) -> None:
    to_huggingface(pair.folder / "ours", pair.folder / "back")
    again, report = type(pair.theirs).from_pretrained(pair.folder / "back", output_loading_info=True)
    assert not any(report.values()), report
    theirs = pair.theirs.state_dict()
    assert again.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.state_dict().items())
    for file in (pair.folder / "theirs").glob("*.json"):
        assert json.loads((pair.folder / "back" / file.name).read_text()) == json.loads(file.read_text())


def test_other_front_ends_are_refused(tmp_path: Path) -> None:
    small("ast", tmp_path)
    file = tmp_path / "preprocessor_config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "sampling_rate": 8000, "max_length": 40}))
    with pytest.raises(AtinukeError) as caught:
        convert(tmp_path, tmp_path / "ours")
    told = str(caught.value)
    assert "has a `preprocessor.sampling_rate` that is not supported" in told
    assert "expected 16000\n  got 8000" in told
    assert "has a `preprocessor.max_length` that is not supported" in told
    assert "expected 50\n  got 40" in told
