"""In every shipped graph a batch of rows of different lengths gives each row what it gives alone, and what a row lacks
counts as if the graph had no such sense."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from atinuke import graphs
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.core.graph import Graph, Wire, frozen
from atinuke.pipelines.part import part

SMALL = ("d_model=16", "heads=2", "dropout=0.3")
WORDS = "vocab_size=31"
SOUND = ("rate=8000", "mels=12", "classes=5")
LENGTHS = (7, 3, 1, 12)
SAMPLES = (2400, 1601, 4000, 2399)


@dataclass(frozen=True)
class Case:
    """A small form of a graph; `padded` has the mask of each input that is padded (None: it needs none)."""

    sets: tuple[str, ...]
    padded: Mapping[str, str | None]
    swaps: tuple[str, ...] = ()
    settled: tuple[str, ...] = ("logits",)
    """The outputs whose positions stand where they stand in the row alone."""
    whole: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The sizes of inputs that all rows have in full."""


TEXT = Case((*SMALL, WORDS, "layers=2"), {"input_ids": None})
SEEN = {"pixel_values": (1, 16, 16)}
CASES = {
    "atinuke": TEXT,
    "gpt2": TEXT,
    "llama": Case(("d_model=16", "heads=2", WORDS, "layers=2", "kv_heads=1"), {"input_ids": None}),
    "experts": Case(("d_model=16", "heads=2", WORDS, "layers=2"), {"input_ids": None}),
    "vit": Case((*SMALL, "layers=2", "channels=1", "patch=4", "rows=4", "columns=4"), {}, whole=SEEN),
    **dict.fromkeys(
        ("bert", "roberta"),
        Case(
            (*SMALL, WORDS, "layers=2", "segments=2"),
            {"input_ids": "attention_mask", "segment_ids": "attention_mask"},
            settled=("logits", "last_hidden_state"),
        ),
    ),
    "distilbert": Case(
        (*SMALL, WORDS, "layers=2"), {"input_ids": "attention_mask"}, settled=("logits", "last_hidden_state")
    ),
    "encoder": Case(
        (*SMALL, WORDS, "layers=2"),
        {"input_ids": "attention_mask", "segment_ids": "attention_mask"},
        settled=("logits", "last_hidden_state"),
    ),
    "encoder-decoder": Case(
        (*SMALL, WORDS, "layers=2", "decoder_layers=2"), {"source_ids": "source_mask", "input_ids": None}
    ),
    "t5": Case(
        ("d_model=16", "heads=2", "head_dim=6", "d_ff=20", "buckets=8", "reach=5", WORDS, "layers=2"),
        {"source_ids": "source_mask", "input_ids": None},
    ),
    "whisper": Case(
        (*SMALL, WORDS, "mels=12", "frames=20", "samples=160..6400", "layers=1"),
        {"input_values": "sample_mask", "input_ids": None},
    ),
    "ast": Case(
        (*SMALL, "mels=12", "classes=5", "frames=30", "samples=400..5040", "patch=4", "stride=3", "layers=2"),
        {"input_values": "sample_mask"},
        settled=("logits", "last_hidden_state"),
    ),
    "audio-encoder": Case(
        (*SMALL, *SOUND, "layers=2"), {"input_values": "sample_mask"}, settled=("logits", "last_hidden_state")
    ),
    "audio-ctc": Case((*SMALL, *SOUND, "layers=2"), {"input_values": "sample_mask"}, settled=("logits", "mask")),
    "clip": Case(
        (*SMALL, WORDS, "vision_layers=1", "text_layers=2", "channels=1", "patch=4", "rows=4", "columns=4"),
        {"input_ids": "attention_mask"},
        settled=("image_embeds", "text_embeds"),
        whole=SEEN,
    ),
    "clip-openai": Case(
        (
            *("text_width=16", "text_heads=2", "text_layers=2", "end=30", "length=16", "sequence=1..16", WORDS),
            *("vision_width=24", "vision_heads=3", "vision_layers=1", "patch=4", "rows=4", "columns=4"),
        ),
        {"input_ids": "attention_mask"},
        settled=("image_embeds", "text_embeds"),
        whole={"pixel_values": (3, 16, 16)},
    ),
    "senses": Case((*SMALL, WORDS, "layers=2"), {"input_ids": "text_mask"}),
    "senses, hearing": Case((*SMALL, *SOUND), {"input_values": "sample_mask"}, ("sense=hears",)),
    "senses, seeing": Case((*SMALL, "channels=1", "patch=4"), {}, ("sense=sees",), whole=SEEN),
    "trimodal": Case(
        (*SMALL, *SOUND, WORDS, "layers=2", "channels=1", "patch=4"),
        {"input_values": "sample_mask", "input_ids": "text_mask"},
        whole={**SEEN, "pixel_mask": ()},
    ),
}


