"""The laws of batches. Example i is the number i (and noise of its length), so that a batch says who is in it."""

import csv
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.batches import Shuffled, in_order, order
from atinuke.pipelines.examples import Example, Examples, scan
from atinuke.pipelines.fields import Audio, Class, Field, Image, Number, Text, with_classes
from atinuke.pipelines.rows import Listed, Manifest, Row, open_rows
from atinuke.pipelines.sampler import Batch
from tests.pipelines.media import RATE, picture, recording
from tests.pipelines.test_rows import manifest


class Numbers(Examples):
    """Examples that are their own number; `slow` and `broken` are numbers that take long and that fail."""

    def __init__(self, count: int, slow: int | None = None, broken: int | None = None) -> None:
        rows = Listed([Row({"n": number}, f"row {number}", Path()) for number in range(count)], f"{count}")
        super().__init__(
            rows, {"n": Number(column="n")}, None, np.arange(count), {"n": np.ones(count, np.int64)}, (), {}
        )
        self.lengths = np.random.default_rng(count).uniform(0, 2, count)
        self.slow, self.broken = slow, broken

    def __getitem__(self, index: int, /) -> Example:
        if index == self.slow:
            time.sleep(0.05)
        if index == self.broken:
            raise AtinukeError
        return super().__getitem__(index)


def numbers(batches: Iterator[Batch], count: int) -> list[list[int]]:
    return [[int(number) for number in found["n"]] for found in islice(batches, count)]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for found in batches for number in found]


COUNTS, BATCHES, SEEDS = st.integers(1, 60), st.integers(1, 9), st.integers(0, 2**40)


