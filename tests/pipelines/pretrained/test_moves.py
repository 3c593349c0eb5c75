"""Where tensors go, both ways, whatever their order and shape."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.pretrained.family import Family
from atinuke.pipelines.pretrained.moves import Weights, plan

SIZES = {"heads": 2, "head_dim": 3, "d_model": 6}


def family(tensors: dict[str, Any]) -> Family:
    """A family with these rules."""
    rest = {"family": 1, "name": "f", "graph": "gpt2", "model_type": "f", "dims": {}}
    return Family.model_validate({**rest, "architectures": {"F": {"outputs": {"x": "x"}}}, "tensors": tensors})


def test_rows_of_heads_side_by_side_are_put_in_order() -> None:
    """GPT-NeoX has the query, key and value of a head together."""
    found = family({"qkv.*": {"of": "theirs.*", "view": ["heads", 3, "head_dim", -1], "order": [1, 0, 2, 3]}})
    planned = plan(found, Weights({"qkv.weight": (18, 6), "qkv.bias": (18,)}, {}, {}), SIZES, True)
    theirs = {"theirs.weight": torch.arange(108.0).view(18, 6), "theirs.bias": torch.arange(18.0)}
    ours = {name: tensor for move in planned.moves for name, tensor in move.read(theirs).items()}
    by_head = theirs["theirs.weight"].view(2, 3, 3, 6)
    assert torch.equal(ours["qkv.weight"][:6], by_head[:, 0].reshape(6, 6))
    assert torch.equal(ours["qkv.bias"][12:], theirs["theirs.bias"].view(2, 3, 3)[:, 2].reshape(6))
    back = {name: tensor for move in planned.moves for name, tensor in move.write(ours).items()}
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_one_of_theirs_is_several_of_ours() -> None:
    """ViT's table of positions holds the class token's."""
    found = family({"first.weight + rest.weight": {"of": "places", "shape": [1, 5, "d_model"]}})
    planned = plan(found, Weights({"first.weight": (6,), "rest.weight": (2, 2, 6)}, {}, {}), SIZES, True)
    theirs = torch.arange(30.0).view(1, 5, 6)
    ours = planned.moves[0].read({"places": theirs})
    assert torch.equal(ours["first.weight"], theirs[0, 0])
    assert torch.equal(ours["rest.weight"].view(4, 6), theirs[0, 1:])
    assert torch.equal(planned.moves[0].write(ours)["places"], theirs)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.integers(1, 3))
def test_there_and_back_is_the_same(rows: list[int], transpose: bool, width: int) -> None:
    names = [f"part{number}.#" for number in range(len(rows))]
    rule = {"of": " + ".join(names), "sizes": rows, "transpose": transpose}
    planned = plan(family({"whole.#": rule}), Weights({"whole.7": (sum(rows), width)}, {}, {}), SIZES, True)
    (move,) = planned.moves
    theirs = {name: torch.randn(shape) for name, shape in move.theirs if name}
    assert list(theirs) == [name.replace("#", "7") for name in names]
    ours = move.read(theirs)
    assert torch.equal(ours["whole.7"], torch.cat([t.t() if transpose else t for t in theirs.values()]))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in move.write(ours).items())


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"of": "a + b"}, "7 rows cannot be parted among 2 tensors: give `sizes`"),
        ({"of": "a + b", "sizes": [3, 3]}, "theirs has 12 numbers where ours has 14"),
        ({"of": "a", "shape": [3, 3]}, "theirs has 9 numbers where ours has 14"),
        ({"of": "a", "view": [5, -1], "order": [0, 1]}, "has no view [5, 2] in the order [0, 1]"),
        ({"of": "a", "shape": ["width", 2]}, "`width` is not known"),
        ({"of": "a", "shape": ["d_model/4", 2]}, "sizes must be whole numbers"),
    ],
)
def test_a_rule_that_does_not_fit(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(AtinukeError) as caught:
        plan(family({"x": rule}), Weights({"x": (7, 2)}, {}, {}), SIZES, True)
    assert told in str(caught.value)
