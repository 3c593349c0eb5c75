"""The pytest plugin: one test for every component of a plugin and every law, without a test file.

    pytest --atinuke-plugin strided

`strided` is the name of the plugin's entry point, with which its components begin in graph files. To have the laws
tried with all other tests, put one line into `pyproject.toml`:

    [tool.pytest.ini_options]
    addopts = "--atinuke-plugin strided"

The tests are called `strided:text.embedding[rows]`, so that `-k rows` or `-k text.embedding` chooses some. A law that
does not apply, or cannot be tried on this machine, is skipped with the reason. Without the option torch is not
imported.
"""

from collections.abc import Iterator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("atinuke").addoption(
        "--atinuke-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="try every law on every component of this Atinuke plugin (may be given several times)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for plugin in config.getoption("--atinuke-plugin"):
        items.extend(_tests(session, plugin))


def _tests(session: pytest.Session, plugin: str) -> Iterator[pytest.Item]:
    from atinuke.core.errors import AtinukeError
    from atinuke.core.registry import Registry

    try:
        components = Registry().components(plugin)
        from atinuke.testing import LAWS
    except AtinukeError as error:
        raise pytest.UsageError(f"--atinuke-plugin: {error}") from None
    for component in components:
        for law in LAWS:
            yield LawTest.from_parent(session, name=f"{component}[{law}]", component=component, law=law)


class LawTest(pytest.Item):
    """One law on one component."""

    def __init__(self, *, component: str, law: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.component = component
        self.law = law

    def runtest(self) -> None:
        from atinuke.testing import run_laws

        (result,) = run_laws(self.component, laws=[self.law])
        if result.error is not None:
            raise result.error
        if result.status != "passed":
            pytest.skip(result.reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from atinuke.testing import LawError

        if isinstance(excinfo.value, LawError) and excinfo.value.__cause__ is None:
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name
