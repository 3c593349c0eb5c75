"""The Atinuke graph against an independent reading of A(X) = O( (+)_l F_l( H( P_l( E(X) ) ) ) ) in float64 NumPy.

Nothing of the package computes the expectation: the weights are taken out by name and put through the formulas of the
paper (arXiv:2401.16736), of attention (Vaswani et al., 2017), of layer normalisation (Ba et al., 2016) and of GELU.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atinuke.compile.front import open_graph
from atinuke.compile.module import build

Array = NDArray[np.float64]


def vaswani(length: int, d_model: int, base: float = 10000.0, phase: float = 0.0) -> Array:
    """PE[t, 2k] = sin(t / base^(2k/d)), PE[t, 2k+1] = cos(the same), each turned by `phase`."""
    table = np.zeros((length, d_model))
    for t in range(length):
        for channel in range(d_model):
            angle = t / base ** (2 * (channel // 2) / d_model) + phase
            table[t, channel] = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
    return table


def norm(x: Array, weight: Array, bias: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def attention(x: Array, weights: dict[str, Array], heads: int) -> Array:
    """Multi-head attention of each position to itself and those before it, one head and one query at a time."""
    length, d_model = x.shape
    size = d_model // heads
    query, key, value = np.split(x @ weights["qkv.weight"].T + weights["qkv.bias"], 3, axis=-1)
    result = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            scores = np.array([query[i, part] @ key[j, part] / math.sqrt(size) for j in range(i + 1)])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            result[i, part] = sum(shares[j] * value[j, part] for j in range(i + 1))
    return result @ weights["output.weight"].T + weights["output.bias"]


GELU = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def atinuke(ids: NDArray[np.int64], weights: dict[str, Array], heads: int, layers: int, turns: float) -> Array:
    """The logits [sequence, vocabulary] of one text."""

    def part(prefix: str) -> dict[str, Array]:
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    x = weights["E.weight"][ids] * math.sqrt(weights["E.weight"].shape[1])
    for layer in range(layers):
        own = part(f"stack.{layer}.")
        p = x + vaswani(len(ids), x.shape[1], phase=2 * math.pi * turns * layer / layers)
        x = p + attention(norm(p, own["norm1.weight"], own["norm1.bias"]), part(f"stack.{layer}.H."), heads)
        inner = norm(x, own["norm2.weight"], own["norm2.bias"])
        names = sorted(name for name in own if name.startswith("F.") and name.endswith("weight"))
        up, down = (
            names if own[names[0]].shape[1] == x.shape[1] and own[names[0]].shape[0] >= x.shape[1] else names[::-1]
        )
        inner = GELU(inner @ own[up].T + own[up.replace("weight", "bias")])
        x = x + inner @ own[down].T + own[down.replace("weight", "bias")]
    return norm(x, weights["norm.weight"], weights["norm.bias"]) @ weights["O.weight"].T


@settings(max_examples=20, deadline=None)
@given(
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 4).map(lambda n: 2 * n),
    layers=st.integers(1, 3),
    widen=st.integers(2, 4),
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    turns=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_the_graph_is_the_papers_formula(
    heads: int, head_dim: int, layers: int, widen: int, batch: int, length: int, turns: float, seed: int
) -> None:
    d_model, vocabulary = heads * head_dim, 17
    sets = [
        f"d_model={d_model}",
        f"heads={heads}",
        f"layers={layers}",
        f"d_ff={widen}*d_model",
        f"vocab_size={vocabulary}",
    ]
    checked = open_graph("atinuke", sets, [f"layer.P=position.layerwise(turns={turns})"])
    torch.manual_seed(seed)
    model = build(checked, dtype=torch.float64).eval()
    for parameter in model.parameters():  # fresh gains are 1 and biases 0, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    ids = torch.randint(0, vocabulary, (batch, length))
    weights = {name: value.numpy() for name, value in model.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        logits = model(ids).logits.numpy()
    for row in range(batch):
        expected = atinuke(ids[row].numpy(), weights, heads, layers, turns)
        assert np.abs(logits[row] - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize(
    "variant",
    [
        "position.sinusoidal",
        "position.layerwise(turns=0)",
        "position.layerwise(turns=0, growth=1)",
        "position.layerwise(turns=0, gain=true)",
        "position.layerwise(turns=0, growth=1, gain=true)",
    ],
)
@settings(max_examples=10, deadline=None)
@given(d_model=st.integers(1, 24), length=st.integers(1, 40), layer=st.integers(0, 5))
def test_every_variant_at_its_neutral_setting_is_vaswanis_encoding(
    variant: str, d_model: int, length: int, layer: int
) -> None:
    from atinuke.core.override import override
    from atinuke.core.spec import loads

    text = f"""
atinuke: 1
dims: {{d_model: {d_model}, layer: {layer}, layers: 6}}
axes: {{batch: 1..4, sequence: 1..64}}
inputs: {{x: "float[batch, sequence, d_model]"}}
nodes: {{P: {{use: identity, in: x}}}}
outputs: {{y: P}}
"""
    from atinuke.compile.front import check_graph

    model = build(check_graph(override(loads(text), swaps=[f"P={variant}"])), dtype=torch.float64)
    x = torch.randn(2, length, d_model, dtype=torch.float64)
    with torch.no_grad():
        added = (model(x).y - x).numpy()
    assert np.abs(added - vaswani(length, d_model)).max() < 1e-12


def test_each_variant_away_from_neutral_is_its_own_formula() -> None:
    """`turns` is a phase of 2 pi turns l/L; `growth` a base of base * growth^(l/L)."""
    from atinuke.plugins.position import LayerwisePosition

    x = torch.zeros(1, 30, 12, dtype=torch.float64)
    for layer in range(4):
        turned = LayerwisePosition(12, layer, 4, turns=1.0)(x)[0].numpy()
        assert np.abs(turned - vaswani(30, 12, phase=2 * math.pi * layer / 4)).max() < 1e-12
        grown = LayerwisePosition(12, layer, 4, turns=0.0, growth=8.0)(x)[0].numpy()
        assert np.abs(grown - vaswani(30, 12, base=10000 * 8 ** (layer / 4))).max() < 1e-12