def rows_of(case: Case) -> list[dict[str, Tensor]]:
    """Each row alone, as a batch of one."""
    torch.manual_seed(0)
    found: list[dict[str, Tensor]] = [{} for _ in LENGTHS]
    for row, length, samples in zip(found, LENGTHS, SAMPLES, strict=True):
        for name, mask in case.padded.items():
            if name == "input_values":
                row[name] = torch.randn(1, samples)
            else:
                row[name] = torch.randint(2 if name == "segment_ids" else 31, (1, length))
            if mask:
                row[mask] = torch.ones(row[name].shape, dtype=torch.bool)
        for name, shape in case.whole.items():
            high, dtype = (2, torch.bool) if name.endswith("mask") else (256, torch.uint8)
            row[name] = torch.randint(high, (1, *shape)).to(dtype)
    return found


def together(rows: list[dict[str, Tensor]], case: Case) -> dict[str, Tensor]:
    """One batch, padded on the right with what must not count."""
    batch = {}
    for name in rows[0]:
        parts = []
        for row in rows:
            value = row[name]
            if name in case.padded or name in case.padded.values():
                longest = max(other[name].shape[-1] for other in rows) + 2
                filling = torch.ones(1, longest - value.shape[-1]).to(value.dtype)
                filling = filling if name in case.padded else torch.zeros_like(filling)
                value = torch.cat((value, filling), dim=1)
            parts.append(value)
        batch[name] = torch.cat(parts)
    return batch


def model_of(name: str, case: Case) -> nn.Module:
    model = build(open_graph(name.partition(",")[0], case.sets, case.swaps)).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():  # fresh biases are 0, which would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return model


def test_every_shipped_graph_has_a_case() -> None:
    assert {name.partition(",")[0] for name in CASES} == set(graphs.names())


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_batch_gives_each_row_what_it_gives_alone(name: str) -> None:
    case = CASES[name]
    model, rows = model_of(name, case), rows_of(case)
    whole = model(**together(rows, case))
    for number, row in enumerate(rows):
        alone = model(**row)
        for output in case.settled:
            expected = getattr(alone, output)[0]
            got = getattr(whole, output)[number][tuple(map(slice, expected.shape))]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def trimodal_without(sense: str, graph: Graph) -> Graph:
    """The graph in which nothing of one sense is left."""
    senses = {"sound": ("heard", "frames.mask"), "picture": ("seen", "visible"), "text": ("read", "text_mask")}
    first, second = (one for one in senses if one != sense)
    nodes = dict(graph.nodes)
    ports = {"first": senses[first][0], "second": senses[second][0]}
    ports |= {"first_mask": senses[first][1], "second_mask": senses[second][1]}
    wires = {port: Wire(*str(name).split(".")) for port, name in ports.items()}
    nodes["all"] = replace(nodes["all"], inputs=frozen(wires))
    return part(replace(graph, nodes=frozen(nodes)), graph.outputs)


@pytest.mark.parametrize("sense", ["sound", "picture", "text"])
@torch.no_grad()
def test_a_missing_sense_is_as_if_the_graph_had_none(sense: str) -> None:
    case = CASES["trimodal"]
    model, row = model_of("trimodal", case), rows_of(case)[0]
    row["pixel_mask"][:] = True
    hidden = {"sound": "sample_mask", "picture": "pixel_mask", "text": "text_mask"}[sense]
    missing = model(**{**row, hidden: torch.zeros_like(row[hidden])}).logits
    smaller = build(check_graph(trimodal_without(sense, open_graph("trimodal", case.sets).graph))).eval()
    kept = smaller.state_dict().keys()
    assert len(kept) < len(model.state_dict())
    smaller.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in kept})
    inputs = smaller.forward.__code__.co_varnames
    without = smaller(**{name: value for name, value in row.items() if name in inputs}).logits
    torch.testing.assert_close(missing, without, rtol=0, atol=1e-5)
    assert (missing - model(**row).logits).abs().max() > 1e-3
