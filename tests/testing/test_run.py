"""What is reported, and what happens to a component that cannot be tried."""

import importlib.util

import pytest
from hypothesis import strategies as st

from atinuke.core.component import Component
from atinuke.core.errors import AtinukeError
from atinuke.testing import LAWS, LawError, check_component, run_laws
from tests.testing import broken


def component(name: str, strategy: str | None = None) -> Component:
    target = f"{broken.__name__}:{name}"
    return Component(f"test.{name.lower()}", target, "for a test", strategy and f"{__name__}:{strategy}")


def misfit():
    return st.just({"d_model": "wide", "colour": "red"})


def single():
    return st.just({"d_model": 12})


def test_a_sound_component_passes():
    check_component("norm.layer", laws=["shape", "rows"])


def test_an_error_says_component_law_case_expected_and_got():
    with pytest.raises(LawError) as caught:
        check_component(component("BatchCentred"))
    error = caught.value
    assert (error.component, error.law) == ("test.batchcentred", "rows")
    assert error.case is not None
    assert error.case.sizes.names == {"batch": 2, "width": 3}
    assert str(error).splitlines() == [
        "`test.batchcentred` breaks the law `rows`: " + LAWS["rows"].promise,
        "  with settings none",
        "  with sizes batch=2, width=3",
        "  with ports x; seed 0",
        f"  expected {error.expected}",
        f"  got {error.got}",
    ]
    assert error.expected.startswith("the output, row 0 of batch, whatever the other rows hold at [0]: ")
    assert not getattr(error, "__notes__", None)


def test_an_exception_breaks_a_law_and_is_the_cause():
    (result,) = run_laws(component("ReadsWhileBuilding"), laws=["meta"])
    assert result.status == "failed"
    assert result.error is not None
    assert isinstance(result.error.__cause__, RuntimeError)
    assert "cannot be called on meta tensors" in result.reason


def test_the_cause_within_a_compiler_is_kept():
    (result,) = run_laws(component("LooksAtTheClock"), laws=["compile"])
    assert result.error is not None
    assert "perf_counter" in str(result.error.__cause__)


def test_results_are_the_same_on_every_run():
    first, second = (run_laws(component("Centred"), laws=["rows"])[0] for _ in range(2))
    assert str(first.error) == str(second.error)


def test_random_numbers_outside_go_on_as_if_nothing_had_been_drawn():
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run_laws(component("Rowwise"), laws=["shape", "deterministic"])
    assert torch.equal(torch.rand(3), expected)


def test_not_applicable_says_why():
    results = run_laws("norm.layer", laws=["causal", "padding", "step", "limits"])
    assert {result.law: result.reason for result in results} == {
        "causal": "it has no `sequence` axis that goes in and comes out",
        "padding": "it has no port `mask`",
        "step": "it has no step()",
        "limits": "it declares no `limits`",
    }
    (result,) = run_laws("position.sinusoidal", laws=["causal"])
    assert (result.status, result.reason) == ("not applicable", "its `causal` is not true")


def test_without_onnx_runtime_the_law_is_not_run(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    (result,) = run_laws(component("Rowwise"), laws=["onnx"])
    assert (result.status, result.reason) == ("not run", "onnxruntime is not installed: pip install 'atinuke[testing]'")


def test_an_unknown_law():
    with pytest.raises(AtinukeError, match="no law is called `row`") as caught:
        run_laws("norm.layer", laws=["row"])
    assert caught.value.mistakes[0].fix == "use `rows`"


def test_a_component_that_refuses_all_settings():
    for law in ("shape", "export"):
        (result,) = run_laws(component("NeverBuilt"), laws=[law])
        assert result.status == "failed"
        assert "settings and sizes that go together to be found" in result.reason


def test_a_setting_that_cannot_be_drawn():
    with pytest.raises(AtinukeError, match="setting `name` cannot be drawn") as caught:
        run_laws(component("Undrawable"), laws=["shape"])
    assert caught.value.mistakes[0].fix == "give the component a strategy"


def test_a_strategy_is_used():
    (result,) = run_laws(component("NarrowOutput", "single"), laws=["shape"])
    assert result.error is not None
    assert result.error.case is not None
    assert result.error.case.settings == {"d_model": 12, "scale": 1.0}


def test_a_strategy_that_does_not_fit():
    with pytest.raises(AtinukeError, match="misfit` draws settings that do not fit") as caught:
        run_laws(component("Rowwise", "misfit"), laws=["shape"])
    details = " ".join(caught.value.mistakes[0].details)
    assert "setting `d_model`" in details
    assert "there is no setting `colour`" in details
