"""Log-mel spectrograms against float64 NumPy, transformers' extractors, and their own promises."""

import io
import math
import wave
import zipfile
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import Speech2TextFeatureExtractor, WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from atinuke.plugins.logmel import FilterBank, LogMel

# References, written from the papers with rfft and interpolation.


def mel_energies(power, points, edges, gain):
    filters = [
        np.interp(points, edges[i : i + 3], [0, gain[i], 0], left=0, right=0) if gain[i] else 0 * points
        for i in range(len(edges) - 2)
    ]
    return power @ np.stack(filters, axis=1)


def whisper_energies(x, rate, mels):
    window, hop = rate // 40, rate // 100
    padded = np.pad(x, window // 2, mode="reflect")
    frames = np.stack([padded[t * hop : t * hop + window] for t in range(len(x) // hop)])
    power = np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1])) ** 2
    top = 15 + 27 * np.log(rate / 2000) / np.log(6.4)
    mel = np.linspace(0, top, mels + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return mel_energies(power, np.fft.rfftfreq(window, 1 / rate), edges, 2 / (edges[2:] - edges[:-2]))


def whisper(x, rate=16000, mels=80):
    log = np.log10(np.maximum(whisper_energies(x, rate, mels), 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def kaldi_energies(x, rate, mels):
    window, hop = rate // 40, rate // 100
    size = 2 ** math.ceil(math.log2(window))
    frames = np.stack([x[t * hop : t * hop + window] for t in range((len(x) - window) // hop + 1)])
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hanning(window) ** 0.85, size)) ** 2
    low, high = 1127 * np.log1p(20 / 700), 1127 * np.log1p(rate / 1400)
    points = 1127 * np.log1p(np.fft.rfftfreq(size, 1 / rate) / 700)
    return mel_energies(power, points, np.linspace(low, high, mels + 2), np.ones(mels))


def kaldi(x, rate=16000, mels=80):
    return np.log(np.maximum(kaldi_energies(x, rate, mels), np.finfo(np.float32).eps))


# name: the class, its reference, and how its output is turned back into energies
KINDS = {
    "whisper": (LogMel, whisper, whisper_energies, lambda log: 10 ** (4 * log - 4)),
    "kaldi": (FilterBank, kaldi, kaldi_energies, np.exp),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@cache
def build(kind, rate=16000, mels=80, dtype=torch.float32):
    torch.set_default_dtype(dtype)
    try:
        return KINDS[kind][0](mels, rate).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def output(kind, x, **settings):
    with torch.no_grad():
        return build(kind, dtype=torch.from_numpy(x).dtype, **settings)(torch.from_numpy(x)[None]).output[0].numpy()


@st.composite
def signals(draw, rate=16000):
    """Tones, noise, a click and an offset of loudnesses from -80 dB to full scale; all of them may be absent."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(rate // 40, rate // 4))
    loudness = st.sampled_from([0, 1e-4, 1e-3, 1e-2, 0.1, 0.5])
    x = draw(loudness) * rng.standard_normal(size)
    for _ in range(draw(st.integers(0, 3))):
        hertz = draw(st.floats(0, rate / 2))
        x += draw(loudness) * np.sin(2 * np.pi * hertz * np.arange(size) / rate + rng.uniform(0, 7))
    x[draw(st.integers(0, size - 1))] += draw(loudness)
    return (x + draw(loudness)).astype(np.float32).astype(np.float64)


@kinds
@pytest.mark.parametrize(("rate", "mels"), [(16000, 80), (16000, 128), (8000, 40), (22050, 80), (20480, 40)])
@settings(max_examples=15)
@given(data=st.data())
def test_equals_numpy_in_float64(kind, rate, mels, data):
    x = data.draw(signals(rate))
    np.testing.assert_allclose(
        output(kind, x, rate=rate, mels=mels), KINDS[kind][1](x, rate, mels), rtol=1e-7, atol=1e-7
    )


@kinds
@settings(max_examples=60)
@given(x=signals())
@example(x=(0.9 * np.sin(np.arange(4000) * np.pi / 8)).astype(np.float32).astype(np.float64))
@example(x=(0.7 + 1e-3 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32).astype(np.float64))
def test_float32_adds_noise_below_108_db_under_the_waveform(kind, x):
    """Within 4e-6 of the amplitude that a tone as loud as the waveform has in its filter; 2e-6 seen in 400 signals."""
    _, reference, energies, inverse = KINDS[kind]
    got, expected = inverse(output(kind, x.astype(np.float32)).astype(np.float64)), inverse(reference(x))
    tone = energies(np.abs(x).max() * np.cos(np.arange(400) * np.pi / 8), 16000, 80).max()
    assert np.abs(np.sqrt(got) - np.sqrt(expected)).max() <= 4e-6 * np.sqrt(tone) + 1e-9


# Against code nobody here wrote


def test_is_whispers_extractor_padded_to_30_s_or_not():
    rng = np.random.default_rng(0)
    for mels in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=mels)
        for size in (400, 16000, 33333, 480000):
            x = (rng.standard_normal(size) * rng.uniform(0.001, 0.3)).astype(np.float32)
            theirs = extractor(x, sampling_rate=16000, padding="longest", return_tensors="np").input_features[0].T
            np.testing.assert_allclose(output("whisper", x, mels=mels), theirs, atol=5e-5)
            theirs = extractor(x, sampling_rate=16000, return_tensors="np").input_features[0].T
            padded = np.pad(x, (0, 480000 - size))
            np.testing.assert_allclose(output("whisper", padded, mels=mels), theirs, atol=5e-5)


def speech_to_text(x):
    extractor = Speech2TextFeatureExtractor(do_ceptral_normalize=False)
    return extractor(x, sampling_rate=16000, return_tensors="np").input_features[0]


def transformers_fbank(x, mels=80):
    filters = mel_filter_bank(257, mels, 20.0, 8000.0, 16000, None, "kaldi", triangularize_in_mel_space=True)
    return spectrogram(
        x,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T


def test_is_transformers_kaldi_filter_bank():
    rng = np.random.default_rng(0)
    for size in (400, 559, 560, 20000):
        x = (rng.standard_normal(size) * rng.uniform(0.001, 0.3) + 0.1).astype(np.float32)
        np.testing.assert_allclose(output("kaldi", x), transformers_fbank(x.astype(np.float64)), atol=1e-3)
        np.testing.assert_allclose(output("kaldi", x * 2**15), speech_to_text(x), atol=1e-3)


def recordings(path):
    """Every 50th recording of an archive, in -1..1."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".wav"))[::50]:
            with wave.open(io.BytesIO(archive.read(name))) as recording:
                yield np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(np.float32) / 2**15


@pytest.mark.parametrize("speaker", ["george", "yweweler"])
def test_speech_as_transformers_hears_it(shared, speaker):
    if not (shared / "data" / "fsdd").is_dir():
        pytest.skip("needs ../shared/data/fsdd: spoken digits")
    for x in recordings(shared / "data" / "fsdd" / f"{speaker}.zip"):
        # At 8 kHz, but taken as 16 kHz: only that both do the same matters here.
        extractor = WhisperFeatureExtractor()
        theirs = extractor(x, sampling_rate=16000, padding="longest", return_tensors="np").input_features[0].T
        np.testing.assert_allclose(output("whisper", x), theirs, atol=1e-3)
        np.testing.assert_allclose(output("kaldi", x), transformers_fbank(x.astype(np.float64)), atol=1e-3)


# Rows of different lengths


@kinds
@settings(max_examples=20)
@given(data=st.data())
def test_a_padded_row_is_the_row_alone(kind, data):
    lengths = data.draw(st.lists(st.integers(400, 3000), min_size=1, max_size=4))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    scales = 10.0 ** torch.randint(-4, 1, (len(lengths), 1))  # a row's floor is its own
    x = torch.randn(len(lengths), max(lengths) + data.draw(st.integers(0, 500)), dtype=torch.float64) * scales
    x[:, : data.draw(st.integers(0, 900))] = 0  # silence stands at the floor
    mask = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    x = x.masked_fill(~mask, data.draw(st.sampled_from([0.0, 1e6, math.nan])))
    module = build(kind, dtype=torch.float64)
    outputs, masks = module(x, mask)
    for row, length in enumerate(lengths):
        alone, whole = module(x[row : row + 1, :length])
        assert whole.all()
        frames = alone.shape[1]
        assert masks[row].tolist() == [True] * frames + [False] * (masks.shape[1] - frames)
        torch.testing.assert_close(outputs[row, :frames], alone[0], rtol=1e-9, atol=1e-9)


@kinds
def test_a_row_in_which_nothing_counts_gives_numbers_and_disturbs_no_other(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 2000)
    outputs, masks = build(kind)(x, torch.tensor([[True], [False]]).expand(2, 2000))
    assert outputs.isfinite().all()
    assert masks[0].all()
    assert not masks[1].any()
    torch.testing.assert_close(outputs[:1], build(kind)(x[:1]).output)


# Precision, and refusals


@kinds
def test_autocast_does_not_coarsen_it(kind):
    torch.manual_seed(0)
    x = torch.randn(1, 3000)
    with torch.autocast("cpu", torch.bfloat16):
        found = build(kind)(x).output
    assert torch.equal(found, build(kind)(x).output)


@kinds
def test_buffers_are_kept_and_nothing_is_learned(kind):
    module = build(kind)
    assert set(module.state_dict()) == {"kernel", "filters"}
    assert not list(module.parameters())


@pytest.mark.parametrize(("kind", "least"), [("whisper", 160), ("kaldi", 400)])
def test_too_few_samples_are_refused(kind, least):
    assert build(kind)(torch.randn(2, least)).output.shape[1] == 1
    with pytest.raises(ValueError, match=f"at least {least} samples are needed, but there are {least - 1}"):
        build(kind)(torch.randn(2, least - 1))
