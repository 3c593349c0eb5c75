"""The sampler's laws. The stream is 0, 1, 2, ..., so that a token says where it stands."""

from collections.abc import Callable
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.corpus import prepare
from atinuke.pipelines.sampler import Sampler, in_order
from tests.pipelines.corpora import TEXTS, json_lines, trained

law = settings(deadline=None)
SIZES = st.tuples(st.integers(1, 60), st.integers(1, 12)).filter(lambda sizes: sizes[0] >= sizes[1])  # tokens, context
SEEDS = st.integers(0, 2**32)


def stream(length: int) -> NDArray[np.uint16]:
    return np.arange(length, dtype=np.uint16)


def rows(sampler: Sampler, count: int) -> list[list[int]]:
    """The labels of the next rows of a sampler with batches of one."""
    return [next(sampler)["labels"][0].tolist() for _ in range(count)]


@given(SIZES, st.integers(1, 4), SEEDS)
@law
def test_a_label_is_the_token_after_its_input(sizes: tuple[int, int], batch: int, seed: int) -> None:
    length, context = sizes
    for found in islice(Sampler(stream(length), context, batch, seed), 5):
        assert set(found) == {"input_ids", "labels"}
        for tensor in found.values():
            assert tensor.shape == (batch, context)
            assert tensor.dtype == torch.int64
            assert tensor.is_contiguous()
        assert torch.equal(found["labels"], (found["input_ids"] + 1) % length)
        assert torch.equal(found["input_ids"][:, 1:], found["labels"][:, :-1])


@given(SIZES, SEEDS)
@law
def test_an_epoch_has_every_label_once_but_for_less_than_a_window(sizes: tuple[int, int], seed: int) -> None:
    length, context = sizes
    sampler = Sampler(stream(length), context, 1, seed)
    for epoch in range(3):
        assert sampler.epoch == epoch
        labels = list(chain.from_iterable(rows(sampler, length // context)))
        assert len(set(labels)) == len(labels) == length // context * context > length - context


@given(SIZES, SEEDS, st.integers(0, 30), st.integers(1, 5))
@law
def test_a_resumed_run_goes_on_with_the_same_rows(sizes: tuple[int, int], seed: int, steps: int, batch: int) -> None:
    """Even in batches of another size: the position counts windows."""
    length, context = sizes
    whole = Sampler(stream(length), context, 1, seed)
    rows(whole, steps * batch)
    before = Sampler(stream(length), context, batch, seed)
    for _ in range(steps):
        next(before)
    state = before.state_dict()
    assert all(type(value) is int for value in state.values())
    after = Sampler(stream(length), context, 1, seed)
    after.load_state_dict(state)
    assert rows(after, 20) == rows(whole, 20)


@given(SIZES, SEEDS, st.integers(1, 4), st.integers(1, 3))
@law
def test_processes_share_one_larger_batch(sizes: tuple[int, int], seed: int, world: int, batch: int) -> None:
    length, context = sizes
    together = Sampler(stream(length), context, world * batch, seed)
    apart = [Sampler(stream(length), context, batch, seed, rank, world) for rank in range(world)]
    for _ in range(10):
        shares = [next(sampler) for sampler in apart]
        for name, whole in next(together).items():
            assert torch.equal(torch.cat([share[name] for share in shares]), whole)
    assert {str(sampler.state_dict()) for sampler in apart} == {str(together.state_dict())}


def test_place_and_order_change_with_epoch_and_seed() -> None:
    sampler = Sampler(stream(1003), 10, 1, seed=1)
    first, second = rows(sampler, 100), rows(sampler, 100)
    other = rows(Sampler(stream(1003), 10, 1, seed=2), 100)
    again = rows(Sampler(stream(1003), 10, 1, seed=1), 100)
    assert first == again
    orders = [[row[0] for row in epoch] for epoch in (first, second, other)]
    neighbours = [sum(b == (a + 10) % 1003 for a, b in pairwise(order)) for order in orders]
    assert max(neighbours) < 10
    assert len({order[0] for order in orders}) == 3
    assert len({min(order) % 10 for order in orders}) > 1
    left_over = [set(range(1003)) - set(chain.from_iterable(epoch)) for epoch in (first, second, other)]
    assert all(map(len, left_over))
    assert left_over[0] != left_over[1]


def test_no_step_reads_more_than_its_windows() -> None:
    class Spy:
        most = 0

        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, span: slice) -> NDArray[Any]:
            start, stop, _ = span.indices(10**12)
            self.most = max(self.most, stop - start)
            return np.zeros(stop - start, np.uint16)

    spy = Spy()
    next(Sampler(spy, 10**7, 2))
    next(in_order(spy, 10, 2))
    assert 0 < spy.most <= 10**7 + 1


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 4))
@law
def test_in_order_every_token_is_a_label_once(length: int, context: int, batch: int) -> None:
    batches = list(in_order(stream(length), context, batch))
    labels: list[Tensor] = [found["labels"] for found in batches]
    inputs: list[Tensor] = [found["input_ids"] for found in batches]
    assert all(tensor.shape == (batch, context) for tensor in labels + inputs)
    if not length:
        assert not batches
        return
    flat = torch.cat(labels).flatten()
    assert flat[:length].tolist() == list(range(length))
    assert (flat[length:] == -100).all()
    assert len(flat) - length < batch * context
    before = torch.cat(inputs).flatten()
    assert before[:length].tolist() == [length - 1, *range(length - 1)]
    assert (before[length:] == 0).all()


def test_windows_of_real_shards(tmp_path: Path) -> None:
    for number in range(4):
        json_lines(tmp_path / f"{number}.jsonl", TEXTS[number::4])
    tokens = prepare([tmp_path], trained(), tmp_path / "cache", shard=1).train
    whole = [
        token
        for number in range(4)
        for text in TEXTS[number::4]
        for token in [*trained().encode(text), trained().end_of_text]
    ]
    assert torch.cat([found["labels"] for found in in_order(tokens, 100, 4)]).flatten()[: len(whole)].tolist() == whole
    text = "".join(map(chr, whole * 2))
    for found in islice(Sampler(tokens, 100, 4), 50):
        for row in found["labels"].tolist():
            assert "".join(map(chr, row)) in text


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    return str(caught.value)


def test_too_few_tokens() -> None:
    assert "9 training tokens are too few\n  one window has 10" in failure(lambda: Sampler(stream(9), 10, 1))
    assert rows(Sampler(stream(10), 10, 1), 1)


@pytest.mark.parametrize("change", [{"tokens": 99}, {"context": 5}, {"seed": 3}, {"position": -1}])
def test_a_state_of_something_else(change: dict[str, Any]) -> None:
    sampler = Sampler(stream(100), 10, 1)
    assert "not one in this data" in failure(lambda: sampler.load_state_dict(sampler.state_dict() | change))
    assert "not one in this data" in failure(lambda: sampler.load_state_dict({}))
