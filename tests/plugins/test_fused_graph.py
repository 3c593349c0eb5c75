"""Whole graphs of several modalities: checked, built, and true to their masks."""

import pytest
import torch

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.spec import loads

TRIMODAL = """
atinuke: 1
dims: {d_model: 8, heads: 2, classes: 5}
axes: {batch: 1..8, sound: 1..32, sight: 1..32, text: 1..32}
inputs:
  sound: "float[batch, sound, 6]"
  sight: "float[batch, sight, d_model]"
  text: "float[batch, text, d_model]"
  sound_mask: "bool[batch, sound]"
  sight_mask: "bool[batch, sight]"
  text_mask: "bool[batch, text]"
  labels: "int64[batch]"
nodes:
  heard:
    use: fusion.resampler
    in: [sound, sound_mask]
    with: {d_model: $d_model, memory_dim: 6, latents: 3, heads: $heads}
  drop: {use: fusion.dropout, in: [sight_mask, text_mask], with: {rate: 0.5}}
  sound_tag: {use: fusion.tag, in: heard, with: {d_model: $d_model}}
  sight_tag: {use: fusion.tag, in: sight, with: {d_model: $d_model}}
  text_tag: {use: fusion.tag, in: text, with: {d_model: $d_model}}
  two: {use: fusion.concat, in: [sight_tag, text_tag, drop, drop.second_mask]}
  all: {use: fusion.concat, in: [two, sound_tag, two.mask, heard.mask]}
  H:
    use: attention.self
    in: {x: all, attention_mask: all.mask}
    with: {d_model: $d_model, heads: $heads, causal: false}
  add: {use: add, in: [all, H]}
  pool: {use: pool.mean, in: [add, all.mask]}
  scores: {use: head.classification, in: pool, with: {d_model: $d_model, classes: $classes}}
  sees: {use: pool.mean, in: [sight, sight_mask]}
  reads: {use: pool.attention, in: [text, text_mask], with: {d_model: $d_model}}
  late: {use: fusion.late, in: {first: sees, second: reads, first_mask: sees.mask, second_mask: reads.mask}}
  late_scores: {use: head.classification, in: late, with: {d_model: $d_model, classes: $classes}}
  see: {use: head.projection, in: sees, with: {d_model: $d_model, projection_dim: 4}}
  read: {use: head.projection, in: reads, with: {d_model: $d_model, projection_dim: 4}}
  sort: {use: loss.cross_entropy, in: [scores, labels], with: {classes: $classes, smoothing: 0.1}}
  pairs: {use: loss.contrastive, in: [see, read]}
outputs: {scores: scores, late_scores: late_scores, class_loss: sort, pair_loss: pairs}
"""

TRANSLATION = """
atinuke: 1
dims: {d_model: 8, heads: 2, layers: 2, vocab_size: 16}
axes: {batch: 1..8, sequence: 1..16, memory: 1..16}
inputs:
  input_ids: "int64[batch, sequence]"
  memory: "float[batch, memory, 6]"
  mask: "bool[batch, memory]"
blocks:
  layer:
    inputs: {x: "float[batch, sequence, d_model]", memory: "float[batch, memory, 6]", mask: "bool[batch, memory]"}
    nodes:
      H: {use: attention.self, in: x, with: {d_model: $d_model, heads: $heads}}
      add1: {use: add, in: [x, H]}
      C: {use: attention.cross, in: [add1, memory, mask], with: {d_model: $d_model, memory_dim: 6, heads: $heads}}
      add2: {use: add, in: [add1, C]}
    outputs: add2
nodes:
  E: {use: text.embedding, in: input_ids, with: {vocab_size: $vocab_size, d_model: $d_model}}
  stack: {use: layer, repeat: $layers, in: [E, memory, mask]}
  O: {use: head.vocabulary, in: stack, with: {d_model: $d_model, vocab_size: $vocab_size}}
outputs: {logits: O}
"""

GROWING = """
atinuke: 1
axes: {batch: 1..4, sequence: 1..16}
inputs: {ids: "int64[batch, sequence]"}
nodes:
  E: {use: text.embedding, in: ids, with: {vocab_size: 16, d_model: 8}}
  C: {use: attention.cross, in: [E, E], with: {d_model: 8, memory_dim: 8, heads: 2}}
outputs: {logits: C}
"""


def built(text: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(check_graph(loads(text))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def example(rows: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    widths = {"sound": 6, "sight": 8, "text": 8}
    given = {name: torch.randn(rows, 5 + i, width) for i, (name, width) in enumerate(widths.items())}
    masks = {f"{name}_mask": torch.arange(5 + i) < torch.randint(1, 6, (rows, 1)) for i, name in enumerate(widths)}
    return {**given, **masks, "labels": torch.randint(5, (rows,))}


def test_rows_of_mixed_lengths_equal_the_rows_one_by_one_without_padding():
    model, given = built(TRIMODAL), example()
    whole = model(**given)
    for row in range(4):
        alone = {"labels": given["labels"][row : row + 1]}
        for name in ("sound", "sight", "text"):
            mask = given[f"{name}_mask"][row]
            alone[name], alone[f"{name}_mask"] = given[name][row : row + 1, mask], mask[None, mask]
        found = model(**alone)
        for output in ("scores", "late_scores"):
            torch.testing.assert_close(
                getattr(found, output)[0], getattr(whole, output)[row], rtol=1e-5, atol=1e-5, msg=output
            )


@pytest.mark.parametrize("missing", [["sound"], ["sight"], ["text"], ["sight", "text"], ["sound", "sight"]])
def test_nothing_of_a_missing_modality_counts(missing):
    model, given = built(TRIMODAL), example()
    for name in missing:
        given[f"{name}_mask"] = torch.zeros_like(given[f"{name}_mask"])
    other = dict(given)
    for name in missing:
        other[name] = torch.randn(4, 3, given[name].shape[2])
        other[f"{name}_mask"] = torch.zeros(4, 3, dtype=torch.bool)
    for output in ("scores", "late_scores"):
        expected, got = (getattr(model(**one), output) for one in (given, other))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_it_learns_with_every_modality_sometimes_missing():
    model, given = built(TRIMODAL).train(), example(8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        found = model(**given)
        loss = found.class_loss + found.pair_loss
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_decoder_reads_its_memory_in_every_layer():
    model, ids = built(TRANSLATION), torch.randint(16, (2, 5))
    memory, mask = torch.randn(2, 7, 6), torch.arange(7) < torch.tensor([[7], [3]])
    logits = model(ids, memory, mask).logits
    torch.testing.assert_close(model(ids[1:], memory[1:, :3], mask[1:, :3]).logits, logits[1:], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model.stack[0].C.output.weight.zero_()
    assert (model(ids, memory, mask).logits - logits).abs().max() > 1e-2


def test_a_memory_that_grows_with_the_text_is_not_stepped():
    assert not hasattr(built(GROWING), "step")
