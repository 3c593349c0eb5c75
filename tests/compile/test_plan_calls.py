"""At which sizes a program is compared."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atinuke.compile.plan_calls import CORNER, WHOLE, Scale, on_meta, points
from atinuke.compile.programs import Program
from atinuke.runtime.interface import Interface, Port


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 8))
        self.tied = self.weight

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x @ self.weight,)


def program(**axes: tuple[int, int]) -> Program:
    shape = (*axes, 4)
    return Program("forward", Product(), Interface((Port("x", "float32", shape),), (), {}), axes)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    low = draw(st.integers(1, 200))
    return low, draw(st.integers(low, 2000))


@given(ranges(), ranges())
def test_every_corner_and_every_short_axis_is_compared(batch: tuple[int, int], width: tuple[int, int]) -> None:
    found = list(points(program(batch=batch, width=width)))
    sizes = {tuple(one.values()) for _, one in found}
    assert len(sizes) == len(found)
    assert {*itertools.product(batch, width)} <= sizes
    assert all(batch[0] <= b <= batch[1] and width[0] <= w <= width[1] for b, w in sizes)
    if width[1] - width[0] < WHOLE:
        assert {(batch[0], w) for w in range(width[0], width[1] + 1)} <= sizes
    assert any(kind == CORNER for kind, _ in found) or batch[0] == batch[1]


def test_what_is_written_fits_into_the_caches() -> None:
    found = [one for _, one in points(program(batch=(1, 2), sequence=(1, 100), capacity=(1, 100)))]
    assert all(one["sequence"] <= one["capacity"] for one in found)
    assert {"batch": 2, "sequence": 1, "capacity": 100} in found


def test_a_call_is_weighed_without_computing_it() -> None:
    made = program(batch=(1, 5), sequence=(1, 9))
    scale = Scale(made)
    for batch, sequence in ((1, 1), (5, 9), (2, 3)):
        with FlopCounterMode(display=False) as counter:
            made.module(torch.ones(batch, sequence, 4))
        weight = scale({"batch": batch, "sequence": sequence})
        assert weight.flops == counter.get_total_flops()
        assert weight.stored == 4 * batch * sequence * (4 + 8)
        assert weight.memory > weight.stored
    along, whole = scale.along({"batch": 1, "sequence": 4}), scale({"batch": 1, "sequence": 4})
    assert (along.flops, along.stored) == (whole.flops, whole.stored)
    assert along.memory >= whole.memory  # the weights are there at every size


def test_a_copy_on_the_meta_device_has_no_weights_and_keeps_ties() -> None:
    copied = on_meta(Product())
    assert copied.weight is copied.tied
    assert copied.weight.is_meta
