"""Atinuke: one graph file, checked, trained and deployed (arXiv:2401.16736).

Names are loaded when they are first used, so that `import atinuke` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atinuke.compile.front import check_graph as check_graph
    from atinuke.compile.front import open_graph as open_graph
    from atinuke.compile.module import build as build
    from atinuke.core.component import Backend as Backend
    from atinuke.core.component import Choice as Choice
    from atinuke.core.component import Component as Component
    from atinuke.core.component import Rewrite as Rewrite
    from atinuke.core.errors import AtinukeError as AtinukeError
    from atinuke.core.graph import Graph as Graph
    from atinuke.core.hookspecs import hookimpl as hookimpl
    from atinuke.core.registry import Registry as Registry
    from atinuke.pipelines.pretrained.opening import from_pretrained as from_pretrained

__version__ = "0.1.0"

_PUBLIC = {
    "AtinukeError": "atinuke.core.errors",
    "Backend": "atinuke.core.component",
    "Choice": "atinuke.core.component",
    "Component": "atinuke.core.component",
    "Graph": "atinuke.core.graph",
    "Registry": "atinuke.core.registry",
    "Rewrite": "atinuke.core.component",
    "build": "atinuke.compile.module",
    "check_graph": "atinuke.compile.front",
    "from_pretrained": "atinuke.pipelines.pretrained.opening",
    "hookimpl": "atinuke.core.hookspecs",
    "open_graph": "atinuke.compile.front",
}

__all__ = [
    "AtinukeError",
    "Backend",
    "Choice",
    "Component",
    "Graph",
    "Registry",
    "Rewrite",
    "__version__",
    "build",
    "check_graph",
    "from_pretrained",
    "hookimpl",
    "open_graph",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
