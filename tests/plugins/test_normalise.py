import math

import numpy as np
import torch
from transformers import Speech2TextFeatureExtractor, Wav2Vec2FeatureExtractor

from atinuke.plugins.normalise import Normalise


def test_is_speech_to_texts_normalisation_of_every_mel():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((30, 8)) * 3 + 5).astype(np.float32)
    theirs = Speech2TextFeatureExtractor.utterance_cmvn(x, 20)
    ours = Normalise()(torch.from_numpy(x)[None], torch.arange(30)[None] < 20)[0]
    np.testing.assert_allclose(ours[:20], theirs[:20], atol=1e-5)


def test_is_wav2vecs_normalisation_of_a_waveform():
    rng = np.random.default_rng(0)
    rows = [(rng.standard_normal(size) * 0.01 + 0.2).astype(np.float32) for size in (300, 200)]
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    theirs = extractor(rows, sampling_rate=16000, padding=True, return_tensors="np")
    x = torch.tensor(np.stack([np.pad(row, (0, 300 - len(row)), constant_values=9) for row in rows]))
    ours = Normalise()(x, torch.from_numpy(theirs.attention_mask).bool())
    np.testing.assert_allclose(ours, theirs.input_values, atol=2e-5)


def test_what_is_masked_has_no_influence_and_becomes_zero():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[5], [9]])
    found = Normalise()(x.masked_fill(~mask[..., None], math.nan), mask)
    torch.testing.assert_close(found[:1, :5], Normalise()(x[:1, :5]), rtol=1e-12, atol=1e-12)
    assert (found[0, 5:] == 0).all()


def test_silence_and_nothing_stay_zero():
    assert (Normalise()(torch.full((1, 50, 2), 0.3)).abs() < 1e-3).all()
    assert (Normalise()(torch.randn(1, 5, 2), torch.zeros(1, 5, dtype=torch.bool)) == 0).all()


def test_half_precision_does_not_overflow():
    x = torch.full((1, 3000, 1), 300.0, dtype=torch.float16)
    x[:, ::2] = -300
    torch.testing.assert_close(Normalise()(x), x / 300)
