"""A body (a graph, or an instance of a block) while it is being checked."""

from dataclasses import dataclass, field

from atinuke.core.checked import CheckedNode
from atinuke.core.scope import Scope
from atinuke.core.wiring import Wiring


@dataclass
class Body:
    """`checked` are its nodes so far; `level` is the place of its block in the file: it may use only those above."""

    wiring: Wiring
    scope: Scope
    level: int
    checked: dict[str, CheckedNode] = field(default_factory=dict)

    def title(self, name: str) -> str:
        return f"{self.wiring.title}{name}"
