"""From a name to a record. Built-ins come first; a third party's plugin is imported when a graph names it.

A component of an installed plugin is called `plugin:kind.variant`, where `plugin` is the name of its entry point in
the group `atinuke`. So a plugin that is broken, or that clashes with another, hurts only graphs that name it.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TypeVar

import pluggy

from atinuke.core import hookspecs
from atinuke.core.component import Backend, Choice, Component, Rewrite
from atinuke.core.errors import AtinukeError, Mistake, fail

GROUP = "atinuke"
BUILTINS = "atinuke.plugins"

Record = TypeVar("Record", Backend, Choice, Component, Rewrite)


class Registry:
    """Finds components, objectives, sources of rows, tasks, backends and rewrites by name."""

    def __init__(self, entries: Iterable[EntryPoint] | None = None) -> None:
        self._entries: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=GROUP) if entries is None else entries:
            known = self._entries.setdefault(entry.name, [])
            if all(entry.value != other.value for other in known):
                known.append(entry)
        self._managers: dict[str, pluggy.PluginManager] = {}
        self._classes: dict[str, type] = {}

    def plugins(self) -> Mapping[str, str]:
        """Installed third-party plugins: entry point name -> the module it names (both, where two share a name)."""
        return {name: " and ".join(map(_provider, found)) for name, found in sorted(self._entries.items())}

    def package(self, plugin: str) -> tuple[str, str]:
        """The package that brings an installed plugin, and its version, as far as they are known."""
        found = next((entry.dist for entry in self._entries.get(plugin, []) if entry.dist), None)
        return (found.name, found.version) if found else ("unknown", "unknown")

    def components(self, plugin: str = "") -> dict[str, Component]:
        """The components of one plugin ("" is the built-ins), by the names that graph files use."""
        return self._records(plugin, "atinuke_components", Component)

    def objectives(self, plugin: str = "") -> dict[str, Choice]:
        """The objectives of one plugin ("" is the built-ins), by the names that recipes use."""
        return self._records(plugin, "atinuke_objectives", Choice)

    def sources(self, plugin: str = "") -> dict[str, Choice]:
        """The sources of rows of one plugin ("" is the built-ins), by the names that recipes use."""
        return self._records(plugin, "atinuke_sources", Choice)

    def tasks(self, plugin: str = "") -> dict[str, Choice]:
        """The tasks of one plugin ("" is the built-ins), by the names that recipes use."""
        return self._records(plugin, "atinuke_tasks", Choice)

    def backends(self, plugin: str = "") -> dict[str, Backend]:
        """The backends of one plugin ("" is the built-ins), by the names that `--target` takes."""
        return self._records(plugin, "atinuke_backends", Backend)

    def rewrites(self, plugin: str = "") -> dict[str, Rewrite]:
        """The rewrites of one plugin ("" is the built-ins), by name."""
        return self._records(plugin, "atinuke_rewrites", Rewrite)

    def component(self, name: str) -> Component:
        """The record of a component.

        Raises:
            AtinukeError: nothing has that name, or its plugin is missing, broken or clashes with another.
        """
        return self._find(name, self.components, "component")

    def objective(self, name: str) -> Choice:
        """The record of an objective; errors as for `component`."""
        return self._find(name, self.objectives, "objective")

    def source(self, name: str) -> Choice:
        """The record of a source of rows; errors as for `component`."""
        return self._find(name, self.sources, "source")

    def task(self, name: str) -> Choice:
        """The record of a task; errors as for `component`."""
        return self._find(name, self.tasks, "task")

    def backend(self, name: str) -> Backend:
        """The record of a backend; errors as for `component`."""
        return self._find(name, self.backends, "target")

    def rewrite(self, name: str) -> Rewrite:
        """The record of a rewrite; errors as for `component`."""
        return self._find(name, self.rewrites, "rewrite")

    def load(self, name: str) -> type:
        """The class of a component; imports the module it lives in."""
        if name not in self._classes:
            self._classes[name] = self.component(name).load()
        return self._classes[name]

    def _find(self, name: str, records: Callable[[str], dict[str, Record]], what: str) -> Record:
        plugin, _, _ = name.rpartition(":")
        known = records(plugin)
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known, n=1)
        raise fail(
            f"no {what} is called `{name}`",
            fix=f"use `{close[0]}`" if close else "see `atinuke plugins list` for the names there are",
        )

    def _records(self, plugin: str, hook: str, kind: type[Record]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for record in self._call(plugin, hook):
            if not isinstance(record, kind):
                what = f"plugin `{plugin or BUILTINS}` yields {record!r} from `{hook}`"
                raise fail(what, f"expected a {kind.__name__}")
            name = f"{plugin}:{record.name}" if plugin else record.name
            if name in found:
                by = (f"by {getattr(one, 'target', one)}" for one in (found[name], record))
                raise fail(f"`{name}` is registered twice", *by, fix="rename one")
            found[name] = record
        return found

    def _call(self, plugin: str, hook: str) -> list[object]:
        """What a plugin yields from a hook."""
        try:
            return [record for records in getattr(self._manager(plugin).hook, hook)() for record in records]
        except AtinukeError:
            raise
        except (Exception, SystemExit) as error:
            raise fail(
                f"plugin `{plugin or BUILTINS}` fails in `{hook}`",
                f"{type(error).__name__}: {error}",
                fix="repair or uninstall it; what does not name it is not affected",
            ) from error

    def _manager(self, plugin: str) -> pluggy.PluginManager:
        if plugin not in self._managers:
            self._managers[plugin] = _manage(plugin or BUILTINS, self._import(plugin))
        return self._managers[plugin]

    def _import(self, plugin: str) -> ModuleType:
        if not plugin:
            return importlib.import_module(BUILTINS)
        found = self._entries.get(plugin, [])
        if not found:
            close = difflib.get_close_matches(plugin, self._entries, n=1)
            raise fail(
                f"no plugin called `{plugin}` is installed",
                fix=f"use `{close[0]}:`" if close else f"install the package that provides `{plugin}`",
            )
        if len(found) > 1:
            raise fail(
                f"two plugins are called `{plugin}`",
                *(f"one is {_provider(entry)}" for entry in found),
                fix="uninstall one of them",
            )
        try:
            return importlib.import_module(found[0].value)
        except (Exception, SystemExit) as error:
            raise fail(
                f"plugin `{plugin}` cannot be imported",
                f"{type(error).__name__}: {error}",
                f"it is {_provider(found[0])}",
                fix="repair or uninstall it; what does not name it is not affected",
            ) from error


def _provider(entry: EntryPoint) -> str:
    package = f" of package {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"{entry.value}{package}"


def _manage(name: str, module: ModuleType) -> pluggy.PluginManager:
    """A manager for one plugin alone; a hook that nobody specified is an error, not silence."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise AtinukeError(
            Mistake(
                f"plugin `{name}` has a hook that does not exist or does not fit",
                details=(str(error).strip().splitlines()[0],),
                fix=f"the hooks are {', '.join(name for name in vars(hookspecs) if name.startswith('atinuke_'))}",
            )
        ) from None
    return manager
