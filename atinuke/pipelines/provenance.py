"""What a bundle was made with, for its lock."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version

import atinuke
from atinuke.compile.builder import Builder
from atinuke.core.component import import_target
from atinuke.core.graph import Graph
from atinuke.core.registry import Registry
from atinuke.runtime.lock import Origin, Provenance


def provenance(graph: Graph, builds: Iterable[str]) -> Provenance:
    """Where the components of a graph and the backends of the builds (`onnx/fp32`) come from, and the versions of what
    built them.

    Raises:
        AtinukeError: a backend cannot be found.
    """
    registry = Registry()
    used = {node.use for block in (None, *graph.blocks) for node in graph.body(block).nodes.values()} - {*graph.blocks}
    targets = sorted({build.rpartition("/")[0] for build in builds})
    return Provenance(
        atinuke.__version__,
        {name: _origin(name, registry) for name in sorted(used)},
        {name: _origin(name, registry) for name in targets},
        _versions({"torch", "numpy"}.union(*(_builder(name, registry).packages for name in targets))),
    )


def _builder(name: str, registry: Registry) -> type[Builder]:
    found: type[Builder] = import_target(registry.backend(name).builder)
    return found


def _origin(name: str, registry: Registry) -> Origin:
    plugin, _, _ = name.rpartition(":")
    return Origin(plugin, *(registry.package(plugin) if plugin else ("atinuke", atinuke.__version__)))


def _versions(modules: Iterable[str]) -> dict[str, str]:
    """The versions of packages, by what is imported of them."""
    known = _packages()
    found: dict[str, str] = {}
    for module in modules:
        for package in known.get(module.partition(".")[0], []):
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # its files are there, but not what says its version
                continue
    return found


@cache
def _packages() -> Mapping[str, list[str]]:
    """The packages that each module may be of; the files of all that is installed are looked at."""
    return packages_distributions()
