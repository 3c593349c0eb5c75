"""The pytest plugin, with a third party's plugin that is installed in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atinuke.testing import LAWS

ROOT = Path(__file__).parents[2]
GAUGE = """
from atinuke import Component, hookimpl

@hookimpl
def atinuke_components():
    yield Component("text.sound", "tests.testing.broken:Rowwise", "sound")
    yield Component("text.broken", "tests.testing.broken:NarrowOutput", "broken")
"""
ENTRY_POINTS = """
[atinuke]
gauge = gauge

[pytest11]
atinuke = atinuke.testing_plugin
"""


@pytest.fixture
def installed(tmp_path):
    """What pip leaves of an installed plugin, and of Atinuke's own entry point for pytest."""
    (tmp_path / "gauge.py").write_text(GAUGE)
    info = tmp_path / "gauge-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gauge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def run_pytest(folder: Path, *arguments: str, after: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    environment.pop("PYTEST_ADDOPTS", None)
    given = ["-q", "-p", "no:cacheprovider", *arguments]
    code = f"import pytest, sys; code = int(pytest.main({given!r})); {after or 'sys.exit(code)'}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_one_test_for_every_component_and_law(installed):
    done = run_pytest(installed, "--atinuke-plugin", "gauge", "--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    for component in ("sound", "broken"):
        assert [f"gauge:text.{component}[{law}]" in done.stdout for law in LAWS] == [True] * len(LAWS)


def test_a_broken_law_fails_with_its_message(installed):
    done = run_pytest(installed, "--atinuke-plugin", "gauge", "-k", "shape or limits")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 2 skipped" in done.stdout
    assert "`gauge:text.broken` breaks the law `shape`" in done.stdout
    assert "got [3]" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_unknown_plugin_is_a_usage_error(installed):
    done = run_pytest(installed, "--atinuke-plugin", "gouge")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no plugin called `gouge` is installed" in done.stderr
    assert "use `gauge:`" in done.stderr


def test_without_the_option_torch_is_not_imported(installed):
    (installed / "test_nothing.py").write_text("def test_nothing(): pass\n")
    modules = "print([name in sys.modules for name in ('atinuke.testing_plugin', 'torch')])"
    done = run_pytest(installed, after=modules)
    assert done.stdout.strip().splitlines()[-1] == "[True, False]", done.stdout + done.stderr
