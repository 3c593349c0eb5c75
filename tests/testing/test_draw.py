"""What is drawn from a contract."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.core.component import Component
from atinuke.core.signature import read_signature
from atinuke.testing.draw import Case, Contract, cases, settings_of
from tests.testing.broken import Mixing, Patches, Rowwise

EXAMPLES = settings(max_examples=60, derandomize=True, database=None, deadline=None)


class Settings(nn.Module):
    """One setting of every kind."""

    def __init__(
        self,
        whole: int,
        real: float,
        switch: bool,
        choice: Literal["one", "two"],
        maybe: int | None,
        several: list[int],
        marked: Annotated[int, "a note"],
        text: str = "as it is",
        usual: int = 1000,
    ) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "*lead"]) -> Float[Tensor, "*lead"]:
        return x


def contract(cls: type) -> Contract:
    return Contract("a.b", Component("a.b", "a:B", ""), cls, read_signature(cls))


def drawn(cls: type, low: int = 1, others: int = 0, other_low: int = 1) -> list[Case]:
    found: list[Case] = []

    @EXAMPLES
    @given(cases(contract(cls), low, others, other_low))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def test_settings_follow_their_annotations():
    seen: list[dict[str, Any]] = []

    @EXAMPLES
    @given(settings_of(contract(Settings)))
    def collect(values: dict[str, Any]) -> None:
        seen.append(values)

    collect()
    assert {name: {type(values[name]) for values in seen} for name in seen[0]} == {
        "whole": {int},
        "real": {float},
        "switch": {bool},
        "choice": {str},
        "maybe": {int, type(None)},
        "several": {list},
        "marked": {int},
        "text": {str},
        "usual": {int},
    }
    assert {values["choice"] for values in seen} == {"one", "two"}
    assert {values["text"] for values in seen} == {"as it is"}
    assert 1000 in {values["usual"] for values in seen}
    assert min(values["whole"] for values in seen) > 0


def test_settings_that_the_constructor_refuses_are_discarded():
    assert all(case.settings["d_model"] % 2 == 0 for case in drawn(Rowwise))


def test_sizes_are_distinct_and_within_limits():
    found = drawn(Mixing, low=1, others=2)
    for case in found:
        for sizes in (case.sizes, *case.others):
            assert sizes.names["sequence"] <= case.settings["length"]
        assert case.sizes.names["batch"] != case.sizes.names["sequence"]
        assert case.others[0].names == {"batch": 1, "sequence": 1}
    assert {"attention_mask" in case.ports for case in found} == {True, False}


@pytest.mark.parametrize("low", [1, 2])
def test_leading_axes_are_of_every_number(low):
    found = [case.sizes.leads["lead"] for case in drawn(Rowwise, low)]
    assert {len(sizes) for sizes in found} == set(range(low - 1, 4))
    assert all(len(set(sizes)) == len(sizes) and min(sizes, default=low) >= low for sizes in found)


def test_no_port_is_empty():
    for case in drawn(Patches):
        for port in read_signature(Patches).outputs.values():
            assert min(case.sizes.shape(port, case.settings)) >= 1


def test_what_is_worked_out_is_not_one_where_a_law_compiles():
    for case in drawn(Patches, low=2, others=2):
        for sizes in (case.sizes, *case.others):
            assert min(sizes.names["height"], sizes.names["width"]) // case.settings["patch"] >= 2


def test_a_case_reads_as_text():
    case = drawn(Mixing, low=2, others=1)[0]
    assert list(case.lines()) == [
        "with settings d_model=4, length=4, causal=True",
        "with sizes batch=3, sequence=2; then batch=1, sequence=1",
        "with ports x; seed 0",
    ]
