"""What a plugin may add. A plugin is a module with functions of these names, marked with `@atinuke.hookimpl`."""

from collections.abc import Iterable

import pluggy

from atinuke.core.component import Backend, Choice, Component, Rewrite

PROJECT = "atinuke"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def atinuke_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Yields the components that graph files can name."""


@hookspec
def atinuke_objectives() -> Iterable[Choice]:  # type: ignore[empty-body]
    """Yields the objectives that recipes can name: subclasses of `atinuke.pipelines.objective.Objective`."""


@hookspec
def atinuke_sources() -> Iterable[Choice]:  # type: ignore[empty-body]
    """Yields the sources of rows that recipes can name: subclasses of `atinuke.pipelines.rows.Source`."""


@hookspec
def atinuke_tasks() -> Iterable[Choice]:  # type: ignore[empty-body]
    """Yields the tasks that recipes and `evaluate` can name: subclasses of `atinuke.pipelines.task.Task`."""


@hookspec
def atinuke_backends() -> Iterable[Backend]:  # type: ignore[empty-body]
    """Yields the targets that models can be compiled for."""


@hookspec
def atinuke_rewrites() -> Iterable[Rewrite]:  # type: ignore[empty-body]
    """Yields passes from graph to graph that recipes and commands can name."""