@given(COUNTS, BATCHES, st.integers(1, 3), SEEDS)
def test_an_epoch_has_every_example_once(count: int, batch: int, accumulate: int, seed: int) -> None:
    found = flat(numbers(Shuffled(Numbers(count), batch, accumulate, seed, workers=0), math.ceil(4 * count / batch)))
    for epoch in range(4):
        assert sorted(found[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(COUNTS, BATCHES, SEEDS, st.integers(0, 30), st.sampled_from([0, 2]))
def test_a_resumed_run_goes_on_with_the_same_batches(
    count: int, batch: int, seed: int, steps: int, workers: int
) -> None:
    whole = numbers(Shuffled(Numbers(count), batch, seed=seed, workers=0), steps + 12)
    before = Shuffled(Numbers(count), batch, seed=seed, workers=workers)
    assert numbers(before, steps) == whole[:steps]
    state = before.state_dict()
    assert all(type(value) is int for value in state.values())
    after = Shuffled(Numbers(count), batch, seed=seed, workers=workers)
    numbers(after, 3)  # what was decoded ahead is dropped
    after.load_state_dict(state)
    assert numbers(after, 12) == whole[steps:]
    assert after.epoch == (steps + 12) * batch / count


@given(COUNTS, SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_processes_and_micro_batches_share_one_larger_batch(
    count: int, seed: int, world: int, accumulate: int, batch: int
) -> None:
    together = Shuffled(Numbers(count), world * accumulate * batch, seed=seed, workers=0)
    apart = [Shuffled(Numbers(count), batch, accumulate, seed, rank, world, workers=0) for rank in range(world)]
    for step in numbers(together, 8):
        micro = [[numbers(shuffled, 1)[0] for shuffled in apart] for _ in range(accumulate)]
        assert flat(flat(micro)) == step  # type: ignore[arg-type]
    assert {str(shuffled.state_dict()) for shuffled in [together, *apart]} == {str(together.state_dict())}


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 9))
def test_steps_are_groups_of_similar_length(count: int, group: int, epoch: int) -> None:
    """No two groups of a pool overlap: sorted by their shortest, each ends before the next begins."""
    lengths = np.random.default_rng(count).uniform(0, 1, count)
    found = order(lengths, group, 0, epoch)
    assert sorted(found) == list(range(count))
    begin = -epoch * count % group
    groups = [lengths[found[start : start + group]] for start in range(begin, count - group + 1, group)]
    if len(groups) <= 64:
        groups.sort(key=min)
        for shorter, longer in pairwise(groups):
            assert shorter.max() <= longer.min()


def test_order_and_groups_change_with_epoch_and_seed() -> None:
    lengths = np.random.default_rng(0).uniform(0, 1, 1000)
    orders = [order(lengths, 8, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    groups = [{frozenset(found[start : start + 8]) for start in range(0, 1000, 8)} for found in orders]
    assert len(groups[0] & groups[1]) + len(groups[0] & groups[2]) < 10
    for found in orders:
        by_step = lengths[found].reshape(-1, 8).mean(1)
        assert abs(np.corrcoef(by_step[:-1], by_step[1:])[0, 1]) < 0.3  # steps are not in order of length


def test_sorting_into_groups_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).uniform(0.2, 1, 4096)

    def padding(found: Any) -> float:
        rows = lengths[found].reshape(-1, 16)
        return float(1 - rows.sum() / (rows.max(1) * 16).sum())

    assert padding(np.random.default_rng(1).permutation(4096)) > 0.3
    assert padding(order(lengths, 16, 0, 0)) < 0.05


@given(st.integers(0, 60), BATCHES, st.sampled_from([0, 2]))
def test_in_order_every_example_once(count: int, batch: int, workers: int) -> None:
    found = numbers(in_order(Numbers(count), batch, workers), 99)
    assert flat(found) == list(range(count))
    assert all(len(one) == batch for one in found[:-1])


@pytest.mark.parametrize("workers", [1, 3])
def test_slow_examples_do_not_change_the_order(workers: int) -> None:
    slow = Shuffled(Numbers(50, slow=7), 4, workers=workers)
    assert numbers(slow, 40) == numbers(Shuffled(Numbers(50), 4, workers=0), 40)
    assert 0 < slow.waited < 5
    assert flat(numbers(in_order(Numbers(50, slow=0), 4, workers), 99)) == list(range(50))


def test_what_is_waited_is_what_decoding_takes_and_nothing_where_it_is_ahead() -> None:
    alone = Shuffled(Numbers(1, slow=0), 2, workers=0)
    numbers(alone, 2)
    assert 0.2 <= alone.waited < 2
    ahead = Shuffled(Numbers(1, slow=0), 2, workers=2)
    next(ahead)
    first = ahead.waited
    for _ in range(3):
        time.sleep(0.3)
        next(ahead)
    assert ahead.waited - first < 0.15


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_fails_ends_the_run(workers: int) -> None:
    with pytest.raises(AtinukeError):
        numbers(Shuffled(Numbers(20, broken=11), 4, workers=workers), 5)
    with pytest.raises(AtinukeError):
        numbers(in_order(Numbers(20, broken=11), 4, workers), 5)


@pytest.mark.parametrize("change", [{"examples": 9}, {"data": 1}, {"group": 8}, {"seed": 3}, {"position": -1}])
def test_a_state_of_something_else(change: dict[str, int]) -> None:
    shuffled = Shuffled(Numbers(10), 4, workers=0)
    assert "not one in this data" in failure(lambda: shuffled.load_state_dict(shuffled.state_dict() | change))
    assert "not one in this data" in failure(lambda: shuffled.load_state_dict({}))


FIELDS: dict[str, Field] = {
    "input_values": Audio(column="sound", rate=RATE // 2, mask="sample_mask", optional=True),
    "pixel_values": Image(column="image", size=(5, 5), optional=True),
    "input_ids": Text(column="text", length=20, mask="attention_mask", optional=True),
    "labels": Class(column="label"),
}


@pytest.fixture(scope="module")
def trimodal(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("trimodal")
    values = [
        {
            "sound": recording(folder / f"{number}.flac", number, 200 + 37 * number % 900).name if number % 3 else None,
            "image": picture(folder / f"{number}.png", number).name if number % 4 else None,
            "text": "ọ̀rọ̀"[: 1 + number % 5] if number % 5 else None,
            "label": number % 7,
        }
        for number in range(50)
    ]
    rows = open_rows(Manifest(files=(str(manifest(folder / "all.jsonl", values)),)))
    return scan(rows, with_classes(FIELDS, rows))


def equal(first: Batch, second: Batch) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_threads_change_no_bit_and_neither_does_resuming(trimodal: Examples) -> None:
    plain, threads = Shuffled(trimodal, 8, seed=3, workers=0), Shuffled(trimodal, 8, seed=3, workers=3)
    whole = list(islice(plain, 20))
    assert {"input_values", "sample_mask", "pixel_values", "pixel_values_mask", "attention_mask"} < whole[0].keys()
    assert all(map(equal, whole, islice(threads, 9)))
    state = threads.state_dict()
    resumed = Shuffled(trimodal, 8, seed=3, workers=2)
    resumed.load_state_dict(state)
    assert all(map(equal, whole[9:], islice(resumed, 11)))
    assert all(map(equal, whole[9:], islice(threads, 11)))
    assert all(map(equal, in_order(trimodal, 8, 0), in_order(trimodal, 8, 3)))


def test_the_spoken_digits(shared: Path, tmp_path: Path) -> None:
    """One speaker of the real recordings, from the archive to batches."""
    with zipfile.ZipFile(shared / "data/fsdd/jackson.zip") as archive:
        archive.extractall(tmp_path)
    files = {path.name: path for path in tmp_path.rglob("*.wav")}
    with (shared / "data/fsdd/index.tsv").open() as table:
        index = [row for row in csv.DictReader(table, delimiter="\t") if Path(row["file"]).name in files]
    values = [{"sound": str(files[Path(row["file"]).name]), "digit": row["digit"]} for row in index]
    rows = open_rows(Manifest(files=(str(manifest(tmp_path / "digits.jsonl", values)),)))
    fields = with_classes({"x": Audio(column="sound", rate=8000), "labels": Class(column="digit")}, rows)
    assert fields["labels"].classes == tuple("0123456789")  # type: ignore[union-attr]
    examples = scan(rows, fields)
    assert len(examples) == 500
    batches = list(islice(Shuffled(examples, 20), 25))
    labels = torch.cat([found["labels"] for found in batches])
    assert torch.bincount(labels).tolist() == [50] * 10
    seconds = sum(int(found["x_mask"].sum()) for found in batches)
    assert seconds == sum(int(row["samples"]) for row in index)
    assert seconds / sum(found["x"].numel() for found in batches) > 0.9  # little padding
