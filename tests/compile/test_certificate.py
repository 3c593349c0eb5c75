"""Calls and texts of the model against a target."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atinuke.compile.certificate import EagerRunner, Reference, certify
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import programs
from atinuke.runtime.interface import Array
from atinuke.runtime.parity import FAILED, NOT_RUN, PASSED, Build

SETS = ("layers=1", "d_model=16", "heads=2", "vocab_size=31", "batch=1..2", "sequence=1..12")


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    checked = open_graph("gpt2", (*SETS, "length=12"))
    return Reference(checked, programs(checked, build(checked)))


class Forgetful(EagerRunner):
    """Loses what it was to remember; each call alone is right."""

    def step(self, program: str, feeds: dict[str, Array], memory: dict[str, Array]) -> dict[str, Array]:
        before = {name: array.copy() for name, array in memory.items()}
        outputs = super().step(program, feeds, memory)
        memory.update(before)
        return outputs


def test_the_model_is_itself(reference: Reference) -> None:
    calls, texts = certify(reference, EagerRunner(reference.programs), 60)
    assert {call.status(0.0) for call in calls} == {PASSED}
    assert {(call.program, *call.sizes.values()) for call in calls} >= {
        ("prefill", 1, 1, 1), ("prefill", 2, 12, 12), ("prefill", 1, 1, 12), ("decode", 2, 1), ("decode", 2, 12),
    }  # fmt: skip
    assert texts is not None
    assert (texts.first, texts.margin, texts.rows, texts.steps) == (None, 0.0, 2, 4)


def test_what_is_lost_from_call_to_call_is_seen_in_texts(reference: Reference) -> None:
    calls, texts = certify(reference, Forgetful(reference.programs), 60)
    assert {call.status(0.0) for call in calls} == {PASSED}
    assert texts is not None
    assert texts.relative > 1e-3
    assert Build("x", 1e-4, calls, texts).status == FAILED


def test_what_there_is_no_time_or_memory_for_is_not_passed(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = EagerRunner(reference.programs)
    calls, texts = certify(reference, runner, -1)
    assert texts is None
    assert {call.status(1.0) for call in calls} == {NOT_RUN}
    assert "s are left" in (calls[-1].reason or "")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    calls, _ = certify(reference, runner, 60)
    assert {call.status(1.0) for call in calls} == {NOT_RUN}
    assert "GB are free" in (calls[-1].reason or "")


def test_samples_are_kept_as_far_as_there_is_room(reference: Reference) -> None:
    small = Reference(reference.checked, reference.programs, room=3000)
    kept = small.kept["prefill"]
    assert 0 < len(kept) < len(reference.kept["prefill"])
    assert sum(array.nbytes for _, *ways in kept for way in ways for array in way.values()) <= 3000
    for call, feeds, answers in kept:
        again = reference.eager.run(call.program, feeds)
        assert all(np.array_equal(again[name], answers[name]) for name in answers)
