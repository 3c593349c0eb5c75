"""The optimiser, and which parameters it decays.

Weight decay pulls a parameter towards zero. It is applied to those with two axes or more: matrices and embedding
tables, of which one tied to the head is both. Vectors and scalars (gains, biases) are left alone.
"""

from typing import Any

import torch
from torch import nn

from atinuke.pipelines.recipe import SGD, AdamW


def build_optimiser(module: nn.Module, settings: AdamW | SGD) -> torch.optim.Optimizer:
    """A fused optimiser over the parameters that ask for gradients, in two groups: decayed and not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2]},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    options = {**settings.model_dump(exclude={"name"}), "fused": True}
    if isinstance(settings, SGD):
        return torch.optim.SGD(groups, **options)
    return torch.optim.AdamW(groups, **options)
