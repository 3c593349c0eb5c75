"""Every law catches the component that breaks it, and that law alone does; sound components keep all laws."""

import pytest

from atinuke.core.component import Component
from atinuke.core.errors import AtinukeError
from atinuke.testing import LAWS, run_laws
from tests.testing import broken

SOUND = ("Rowwise", "Mixing", "Patches", "Recalling")

# The component, the law it breaks, and other laws that cannot hold either where that one does not.
BROKEN = [
    ("NarrowOutput", "shape", ()),
    ("MissingOutput", "shape", ()),
    ("WholeNumberOutput", "shape", ()),
    ("UnknownSize", "shape", ()),
    ("Widening", "dtype", ()),
    ("Overflowing", "dtype", ()),
    ("Centred", "rows", ()),
    ("SecondLeadMixed", "rows", ()),
    ("BatchCentred", "rows", ()),
    ("Foresight", "causal", ()),
    ("DeafToMask", "padding", ()),
    ("LeakyPairs", "padding", ()),
    ("LeakyPool", "padding", ()),
    ("DeafToOneMask", "padding", ()),
    ("ForgetsPosition", "step", ()),
    ("OnePositionForAll", "step", ()),
    ("SeesGarbage", "step", ()),
    ("StateOfOneDtype", "step", ()),
    ("PreparesWithoutMask", "step", ()),
    ("UsesUpWhatIsPrepared", "step", ()),
    ("PreparesLessThanItSays", "step", ()),
    ("RootOfZero", "gradients", ()),
    ("Detached", "gradients", ()),
    ("AlwaysDropping", "deterministic", ("onnx",)),
    ("Overwriting", "pure", ()),
    ("Counting", "pure", ()),
    ("ReadsWhileBuilding", "meta", ()),
    ("UnregisteredTable", "meta", ()),
    ("RandomConstant", "state_dict", ()),
    ("ShorterThanItSays", "limits", ()),
    ("LongerThanItSays", "limits", ()),
    ("LimitOfNothing", "limits", ()),
    ("LooksAtTheClock", "compile", ()),
    ("OtherWhenCompiled", "compile", ()),
    ("CompiledForOneSize", "compile", ()),
    ("OtherWhenExported", "export", ("onnx",)),
    ("OneRowApart", "export", ("onnx",)),
    ("NotInONNX", "onnx", ()),
    ("StepNotCompiled", "compile_step", ()),
    ("StepOtherWhenExported", "export_step", ("onnx_step",)),
    ("StepNotInONNX", "onnx_step", ()),
]


def component(name: str) -> Component:
    return Component(f"test.{name.lower()}", f"{broken.__name__}:{name}", "for a test")


QUICK = [name for name, law in LAWS.items() if not law.slow]
SLOW = [name for name, law in LAWS.items() if law.slow]


@pytest.mark.parametrize("name", SOUND)
def test_sound_components_keep_every_law(name):
    results = [*run_laws(component(name), laws=QUICK), *run_laws(component(name), laws=SLOW, examples=1)]
    assert [result for result in results if result.status not in ("passed", "not applicable")] == []
    if name == "Mixing":
        assert [result.law for result in results if result.status != "passed"] == []


@pytest.mark.parametrize(("name", "law", "others"), BROKEN)
def test_a_broken_law_is_caught_and_no_other(name, law, others):
    results = run_laws(component(name), laws=[law] if law in QUICK else [])
    results += run_laws(component(name), laws=[one for one in QUICK if one != law], examples=8)
    if LAWS[law].slow or others:
        results += run_laws(component(name), laws=SLOW, examples=1)
    assert {result.law for result in results if result.status == "failed"} == {law, *others}


def test_every_law_has_a_component_that_breaks_it():
    assert {law for _, law, _ in BROKEN} == set(LAWS)


def test_a_loss_may_be_for_training_only():
    (result,) = run_laws(component("NeverDeployed"), laws=["onnx"])
    assert (result.status, result.reason) == ("not applicable", "it is for training only")
    with pytest.raises(AtinukeError, match="training_only is for losses, whose outputs are single numbers"):
        run_laws(component("NeverDeployedRows"), laws=["onnx"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PreparesSomeTensors", "prepare\\(\\) does not say how many tensors it gives"),
        ("PreparesWhatItDoesNotRead", "prepare\\(\\) takes `others`, which is not a port of forward\\(\\)"),
    ],
)
def test_what_is_prepared_is_declared(name, message):
    with pytest.raises(AtinukeError, match=message):
        run_laws(component(name), laws=["step"])
