"""The laws of deployment: compiled, exported and run by ONNX Runtime, a component answers as in plain PyTorch."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from atinuke.compile.onnx_export import to_onnx
from atinuke.core.signature import Signature
from atinuke.testing.compare import require_same
from atinuke.testing.forms import DERIVED, Form, forward_forms, step_forms
from atinuke.testing.law import NotRunError, ViolationError, brief, law
from atinuke.testing.steps import no_step
from atinuke.testing.trial import Trial, seeded

OPSET = 20
OTHERS = 2


@contextlib.contextmanager
def _stage(form: Form, stage: str) -> Iterator[None]:
    """Names what failed, and keeps the compilers' chatter away."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    trace = logging.getLogger("torch.__trace")  # cannot be disabled, and pytest listens to it
    listeners, trace.handlers = trace.handlers, []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ViolationError as error:
        raise ViolationError(f"{form.title}, {stage}: {error.expected}", error.got) from None
    except Exception as error:
        raise ViolationError(f"{form.title} to be {stage}", brief(error)) from error
    finally:
        logging.disable(disabled)
        trace.handlers = listeners


def _eager(trial: Trial, form: Form, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    with torch.no_grad(), seeded(trial.case.seed):
        return tuple(form.module(*(tensor.clone() for tensor in tensors)))


def _require_equal(expected: tuple[Tensor, ...], got: tuple[Tensor, ...], tensors: tuple[Tensor, ...]) -> None:
    sizes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    if len(expected) != len(got):
        raise ViolationError(f"{len(expected)} outputs", f"{len(got)}")
    for i, (wanted, found) in enumerate(zip(expected, got, strict=True)):
        require_same(f"output {i} for inputs {sizes} as in plain PyTorch", wanted, found)


@law(
    "torch.compile(fullgraph=True) gives the same answers and gradients, at other sizes without compiling anew",
    examples=2,
    low=2,
    others=OTHERS,
    other_low=2,
    slow=True,
)
def compile(trial: Trial) -> None:  # noqa: A001 - the law's name
    for form in forward_forms(trial):
        _compiled(trial, form)


@law(
    "torch.compile(fullgraph=True) does for step() what it does for forward()",
    examples=1,
    low=2,
    others=OTHERS,
    other_low=2,
    slow=True,
    inapplicable=no_step,
)
def compile_step(trial: Trial) -> None:
    for form in step_forms(trial):
        _compiled(trial, form)


def _compiled(trial: Trial, form: Form) -> None:
    torch.compiler.reset()
    compiled = torch.compile(form.module, fullgraph=True, backend=trial.backend)
    weights = [weight for weight in form.module.parameters() if weight.requires_grad]
    with _stage(form, f"compiled by {trial.backend}"), torch._dynamo.config.patch(error_on_recompile=True):
        for k in range(1 + OTHERS):
            tensors = form.tensors(k)
            answers = []
            for call in (form.module, compiled):
                given = [tensor.clone() for tensor in tensors]
                _mark_free(form, given)
                with seeded(trial.case.seed):
                    outputs = call(*given)
                answers.append((*outputs, *trial.gradients(outputs, weights)))
            expected, got = ([tensor for tensor in answer if tensor is not None] for answer in answers)
            _require_equal((*expected,), (*got,), tensors)


def _mark_free(form: Form, tensors: list[Tensor]) -> None:
    for tensor, axes in zip(tensors, form.axes, strict=True):
        for axis, name in axes.items():
            mark = torch._dynamo.maybe_mark_dynamic if name == DERIVED else torch._dynamo.mark_dynamic
            mark(tensor, axis)


@dataclass(frozen=True)
class _Called:
    """A form by which component, case and call it is of."""

    component: type
    case: str
    title: str
    form: Form = field(compare=False)


def _exported(trial: Trial, form: Form) -> ExportedProgram:
    """The program with every free axis free, from inputs of the first sizes."""
    return _export(_Called(trial.contract.cls, repr(trial.case), form.title, form))


@lru_cache(maxsize=16)  # the forms of one component
def _export(called: _Called) -> ExportedProgram:
    """What the laws `export` and `export_step` exported `onnx` and `onnx_step` go on with, tried on the same cases."""
    form = called.form
    dims: dict[str, Any] = {DERIVED: Dim.DYNAMIC}
    for name in {name for axes in form.axes for name in axes.values()} - {DERIVED}:
        low, high = form.ranges.get(name, (1, None))
        dims[name] = low if low == high else Dim(name, min=low, max=high)
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in form.axes)
    return torch.export.export(
        form.module,
        form.tensors(0),
        dynamic_shapes=(shapes,) if shapes else None,
        prefer_deferred_runtime_asserts_over_guards=True,
    )


@law(
    "torch.export with every free axis free gives the same answers at other sizes",
    examples=3,
    low=2,
    others=OTHERS,
    slow=True,
)
def export(trial: Trial) -> None:
    for form in forward_forms(trial):
        _same_when_exported(trial, form)


@law(
    "torch.export does for step() what it does for forward(): state goes in and comes out",
    examples=2,
    low=2,
    others=OTHERS,
    slow=True,
    inapplicable=no_step,
)
def export_step(trial: Trial) -> None:
    for form in step_forms(trial):
        _same_when_exported(trial, form)


def _same_when_exported(trial: Trial, form: Form) -> None:
    with _stage(form, "exported"):
        program = _exported(trial, form).module()
        for k in range(1 + OTHERS):
            tensors = form.tensors(k)
            with torch.no_grad(), seeded(trial.case.seed):
                got = program(*(tensor.clone() for tensor in tensors))
            _require_equal(_eager(trial, form, tensors), tuple(got), tensors)


def _training_only(signature: Signature) -> str | None:
    return "it is for training only" if signature.training_only else None


@law(
    "ONNX Runtime gives the same answers at other sizes",
    examples=2,
    low=2,
    others=OTHERS,
    slow=True,
    inapplicable=_training_only,
)
def onnx(trial: Trial) -> None:
    for form in forward_forms(trial):
        _same_in_onnx_runtime(trial, form)


@law(
    "ONNX Runtime does for step() what it does for forward()",
    examples=1,
    low=2,
    others=OTHERS,
    slow=True,
    inapplicable=no_step,
)
def onnx_step(trial: Trial) -> None:
    for form in step_forms(trial):
        _same_in_onnx_runtime(trial, form)


def _same_in_onnx_runtime(trial: Trial, form: Form) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise NotRunError(f"{package} is not installed: pip install 'atinuke[testing]'")
    import onnxruntime

    with _stage(form, "run by ONNX Runtime"):
        file = to_onnx(_exported(trial, form), OPSET).SerializeToString()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]
        for k in range(1 + OTHERS):
            tensors = form.tensors(k)
            feeds = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            got = tuple(map(torch.from_numpy, session.run(None, feeds)))
            _require_equal(_eager(trial, form, tensors), got, tensors)
