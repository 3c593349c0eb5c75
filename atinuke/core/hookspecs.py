"""What a plugin may add. A plugin is a module with functions of these names, marked with `@atinuke.hookimpl`."""

from collections.abc import Iterable

import pluggy

from atinuke.core.component import Component, Rewrite

PROJECT = "atinuke"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def atinuke_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Yields the components that graph files can name."""


@hookspec
def atinuke_rewrites() -> Iterable[Rewrite]:  # type: ignore[empty-body]
    """Yields passes from graph to graph that recipes and commands can name."""
