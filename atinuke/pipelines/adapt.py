"""How a run adapts what it begins with: the section `adapt` of a recipe.

```yaml
adapt:
  lora: {rank: 8, alpha: 16, on: [stack.*.H.qkv], parts: [q, v]}   # Hu et al., 2021
  adapters: {size: 64, after: [stack.*.F]}                          # Houlsby et al., 2019
  prefix: {length: 16, on: [stack.*.H]}                             # Li and Liang, 2021
  train: [norm.*]                                                   # whole, as in full fine-tuning
  freeze: [norm.bias]
```

Patterns are shell's, over names as the state dict has them. Trained is what the base does not have (what adaptation
adds, a new head) and what `train` names without `freeze`; everything else stays as it is in the base, and is not saved.
"""

from collections.abc import Collection
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import nn

from atinuke.compile.front import check_graph
from atinuke.compile.meta import MetaProbe
from atinuke.core.adapt import add_adapters, add_lora, add_prefix, find
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines.section import Section

Positive = Annotated[int, Field(gt=0)]
Patterns = Annotated[tuple[str, ...], Field(strict=False)]
Named = Annotated[Patterns, Field(min_length=1)]


class LowRank(Section):
    """Low-rank updates of the linear maps called like `on`; of those that are several in one, only of the `parts`."""

    rank: Positive
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    on: Named
    parts: Patterns = ()


class Bottleneck(Section):
    """Adapters through `size` channels behind what the nodes called like `after` give."""

    size: Positive
    after: Named


class Prefix(Section):
    """So many learned keys and values in the attentions called like `on`."""

    length: Positive
    on: Named


class Adapt(Section):
    """See the module."""

    lora: LowRank | None = None
    adapters: Bottleneck | None = None
    prefix: Prefix | None = None
    train: Patterns = ()
    freeze: Patterns = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.freeze and not self.train:
            raise ValueError("has `freeze` without `train`: write train: ['*'] to train all the rest")
        if not (self.lora or self.adapters or self.prefix or self.train):
            raise ValueError("says nothing: give `lora`, `adapters`, `prefix` or `train`")
        return self

    def rewritten(self, checked: CheckedGraph) -> CheckedGraph:
        """The graph with what is added.

        Raises:
            AtinukeError: a pattern is of nothing, or what it is of cannot be adapted like that.
        """
        if self.prefix:
            checked = check_graph(add_prefix(checked, self.prefix.on, self.prefix.length, "adapt.prefix.on"))
        if self.lora:
            values: dict[str, Any] = self.lora.model_dump(include={"rank", "alpha", "dropout"}, exclude_none=True)
            if not self.lora.dropout:
                del values["dropout"]
            parts, where = self.lora.parts, "adapt.lora"
            checked = check_graph(add_lora(checked, self.lora.on, values, parts, MetaProbe(), where))
        if self.adapters:
            checked = check_graph(
                add_adapters(checked, self.adapters.after, self.adapters.size, "adapt.adapters.after")
            )
        return checked

    def freeze_rest(self, module: nn.Module, new: Collection[str]) -> frozenset[str]:
        """Leaves only what is trained with gradients; `new` is what the base does not have. Returns the names of the
        frozen parameters.

        Raises:
            AtinukeError: a pattern is of nothing, new parameters would be frozen, or nothing would be trained.
        """
        parameters = dict(module.named_parameters())
        trained = find(self.train, parameters, "adapt.train") - find(self.freeze, parameters, "adapt.freeze")
        lost = [name for name in new if self.freeze and name in find(self.freeze, parameters, "adapt.freeze")]
        if lost:
            what = f"`{lost[0]}` begins anew, so that it cannot be frozen"
            raise fail(what, where="adapt.freeze", fix="leave it out, or begin from a base that has it")
        trained |= parameters.keys() & set(new)
        if not trained:
            raise fail("nothing would be trained", where="adapt", fix="name some of its parameters under `train`")
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)
        return frozenset(parameters.keys() - trained)
