import pytest
import torch

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.optimiser import build_optimiser
from atinuke.pipelines.recipe import SGD, AdamW
from tests.pipelines.toy import Toy


def test_only_what_has_two_axes_decays() -> None:
    toy = Toy()
    optimiser = build_optimiser(toy, AdamW(name="adamw", lr=1e-3, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in toy.named_parameters()} == {
        "E.weight": 0.3,
        **{f"stack.{i}.{name}": 0.0 for i in (0, 1) for name in ("norm.weight", "norm.bias", "linear.bias")},
        **{f"stack.{i}.linear.weight": 0.3 for i in (0, 1)},
    }


def test_frozen_parameters_are_left_out() -> None:
    toy = Toy()
    toy.E.weight.requires_grad_(False)
    optimiser = build_optimiser(toy, SGD(name="sgd", lr=1e-3))
    assert not any(p is toy.E.weight for group in optimiser.param_groups for p in group["params"])


def test_what_a_task_adds_has_its_own_rate() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("norm", "task_head")})
    found = {f"{name}.{part}": int(name == "norm") for name in model for part in ("weight", "bias")}
    optimiser = build_optimiser(model, AdamW(name="adamw", lr=1e-4, head_lr=2e-3, layer_decay=0.5), found)
    scales = {id(p): group["scale"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert scales[id(parameter)] == pytest.approx(20 if name.startswith("task_head") else 0.5)
    with pytest.raises(
        AtinukeError, match=r"optimiser\.head_lr  is the rate of weights that a task adds, and this one"
    ):
        build_optimiser(model["norm"], AdamW(name="adamw", lr=1e-4, head_lr=2e-3))


@pytest.mark.parametrize("settings", [AdamW(name="adamw", lr=0.1), SGD(name="sgd", lr=0.1, weight_decay=0.2)])
def test_a_step_is_the_published_one(settings: AdamW | SGD) -> None:
    """Against float64 arithmetic from the papers: decoupled decay for AdamW, L2 for SGD with momentum."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 2, bias=False).double()
    optimiser = build_optimiser(linear, settings)
    weight = linear.weight.detach().numpy().copy()
    gradients = torch.randn(3, 2, 3, dtype=torch.float64)
    m = v = 0.0 * weight
    for t, gradient in enumerate(gradients, 1):
        linear.weight.grad = gradient.clone()
        optimiser.step()
        g = gradient.numpy()
        if isinstance(settings, AdamW):
            (b1, b2), lr = settings.betas, settings.lr
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            update = (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + settings.eps)
            weight = weight - lr * (update + settings.weight_decay * weight)
        else:
            m = settings.momentum * m + g + settings.weight_decay * weight
            weight = weight - settings.lr * m
    assert linear.weight.detach().numpy() == pytest.approx(weight, rel=1e-10)
