"""Examples become a batch: padded, stacked and masked, so that nothing that is padding or missing can count.

Each field gives a tensor of its name, and each that may be padded or missing a mask too (`fields.mask_name`):

    audio     float32 [batch, samples], mask Bool [batch, samples]
    text      int64 [batch, tokens],    mask Bool [batch, tokens]; maybe segments int64 [batch, tokens]
    chat      as a text, with `answers` int64 [batch, tokens]
    image     uint8 [batch, channels, height, width]; if optional, mask Bool [batch]
    class     int64 [batch], -100 where it is missing
    classes   int64 [batch, targets], filled up with -100
    number    float32 [batch]

What is missing is zeros and its row of the mask all False. A batch in which all miss a field has one `multiple` of it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atinuke.pipelines.fields import (
    Array,
    Audio,
    Chat,
    Class,
    Classes,
    Field,
    Image,
    Number,
    Text,
    mask_name,
    segments_name,
)
from atinuke.pipelines.sampler import IGNORED, Batch
from atinuke.runtime.fields import padded, stacked

if TYPE_CHECKING:
    from atinuke.pipelines.examples import Example


def collate(examples: "Sequence[Example]", fields: Mapping[str, Field]) -> Batch:
    """A batch of at least one example."""
    batch: dict[str, Tensor] = {}
    for name, field in fields.items():
        values = [example[name] for example in examples]
        mask = None
        match field:
            case Audio():
                batch[name], mask = _padded(values, field.multiple, np.float32)
            case Text() | Chat():
                segments = segments_name(field)
                if segments:
                    pairs = values
                    values = [None if pair is None else pair[0] for pair in pairs]
                    marks = [None if pair is None else pair[1] for pair in pairs]
                    batch[segments], _ = _padded(marks, field.multiple, np.int64)
                batch[name], mask = _padded(values, field.multiple, np.int64)
            case Image():
                batch[name], mask = _stacked(values, (field.channels, *field.size))
            case Class():
                batch[name] = torch.tensor([IGNORED if value is None else int(value) for value in values])
            case Classes():
                numbers, counts = _padded(values, 1, np.int64)
                batch[name] = numbers.where(counts, IGNORED)
            case Number():
                batch[name] = torch.tensor([float(value) for value in values if value is not None])
        called = mask_name(name, field)
        if called and mask is not None:
            batch[called] = mask
    return batch


def _padded(values: Sequence[Array | None], multiple: int, dtype: type[np.generic]) -> tuple[Tensor, Tensor]:
    found, mask = padded(values, multiple, dtype)
    return torch.from_numpy(found), torch.from_numpy(mask)


def _stacked(values: Sequence[Array | None], shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    found, mask = stacked(values, shape)
    return torch.from_numpy(found), torch.from_numpy(mask)
