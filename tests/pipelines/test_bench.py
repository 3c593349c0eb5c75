"""Eager against compiled, and the work in programs."""

import pytest
import torch

from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import bench
from atinuke.pipelines.bench import bench_model, works
from atinuke.runtime.bench import FORWARD
from atinuke.runtime.limits import Limits

SMALL = ("d_model=16", "heads=2", "layers=2", "vocab_size=31", "dropout=0")


def test_the_work_in_a_decoder_is_that_of_its_matrices() -> None:
    """A step of one token multiplies each weight of a linear layer once, and reads no row of an embedding; attention
    adds two products with the cache."""
    checked = open_graph("llama", ["d_model=16", "heads=2", "kv_heads=1", "layers=2", "vocab_size=31"])
    model = build(checked)
    linear = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear))
    head = sum(one.numel() for name, one in model.named_parameters() if name.startswith("O."))
    sizes = {"batch": 3, "sequence": 5, "capacity": 8}
    found = works(checked, sizes)
    attention = 2 * 2 * 2 * 8 * 16  # two layers, two products, 2 FLOPs, 8 positions of 16 numbers
    assert found["decode"].flops == 3 * (2 * (linear or head) + attention)
    assert found["decode"].weights == found["prefill"].weights == linear
    assert found["prefill"].flops > 2 * found["decode"].flops


def test_work_counts_encoder_and_steps_of_an_encoder_decoder() -> None:
    checked = open_graph("encoder-decoder", [*SMALL, "decoder_layers=1"])
    found = works(checked, {"batch": 1, "source": 7, "sequence": 4, "capacity": 8})
    assert list(found) == ["prepare", "prefill", "decode"]
    twice = works(checked, {"batch": 2, "source": 7, "sequence": 4, "capacity": 8})
    for name, work in found.items():
        assert 0 < work.weights == twice[name].weights
        assert 2 * work.flops == twice[name].flops


@pytest.mark.parametrize(
    ("at", "told"), [({"sequence": 5000}, "axis `sequence` must be"), ({"words": 3}, "no axis `words`")]
)
def test_a_size_outside_the_graph_is_refused(at: dict[str, int], told: str) -> None:
    checked = open_graph("gpt2", SMALL)
    with pytest.raises(AtinukeError, match=told):
        bench_model("gpt2", checked, build(checked), at)


@pytest.mark.slow
def test_eager_and_compiled_are_timed_at_both_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda threads: Limits(threads, 1e9, 1e9))
    checked = open_graph("gpt2", [*SMALL, "layers=1"])
    report = bench_model("gpt2", checked, build(checked), {"batch": 2, "sequence": 6}, rounds=2)
    assert [(one.way, one.task) for one in report.figures] == [
        (way, task) for task in (FORWARD, "decode") for way in ("eager", "compiled")
    ]
    assert report.sizes == {"batch": 2, "sequence": 6}
    assert all(one.difference < 1e-4 for one in report.figures)
    assert report.figures[0].limit
