"""Batches: what is padding or missing is zero and masked, and taking it off gives every example back."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atinuke.pipelines.collate import collate
from atinuke.pipelines.examples import Example
from atinuke.pipelines.fields import Audio, Class, Classes, Field, Image, Number, Text

FIELDS: dict[str, Field] = {
    "input_values": Audio(column="a", rate=8000, multiple=4, mask="sample_mask", optional=True),
    "input_ids": Text(column="t", length=9, optional=True),
    "pixel_values": Image(column="i", size=(2, 3), optional=True),
    "shown": Image(column="i", size=(2, 3), channels=1),
    "labels": Class(column="c", classes=("a", "b"), optional=True),
    "letters": Classes(column="l", classes=("a", "b"), optional=True),
    "scores": Number(column="n"),
}
EXAMPLES: st.SearchStrategy[Example] = st.fixed_dictionaries(
    {
        "input_values": st.none() | arrays.arrays(np.float32, st.integers(1, 11), elements=st.floats(-1, 1, width=32)),
        "input_ids": st.none() | arrays.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 999)),
        "pixel_values": st.none() | arrays.arrays(np.uint8, (3, 2, 3)),
        "shown": arrays.arrays(np.uint8, (1, 2, 3)),
        "labels": st.none() | st.integers(0, 1).map(lambda value: np.array(value, np.int64)),
        "letters": st.none() | arrays.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 1)),
        "scores": st.floats(-9, 9, width=32).map(lambda value: np.array(value, np.float32)),
    }
)


def same(tensor: torch.Tensor, value: Any) -> bool:
    return np.array_equal(tensor.numpy(), value)


@given(st.lists(EXAMPLES, min_size=1, max_size=5))
def test_a_batch_is_its_examples_and_nothing_that_counts(examples: list[Example]) -> None:
    batch = collate(examples, FIELDS)
    assert set(batch) == {*FIELDS, "sample_mask", "input_ids_mask", "pixel_values_mask"}
    for name, mask, multiple in (("input_values", "sample_mask", 4), ("input_ids", "input_ids_mask", 1)):
        lengths = [0 if example[name] is None else len(example[name]) for example in examples]  # type: ignore[arg-type]
        width = batch[name].shape[1]
        assert width % multiple == 0
        assert width - multiple < max(1, *lengths) <= width
        assert batch[mask].dtype == torch.bool
        assert batch[mask].shape == batch[name].shape == (len(examples), width)
        assert not batch[name][~batch[mask]].any()
        for row, example in enumerate(examples):
            assert batch[mask][row].tolist() == [place < lengths[row] for place in range(width)]
            if example[name] is not None:
                assert same(batch[name][row][batch[mask][row]], example[name])
    assert [batch[name].dtype for name in FIELDS] == [
        torch.float32,
        torch.int64,
        torch.uint8,
        torch.uint8,
        torch.int64,
        torch.int64,
        torch.float32,
    ]
    for row, example in enumerate(examples):
        pixels, label = example["pixel_values"], example["labels"]
        assert bool(batch["pixel_values_mask"][row]) == (pixels is not None)
        assert same(batch["pixel_values"][row], np.zeros((3, 2, 3)) if pixels is None else pixels)
        assert same(batch["shown"][row], example["shown"])
        letters = [] if example["letters"] is None else example["letters"].tolist()
        assert batch["letters"][row].tolist() == letters + [-100] * (batch["letters"].shape[1] - len(letters))
        assert int(batch["labels"][row]) == (-100 if label is None else int(label))
        assert same(batch["scores"][row], example["scores"])
