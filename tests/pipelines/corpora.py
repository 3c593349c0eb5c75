"""A trained tokenizer and real documents, for the tests of what is built on them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

from atinuke.pipelines.tokenizer import Tokenizer

TEXTS = [topics[name] for name in sorted(topics)]


@cache
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS, 1000)


def json_lines(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
