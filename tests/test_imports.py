"""What may be imported where: nothing heavy at the start, nothing upwards, no torch in the language."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINE_LEARNING = {"torch", "onnx", "onnxruntime", "transformers", "tokenizers", "tensorboard"}
SLOW = MACHINE_LEARNING | {"numpy", "sympy", "pydantic", "matplotlib", "pluggy", "typer", "rich", "yaml"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def imported(code: str) -> set[str]:
    """The packages that a fresh interpreter has imported after running `code`."""
    done = python(f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_importing_atinuke_imports_nothing_else() -> None:
    assert not imported("import atinuke") & SLOW


def test_help_imports_no_machine_learning() -> None:
    code = """
sys.argv = ["atinuke", "--help"]
from atinuke.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert not imported(code) & MACHINE_LEARNING


def test_the_language_imports_no_machine_learning() -> None:
    code = """
import importlib, pkgutil, atinuke.core
for module in pkgutil.iter_modules(atinuke.core.__path__, "atinuke.core."):
    importlib.import_module(module.name)
"""
    assert not imported(code) & MACHINE_LEARNING


def test_listing_the_components_imports_none_of_them() -> None:
    code = "from atinuke import Registry\nr = Registry()\nr.components(), r.objectives(), r.sources()"
    assert not imported(code) & {*MACHINE_LEARNING, "pydantic"}


def test_imports_point_down() -> None:
    done = python("from importlinter.cli import lint_imports; raise SystemExit(lint_imports())")
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
