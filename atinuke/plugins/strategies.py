"""Hypothesis strategies of settings that go together, small enough for laws to run in milliseconds.

Vocabularies have at least 16 tokens, so that integers from 0 to 15 are always tokens.
"""

from typing import Any

from hypothesis import strategies as st

Settings = st.SearchStrategy[dict[str, Any]]

widths = st.integers(1, 24)
vocabularies = st.integers(16, 40)


def text_embedding() -> Settings:
    scales = st.floats(0.5, 8.0)
    return st.fixed_dictionaries({"vocab_size": vocabularies, "d_model": widths}, optional={"scale": scales})


def vocabulary() -> Settings:
    return st.fixed_dictionaries({"d_model": widths, "vocab_size": vocabularies, "offset": st.booleans()})


def vocabulary_loss() -> Settings:
    shares = st.sampled_from([0.0, 0.1])
    given = {"d_model": widths, "vocab_size": vocabularies, "smoothing": shares, "offset": st.booleans()}
    return st.fixed_dictionaries(given)


@st.composite
def layerwise(draw: st.DrawFn) -> dict[str, Any]:
    layers = draw(st.integers(1, 6))
    return {
        "d_model": draw(widths),
        "layer": draw(st.integers(0, layers - 1)),
        "layers": layers,
        "turns": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "growth": draw(st.sampled_from([0.5, 1.0, 4.0])),
        "gain": draw(st.booleans()),
    }


def rotary() -> Settings:
    optional = {
        "factor": st.floats(0.5, 8.0),
        "stretch": st.sampled_from(["all", "long"]),
        "length": st.integers(1, 64),
    }
    return st.fixed_dictionaries({"head_dim": st.integers(1, 8).map(lambda half: 2 * half)}, optional=optional)


def counted() -> Settings:
    return st.fixed_dictionaries({"padding": st.integers(0, 15)})


@st.composite
def self_attention(draw: st.DrawFn) -> dict[str, Any]:
    """Head sizes are even, so that the rotation port can be used."""
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    return {
        "d_model": heads * 2 * draw(st.integers(1, 4)),
        "heads": heads,
        "kv_heads": draw(st.sampled_from([kv_heads, None])),
        "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 6)),
        "dropout": draw(st.sampled_from([0.0, 0.1])),
        "bias": draw(st.booleans()),
        "learned_prefix": draw(st.sampled_from([0, 0, 3])),
    }


@st.composite
def wide_attention(draw: st.DrawFn) -> dict[str, Any]:
    return {**draw(self_attention()), "head_dim": draw(st.sampled_from([2, 4, 6]))}


@st.composite
def prefix_attention(draw: st.DrawFn) -> dict[str, Any]:
    settings: dict[str, Any] = draw(self_attention())
    return {name: value for name, value in settings.items() if name not in ("causal", "window", "learned_prefix")}


@st.composite
def relative_position(draw: st.DrawFn) -> dict[str, Any]:
    buckets = draw(st.integers(4, 12))
    return {
        "heads": draw(st.integers(1, 4)),
        "buckets": buckets,
        "reach": buckets + draw(st.integers(0, 8)),
        "causal": draw(st.booleans()),
    }


@st.composite
def relative_attention(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "d_model": draw(widths),
        "heads": draw(st.integers(1, 3)),
        "head_dim": draw(st.integers(1, 6)),
        "causal": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.1])),
    }


@st.composite
def experts(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 5))
    return {
        "d_model": draw(widths),
        "d_ff": draw(widths),
        "experts": count,
        "top_k": draw(st.integers(1, count)),
    }


def dropout() -> Settings:
    return st.fixed_dictionaries({"rate": st.sampled_from([0.0, 0.1, 0.5])})


def mel_spectrogram() -> Settings:
    """Low rates: a second at 16 kHz is long to compile for."""
    return st.fixed_dictionaries({"mels": st.integers(1, 8), "rate": st.sampled_from([200, 410, 800, 1200])})


@st.composite
def filter_bank(draw: st.DrawFn) -> dict[str, Any]:
    settings: dict[str, Any] = draw(mel_spectrogram())
    return {**settings, "shape": draw(st.sampled_from(["povey", "hann"]))}


