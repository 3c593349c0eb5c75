"""Every registered built-in keeps every law; a new one is covered as soon as it is registered."""

import pytest

from atinuke.core.registry import Registry
from atinuke.testing import LAWS, run_laws

# Where a law must say something, so that none is kept by being passed over.
STEPPED = {
    "position.sinusoidal",
    "position.layerwise",
    "position.learned",
    "position.rotary",
    "attention.self",
    "attention.wide",
    "attention.cross",
    "attention.prefix",
}
SOUND = {f"audio.{name}" for name in ("logmel", "fbank", "normalise", "specaugment", "frames", "patches", "waveform")}
FUSED = {"fusion.concat", "fusion.gate", "fusion.late", "fusion.resampler", "pool.mean", "pool.first", "pool.attention"}
SIGHT = {"vision.normalise", "vision.resize", "vision.patches", "vision.stem", "flatten.grid"}
GRIDS = {"position.grid_learned", "position.grid_sinusoidal"}
TEXT = {"text.embedding", "text.segments", "text.bytes", "position.ids", "token.class"}
PAIRS = {"loss.regression", "loss.contrastive", "loss.sigmoid_contrastive", "loss.ctc"}
APPLIES = {
    **dict.fromkeys(("step", "compile_step", "export_step", "onnx_step"), STEPPED),
    "causal": {"attention.self", "attention.wide"},
    "padding": {"attention.self", "attention.wide", "attention.cross", "attention.prefix", "text.bytes"}
    | SOUND
    | FUSED
    | PAIRS,
    "limits": {"position.learned"},
    "rows": STEPPED
    | SIGHT
    | GRIDS
    | TEXT
    | FUSED
    | {"span.vectors", "span.best", "head.antecedents"}
    | {"feedforward.experts", "norm.layer", "add", "concat", "head.vocabulary", "fusion.tag", "fusion.dropout"},
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", Registry().components())
def test_law(name, law):
    (result,) = run_laws(name, laws=[law])
    if result.error is not None:
        raise result.error
    if result.status != "passed":
        assert name not in APPLIES.get(law, ()), result.reason
        pytest.skip(result.reason)
