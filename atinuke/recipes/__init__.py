"""Recipes that ship with Atinuke; `atinuke demo` trains by demo.yaml."""

from importlib.resources import files
from pathlib import Path

HERE = Path(str(files(__name__)))
