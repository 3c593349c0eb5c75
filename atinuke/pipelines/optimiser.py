"""The optimiser, and which parameters it decays.

Weight decay pulls a parameter towards zero. It is applied to those with two axes or more: matrices and embedding
tables, of which one tied to the head is both. Vectors and scalars (gains, biases) are left alone.

With `layer_decay`, the rate of a layer is that of the layer behind it times this number (Clark et al., 2020). With
`head_lr`, what a task adds to a pretrained graph has this rate: it has everything to learn yet.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from atinuke.core.errors import fail
from atinuke.pipelines.heads import ADDED
from atinuke.pipelines.recipe import SGD, AdamW


def build_optimiser(
    module: nn.Module, settings: AdamW | SGD, heights: Mapping[str, int] | None = None
) -> torch.optim.Optimizer:
    """A fused optimiser over the parameters that ask for gradients, in groups: decayed and not, by the layers behind
    them (`heights`, see `atinuke.pipelines.layers`). The rate of a group is that of the step times its `scale`.

    Raises:
        AtinukeError: there is a `head_lr`, and a task has added no weights.
    """
    if settings.head_lr and not any(name.startswith(ADDED) for name, _ in module.named_parameters()):
        what = "is the rate of weights that a task adds, and this one adds none"
        raise fail(what, where="optimiser.head_lr", fix="leave it out")
    sorted_: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = settings.layer_decay ** heights[name] if heights and settings.layer_decay < 1 else 1.0
            if settings.head_lr and name.startswith(ADDED):
                scale = settings.head_lr / settings.lr
            sorted_.setdefault((scale, parameter.ndim >= 2), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": found, "scale": scale, **({} if decayed else {"weight_decay": 0.0})}
        for (scale, decayed), found in sorted_.items()
    ]
    options = {**settings.model_dump(exclude={"name", "layer_decay", "head_lr"}), "fused": True}
    if isinstance(settings, SGD):
        return torch.optim.SGD(groups, **options)
    return torch.optim.AdamW(groups, **options)
