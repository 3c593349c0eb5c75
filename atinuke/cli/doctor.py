"""What this machine can build and run, target by target."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import Any

from atinuke.cli.say import AsJson, say, say_json
from atinuke.core.component import import_target
from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry


@dataclass(frozen=True)
class Half:
    """Building for a target, or running: `versions` of what it needs, what is `missing`, and how to come by it."""

    can: bool
    versions: dict[str, str]
    missing: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What this machine can do about a target; `precisions` are those it builds, known where it can."""

    target: str
    summary: str
    precisions: tuple[str, ...]
    build: Half
    run: Half


def diagnose() -> Iterator[Diagnosis]:
    """All targets, those of plugins too; a plugin that cannot be asked stands for its own."""
    registry = Registry()
    for plugin in ("", *registry.plugins()):
        try:
            backends = registry.backends(plugin)
        except AtinukeError as error:
            broken = _broken(error)
            yield Diagnosis(f"{plugin}:", f"plugin {registry.plugins()[plugin]}", (), broken, broken)
            continue
        for name, backend in backends.items():
            build, builder = _half(backend.builder)
            run, _ = _half(backend.runner)
            yield Diagnosis(name, backend.summary, getattr(builder, "precisions", ()), build, run)


def doctor(json: AsJson = False) -> None:
    """Tell which targets this machine can build and run, and how to install what is missing."""
    found = list(diagnose())
    if json:
        say_json([asdict(one) for one in found])
        return
    from rich.table import Table

    table = Table("target", "builds", "runs", "", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.target, _told(one.build), _told(one.run), one.summary)
    fixes = dict.fromkeys(
        f"{one.target} needs {half.missing}" + (f"; {half.fix}" if half.fix else "")
        for one in found
        for half in (one.build, one.run)
        if half.missing
    )
    say(table, *([""] if fixes else []), *fixes)


def _told(half: Half) -> str:
    return ", ".join(f"{name} {number}" for name, number in half.versions.items()) or "yes" if half.can else "no"


def _half(target: str) -> tuple[Half, Any]:
    """Building or running, by the class that does it."""
    from atinuke.runtime.runner import Runner

    needs_torch = target.startswith("atinuke.compile.") and find_spec("torch") is None
    if needs_torch:
        return Half(False, {}, "torch", "pip install 'atinuke[torch]'"), None
    try:
        cls = import_target(target)
    except AtinukeError as error:
        return _broken(error), None
    packages: Sequence[str] = cls.packages
    versions = {name: _version(name) for name in packages if find_spec(name) is not None}
    absent = next((name for name in packages if name not in versions), None)
    lacks = cls.missing() if issubclass(cls, Runner) else absent
    fix = f"pip install 'atinuke[{cls.extra}]'" if cls.extra and len(versions) < len(packages) else None
    return Half(lacks is None, versions, lacks, fix), cls


def _broken(error: AtinukeError) -> Half:
    """What cannot be imported, and why."""
    mistake = error.mistakes[0]
    return Half(False, {}, f"what it cannot import ({'; '.join(mistake.details)})", mistake.fix)


def _version(package: str) -> str:
    """The version of what is imported by a name."""
    names = packages_distributions().get(package.partition(".")[0], [package])
    try:
        return version(names[0])
    except PackageNotFoundError:
        return "?"