def specaugment() -> Settings:
    counts, widths = st.integers(0, 3), st.integers(0, 12)
    return st.fixed_dictionaries(
        {
            "frequency_masks": counts,
            "frequency_width": widths,
            "time_masks": counts,
            "time_width": widths,
            "time_share": st.sampled_from([0.0, 0.2, 0.5, 1.0]),
        }
    )


def audio_frames() -> Settings:
    return st.fixed_dictionaries({"mels": st.integers(1, 8), "d_model": widths, "stride": st.integers(1, 3)})


@st.composite
def audio_patches(draw: st.DrawFn) -> dict[str, Any]:
    patch = draw(st.integers(1, 5))
    return {
        "mels": patch + draw(st.integers(0, 7)),
        "d_model": draw(widths),
        "patch": patch,
        "stride": draw(st.integers(1, patch)),
    }


def audio_waveform() -> Settings:
    return st.fixed_dictionaries({"d_model": widths, "channels": st.integers(2, 8)})


@st.composite
def cross_attention(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {
        "d_model": heads * draw(st.integers(1, 6)),
        "memory_dim": draw(widths),
        "heads": heads,
        "dropout": draw(st.sampled_from([0.0, 0.1])),
        "bias": draw(st.booleans()),
        "head_dim": draw(st.none() | st.integers(1, 6)),
        "scaled": draw(st.booleans()),
    }


@st.composite
def resampler(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {
        "d_model": heads * draw(st.integers(1, 6)),
        "memory_dim": draw(widths),
        "latents": draw(st.integers(1, 5)),
        "heads": heads,
        "dropout": draw(st.sampled_from([0.0, 0.1])),
    }


@st.composite
def attention_pool(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {"d_model": heads * draw(st.integers(1, 6)), "heads": heads, "dropout": draw(st.sampled_from([0.0, 0.1]))}


def modality_dropout() -> Settings:
    return st.fixed_dictionaries({"rate": st.sampled_from([0.0, 0.1, 1.0])})


@st.composite
def ctc(draw: st.DrawFn) -> dict[str, Any]:
    """The blank is the last class, so that integers below the smallest setting are labels."""
    classes = draw(st.integers(2, 8))
    return {"classes": classes, "blank": classes - 1}


@st.composite
def normalise(draw: st.DrawFn) -> dict[str, Any]:
    channels = draw(st.integers(1, 4))
    means, deviations = st.floats(-1.0, 1.0), st.floats(0.2, 2.0)
    return {
        "channels": channels,
        "mean": draw(means | st.lists(means, min_size=channels, max_size=channels)),
        "std": draw(deviations | st.lists(deviations, min_size=channels, max_size=channels)),
    }


def augment() -> Settings:
    shares = st.sampled_from([0.0, 0.5, 1.0])
    return st.fixed_dictionaries({"flip": shares, "shift": st.integers(0, 3), "erase": shares})


def patches() -> Settings:
    small = st.integers(1, 4)
    return st.fixed_dictionaries({"d_model": widths, "patch": small, "channels": small, "bias": st.booleans()})


def stem() -> Settings:
    return st.fixed_dictionaries(
        {"d_model": widths, "layers": st.integers(1, 2), "filters": widths, "channels": st.integers(1, 4)}
    )


def grid_sinusoidal() -> Settings:
    return st.fixed_dictionaries({"d_model": st.integers(1, 6).map(lambda quarter: 4 * quarter)})


def position_ids() -> Settings:
    return st.fixed_dictionaries({"d_model": widths, "length": vocabularies})


def text_bytes() -> Settings:
    return st.fixed_dictionaries({"d_model": widths, "patch": st.integers(1, 4), "specials": st.integers(0, 4)})


def span_vectors() -> Settings:
    """No setting is below 4, so that integers below the smallest make spans."""
    small = st.integers(4, 8)
    return st.fixed_dictionaries({"d_model": small, "d_span": small, "lengths": small})


def span_best() -> Settings:
    return st.fixed_dictionaries({"keep": st.integers(2, 8)})


def antecedents() -> Settings:
    small = st.integers(3, 8)
    return st.fixed_dictionaries({"d_span": small, "d_hidden": small, "dropout": st.sampled_from([0.0, 0.1])})
