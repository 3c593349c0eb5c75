"""The linear map that every component uses, with the initialisation of GPT-2."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

INITIAL_STD = 0.02


class Linear(nn.Linear):
    """`nn.Linear` whose weights start from a normal distribution of deviation 0.02 and whose bias starts at zero
    (Radford et al., 2019). Where it is several maps in one, `parts` names them with the outputs of each, in order."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, parts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.parts = dict(parts or {})

    if TYPE_CHECKING:

        def __call__(self, input: Tensor) -> Tensor: ...  # noqa: A002

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
