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
    return st.fixed_dictionaries({"d_model": widths, "vocab_size": vocabularies})


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
    return st.fixed_dictionaries({"head_dim": st.integers(1, 8).map(lambda half: 2 * half)})


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
