"""The laws that are tried in plain PyTorch. Where rounding could hide a fault they compute in float64."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from atinuke.compile.meta import build_meta
from atinuke.core.signature import FLOATS, INTS, Port, Signature, describe
from atinuke.testing.compare import require_same
from atinuke.testing.law import NotApplicableError, ViolationError, law
from atinuke.testing.sizes import free_names
from atinuke.testing.trial import Feeds, Trial, arguments, axes_named, seeded

MASKS = ("mask", "attention_mask")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Locate = Callable[[Port, int], list[int]]


def title(name: str) -> str:
    """An output as a sentence names it."""
    return "the output" if name == "return" else f"output `{name}`"


def shows(port: Port, name: str) -> bool:
    """Whether an axis of a port has a name."""
    return any(dim.name == name for dim in port.shape.dims)


# Shapes and dtypes


@law("outputs have the number, the shapes and the kinds that forward() promises")
def shape(trial: Trial) -> None:
    ports = trial.signature.outputs
    with torch.no_grad():
        outputs = trial.call(trial.build(), trial.feeds())
    if len(outputs) != len(ports):
        raise ViolationError(f"{len(ports)} outputs", f"{len(outputs)}")
    for (name, port), output in zip(ports.items(), outputs, strict=True):
        if not isinstance(output, Tensor):
            raise ViolationError(f"{title(name)} to be a tensor", f"a {type(output).__name__}")
        promised = trial.shape(port)
        if tuple(output.shape) != promised:
            raise ViolationError(f"{title(name)} [{port.shape}] of shape {list(promised)}", f"{list(output.shape)}")
        kinds = FLOATS if output.is_floating_point() else INTS | {"bool"}
        if not port.kinds & kinds:
            raise ViolationError(f"{title(name)} to be {describe(port.kinds)}", f"{output.dtype}")


@law("float outputs have the dtype of the model, and are numbers")
def dtype(trial: Trial) -> None:
    for given in DTYPES:
        for name, output in trial.answer(trial.build(given), trial.feeds(given)).items():
            if trial.signature.outputs[name].kinds != FLOATS:
                continue
            if output.dtype != given:
                raise ViolationError(f"{title(name)} of {given} from a {given} model", f"{output.dtype}")
            if output.isnan().any():
                raise ViolationError(f"{title(name)} of a {given} model to be numbers", "nan")


# Independence


def _independent_axes(signature: Signature, ranks: dict[str, int]) -> dict[str, Locate]:
    """The axes that are promised to be independent: `batch` in the first place, and those of every `*lead`."""

    def batch(port: Port, rank: int) -> list[int]:
        first = port.shape.dims[:1] if port.shape.lead is None or port.shape.at else ()
        return [0] if first and first[0].name == "batch" else []

    def one_of(lead: str, i: int) -> Locate:
        return lambda port, rank: [port.shape.at + i] if port.shape.lead == lead else []

    return {"batch": batch} | {f"*{lead}[{i}]": one_of(lead, i) for lead, rank in ranks.items() for i in range(rank)}


def _no_rows(signature: Signature) -> str | None:
    leads = {port.shape.lead: 1 for port in signature.inputs.values() if port.shape.lead}
    for locate in _independent_axes(signature, {str(lead): 1 for lead in leads}).values():
        if all(any(locate(port, 9) for port in ports.values()) for ports in (signature.inputs, signature.outputs)):
            return None
    return "no output has rows: neither `batch` in the first place nor `*lead` axes"


@law(
    "rows do not depend on other rows (along `batch`, and along each of the `*lead` axes)", low=2, inapplicable=_no_rows
)
def rows(trial: Trial) -> None:
    module, feeds, fresh = trial.build(torch.float64), trial.feeds(torch.float64), trial.feeds(torch.float64, salt=1)
    before = trial.answer(module, feeds)
    ranks = {lead: len(sizes) for lead, sizes in trial.case.sizes.leads.items()}
    for where, locate in _independent_axes(trial.signature, ranks).items():
        for kept in (0, -1):
            changed = _changed_but(trial, feeds, fresh, locate, slice(kept, kept + 1 or None))
            if changed is None:
                continue
            after = trial.answer(module, changed)
            for name, output in after.items():
                for axis in locate(trial.signature.outputs[name], output.dim())[:1]:
                    what = f"{title(name)}, row {kept % output.shape[axis]} of {where}, whatever the other rows hold"
                    require_same(what, before[name].select(axis, kept), output.select(axis, kept))


def _changed_but(trial: Trial, feeds: Feeds, fresh: Feeds, locate: Locate, kept: slice) -> Feeds | None:
    """Other inputs that agree with the old ones in a slice of the located axes; None where no input has such axes."""
    changed: dict[str, tuple[Tensor, ...]] = {}
    found = False
    for name, wires in feeds.items():
        axes = locate(trial.signature.inputs[name], wires[0].dim()) if wires else []
        changed[name] = wires
        if axes:
            found = True
            index = tuple(kept if axis in axes else slice(None) for axis in range(wires[0].dim()))
            changed[name] = tuple(other.clone() for other in fresh[name])
            for new, old in zip(changed[name], wires, strict=True):
                new[index] = old[index]
    return changed if found else None


def _sequence(port: Port, rank: int) -> list[int]:
    return axes_named(port.shape, "sequence", rank)


def _no_sequence(signature: Signature) -> str | None:
    for ports in (signature.inputs, signature.outputs):
        if not any(shows(port, "sequence") for port in ports.values()):
            return "it has no `sequence` axis that goes in and comes out"
    return None


@law("where `causal` is true, a position does not depend on later ones", examples=10, low=2, inapplicable=_no_sequence)
def causal(trial: Trial) -> None:
    module = trial.build(torch.float64)
    if getattr(module, "causal", None) is not True:
        raise NotApplicableError("its `causal` is not true")
    feeds, fresh = trial.feeds(torch.float64), trial.feeds(torch.float64, salt=1)
    before = trial.answer(module, feeds)
    for cut in range(1, trial.case.sizes.names["sequence"]):
        changed = _changed_but(trial, feeds, fresh, _sequence, slice(cut))
        if changed is None:
            return
        for name, output in trial.answer(module, changed).items():
            axes = _sequence(trial.signature.outputs[name], output.dim())
            if axes:
                index = tuple(slice(cut) if axis in axes else slice(None) for axis in range(output.dim()))
                what = f"{title(name)} before position {cut}, whatever comes from there on"
                require_same(what, before[name][index], output[index])


def _masks(signature: Signature) -> dict[str, list[str]]:
    """The ports that are masks, with the ports whose content they hide: `first_mask` hides in `first`, and `mask` or
    `attention_mask` in whatever has their axes."""
    found = {}
    for name, port in signature.inputs.items():
        plain = all(dim.name for dim in port.shape.dims) and not (port.shape.lead and port.shape.dims)
        if port.kinds == {"bool"} and plain and (name in MASKS or name.endswith("_mask")):
            others = [other for other in signature.inputs if other != name]
            found[name] = others if name in MASKS else [other for other in others if f"{other}_mask" == name]
    return {name: hidden for name, hidden in found.items() if hidden}


def _no_mask(signature: Signature) -> str | None:
    return None if _masks(signature) else "it has no port `mask`"


def _over(mask: Tensor, of: Port, port: Port, rank: int) -> Tensor | None:
    """A mask with an axis for each of another tensor's; None where that has none of the mask's positions."""
    if of.shape.lead:
        same = port.shape.lead == of.shape.lead and port.shape.at == 0
        return mask.view(*mask.shape, *[1] * (rank - mask.dim())) if same else None
    axes = [axis for dim in of.shape.dims for axis in axes_named(port.shape, str(dim.name), rank)]
    if len(axes) != mask.dim() or axes != sorted(axes):
        return None
    return mask.view([mask.shape[axes.index(axis)] if axis in axes else 1 for axis in range(rank)])


@law("what a mask hides changes nothing but what it or the mask of the output hides", low=2, inapplicable=_no_mask)
def padding(trial: Trial) -> None:
    signature = trial.signature
    masks = _masks(signature)
    trial = trial.feeding(*masks, *(name for hidden in masks.values() for name in hidden))
    module, feeds, fresh = trial.build(torch.float64), trial.feeds(torch.float64), trial.feeds(torch.float64, salt=1)
    before = trial.answer(module, feeds)
    for mask_name, hidden in masks.items():
        (mask,), of = feeds[mask_name], signature.inputs[mask_name]
        changed = dict(feeds)
        for name in hidden:
            keep = _over(mask, of, signature.inputs[name], feeds[name][0].dim())
            if keep is not None:
                pairs = zip(feeds[name], fresh[name], strict=True)
                changed[name] = tuple(torch.where(keep, old, new) for old, new in pairs)
        for name, output in trial.answer(module, changed).items():
            port = signature.outputs[name]
            keep = _over(mask, of, port, output.dim()) if mask_name in MASKS else None
            own = signature.outputs.get("mask")
            if keep is None and own and str(port.shape).startswith(f"{own.shape} "):
                keep = before["mask"].view(*before["mask"].shape, *[1] * (output.dim() - before["mask"].dim()))
            expected = before[name]
            if keep is not None:
                expected, output = (
                    torch.where(keep, tensor, torch.zeros_like(tensor)) for tensor in (expected, output)
                )
            require_same(f"{title(name)}, whatever `{mask_name}` hides", expected, output)


# Training, randomness, and what is kept


@law("gradients are finite, and every parameter has one")
def gradients(trial: Trial) -> None:
    for case in trial.case.with_and_without(trial.signature):
        one = Trial(trial.contract, case, trial.backend)
        module = one.build().train()
        feeds = one.feeds()
        wanted: list[tuple[str, Tensor]] = [
            (f"parameter `{name}`", weight) for name, weight in module.named_parameters() if weight.requires_grad
        ]
        for name, wires in feeds.items():
            wanted += [(f"input `{name}`", wire.requires_grad_()) for wire in wires if wire.is_floating_point()]
        found = trial.gradients(one.call(module, feeds), [tensor for _, tensor in wanted])
        whole = all(name in feeds for name in trial.signature.inputs)
        for (name, _), gradient in zip(wanted, found, strict=True):
            if gradient is None:
                if whole and name.startswith("parameter"):
                    raise ViolationError(f"a gradient of {name}", "none: no output depends on it")
            elif not gradient.isfinite().all():
                raise ViolationError(f"a finite gradient of {name}", f"{gradient[~gradient.isfinite()][0].item()}")


@law("in evaluation mode the same input has the same answer, whatever the random state")
def deterministic(trial: Trial) -> None:
    module, feeds = trial.build(), trial.feeds()
    before, after = trial.answer(module, feeds), trial.answer(module, feeds, seed=trial.case.seed + 1)
    for name, output in after.items():
        require_same(f"{title(name)} a second time", before[name], output, exact=True)


@law("forward() leaves its inputs as they are, and in evaluation mode its parameters and buffers")
def pure(trial: Trial) -> None:
    module, feeds = trial.build(), trial.feeds()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    copies = {name: tuple(wire.clone() for wire in wires) for name, wires in feeds.items()}

    positional, keyword = arguments(trial.signature, feeds)
    with torch.no_grad():
        module(*positional, **keyword)
    for name, wires in feeds.items():
        for old, new in zip(copies[name], wires, strict=True):
            require_same(f"input `{name}` unchanged", old, new, exact=True)
    for name, tensor in module.state_dict().items():
        require_same(f"`{name}` unchanged", state[name], tensor, exact=True)


@law("builds on the meta device; with loaded weights it answers as if built with memory", examples=10)
def meta(trial: Trial) -> None:
    module = trial.build()
    with seeded(trial.case.seed):
        hollow = build_meta(trial.contract.cls, trial.case.settings).eval()
    hollow.load_state_dict(module.state_dict(), assign=True)
    for name, tensor in [*hollow.named_parameters(), *hollow.named_buffers()]:
        if tensor.is_meta:
            raise ViolationError(f"`{name}` in the state dict", "it is not: make it a persistent buffer or a parameter")
    _require_twin(trial, module, hollow)


@law("a fresh instance with its state dict gives the same answer", examples=10)
def state_dict(trial: Trial) -> None:
    module, other = trial.build(), trial.build(seed=trial.case.seed + 1)
    other.load_state_dict(module.state_dict())
    _require_twin(trial, module, other)


def _require_twin(trial: Trial, module: nn.Module, other: nn.Module) -> None:
    feeds = trial.feeds()
    before, after = trial.answer(module, feeds), trial.answer(other, feeds)
    for name, output in after.items():
        require_same(f"{title(name)} of the loaded instance", before[name], output, exact=True)


def _no_limits(signature: Signature) -> str | None:
    return None if signature.limits else "it declares no `limits`"


@law("an axis may be as long as `limits` says, and no longer without an error", examples=10, inapplicable=_no_limits)
def limits(trial: Trial) -> None:
    module = trial.build()
    unlimited: list[str] = []
    for name, setting in trial.signature.limits.items():
        if name not in free_names(trial.signature):
            raise ViolationError(f"limits to name a free axis of an input, as `{name}` is not", "an unknown name")
        most = trial.case.settings[setting]
        trial.answer(module, trial.feeds(sizes=trial.case.sizes.but(**{name: most})))
        beyond = trial.feeds(sizes=trial.case.sizes.but(**{name: most + 1}))
        with contextlib.suppress(Exception):
            trial.answer(module, beyond)
            unlimited.append(f"an error for {name}={most + 1}, which is beyond {setting}={most}")
    if unlimited:
        raise ViolationError(unlimited[0], "an answer")
