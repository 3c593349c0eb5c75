"""Every law catches the component that breaks it, and that law alone does; sound components keep all laws."""

import pytest

from atinuke.core.component import Component
from atinuke.core.errors import AtinukeError
from atinuke.testing import LAWS, LawError, check_component, run_laws
from tests.testing import broken

SOUND = ("Rowwise", "Mixing")

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
    ("ForgetsPosition", "step", ()),
    ("OnePositionForAll", "step", ()),
    ("SeesGarbage", "step", ()),
    ("StateOfOneDtype", "step", ()),
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


def statuses(name: str) -> dict[str, str]:
    return {result.law: result.status for result in run_laws(component(name))}
