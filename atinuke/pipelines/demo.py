"""What the demonstration is trained on: the language reference that comes with CPython, and the recipe that ships."""

import importlib
import json
from pathlib import Path

from atinuke import recipes
from atinuke.core.errors import fail

PROMPTS = ("The `for` statement", "A class definition")


def prepare_demo(folder: Path) -> Path:
    """Writes the texts, a document a topic, and the recipe into a folder; returns the recipe's path.

    Raises:
        AtinukeError: this Python comes without its language reference, or the folder cannot be written.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise fail("this Python comes without `pydoc_data.topics`", fix="use a full installation of CPython") from None
    recipe = folder / "demo.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "topics.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": topics[name]}) + "\n" for name in sorted(topics))
        recipe.write_text((recipes.HERE / "demo.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise fail(f"cannot be written: {error.strerror or error}", where=str(folder)) from None
    return recipe
