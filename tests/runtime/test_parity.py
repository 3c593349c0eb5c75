"""What the certificate makes of what was compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime.parity import (
    FAILED,
    FORMAT,
    NOT_RUN,
    PARTLY,
    PASSED,
    Build,
    Call,
    Difference,
    Kept,
    Parity,
    Texts,
    read_parity,
    write_parity,
)
from atinuke.runtime.quality import Measured, Quality


def build(*calls: Call, **others: object) -> Build:
    return Build("onnx/fp16", 1e-2, calls, **others)  # type: ignore[arg-type]


GOOD = Call("forward", "corner", {"batch": 1}, (Difference("y", 1e-3, 1e-3),))
BAD = Call("forward", "corner", {"batch": 2}, (Difference("y", 1.0, 1.0),))
LEFT = Call("forward", "corner", {"batch": 3}, reason="needs 100 GB")


def test_nothing_that_was_not_run_counts_as_passed() -> None:
    assert build(GOOD).status == PASSED
    assert build(GOOD, LEFT).status == PARTLY
    assert build(LEFT).status == NOT_RUN
    assert build(reason="no GPU").status == NOT_RUN
    assert build(GOOD, BAD, LEFT).status == FAILED
    assert (
        build(GOOD, texts=Texts(2, 64, 0.01, 3, margin=0.019)).status == PASSED
    )  # the errors of two scores explain it
    assert build(GOOD, texts=Texts(2, 64, 0.01, 3, margin=0.021)).status == FAILED
    assert build(GOOD, texts=Texts(2, 64, 0.011)).status == FAILED


def test_a_certificate_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = (Kept("stack.*.N", "2 differ", "error 1", "error 0"),)
    builds = (build(GOOD, LEFT, texts=Texts(2, 64), kept=kept), build(reason="no GPU"))
    parity = Parity("2 validation rows", builds, {"forward": (Call("forward", "corner", {"batch": 1}),)})
    write_parity(tmp_path / "parity.json", parity)
    assert read_parity(tmp_path / "parity.json") == parity


def test_figures_are_read_as_they_were_written_and_the_format_before_had_none(tmp_path: Path) -> None:
    one = Measured(1000, 0.5, 2.0, 0.9, 0.8, 0.95)
    quality = Quality("forward at batch=1", 1, "accuracy", "23 of 23 validation rows", replace(one, faster=1.0))
    parity = Parity("drawn", (replace(build(GOOD), quality=one),), {}, quality)
    file = tmp_path / "parity.json"
    write_parity(file, parity)
    assert read_parity(file) == parity
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "atinuke": 1}))
    with pytest.raises(AtinukeError, match="quality is not known"):
        read_parity(file)
    del plain["quality"], plain["builds"][0]["quality"]
    file.write_text(json.dumps({**plain, "atinuke": 1}))
    assert read_parity(file) == Parity("drawn", (build(GOOD),), {})
    file.write_text(json.dumps(plain))
    with pytest.raises(AtinukeError, match="quality is missing"):
        read_parity(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not strict JSON"),
        ("[]", "must be the format's number"),
        ("{}", "must be the format's number"),
        ('{"atinuke": 1}', "inputs is missing"),
        ('{"atinuke": 1, "inputs": "", "builds": [1], "samples": {}}', "builds[0] must be a mapping, not 1"),
    ],
)
def test_a_damaged_certificate_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "parity.json"
    file.write_text(text)
    with pytest.raises(AtinukeError) as error:
        read_parity(file)
    assert says in str(error.value)
    assert str(file) in str(error.value)


def test_a_certificate_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "parity.json"
    file.write_text(f'{{"atinuke": {FORMAT + 1}}}')
    with pytest.raises(AtinukeError, match="format"):
        read_parity(file)


def test_a_budget_is_at_most_that_of_the_precision_unless_that_is_somebody_elses(tmp_path: Path) -> None:
    file = tmp_path / "parity.json"
    write_parity(file, Parity("drawn", (Build("mine/fp6", 0.5, (GOOD,)), Build("mine/fp16", 1e-3, (GOOD,))), {}))
    assert [build.budget for build in read_parity(file).builds] == [0.5, 1e-3]
    write_parity(file, Parity("drawn", (Build("onnx/fp16", 1.1e-2, (GOOD,)),), {}))
    with pytest.raises(
        AtinukeError, match=r"builds\[0\].budget must be at most 0.01, the budget of onnx/fp16, not 0.011"
    ):
        read_parity(file)
