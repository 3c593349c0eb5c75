"""Settings whose keys the user chooses: a mapping of sections, each mistake with its line and its own name."""

import pytest

from atinuke.core.document import parse
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.fields import Audio, Class, Field
from atinuke.pipelines.rows import Manifest, Source
from atinuke.pipelines.section import Section, read


class Settings(Section):
    train: Source
    fields: dict[str, Field]


GOOD = """
train: {name: manifest, files: [a.jsonl]}
fields:
  x: {name: audio, column: s, rate: 8000}
  y:
    name: class
    column: c
"""


def test_a_mapping_of_sections() -> None:
    expected = {"x": Audio(column="s", rate=8000), "y": Class(column="c")}
    assert read(Settings, parse(GOOD)) == Settings(train=Manifest(files=("a.jsonl",)), fields=expected)
    found = read(Settings, parse(GOOD), ["fields.x.rate=16000"])
    assert found.fields["x"] == Audio(column="s", rate=16_000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate", "rte", "f:4  `fields.x.rate` is missing\nf:4  unknown key `fields.x.rte`\n  to fix: use `rate`"),
        ("8000", "fast", "f:4  `fields.x.rate` must be a valid integer\n  got `fast`"),
        ("column: c", "columns: c", "f:5  `fields.y.column` is missing\nf:7  unknown key `fields.y.columns`"),
        ("name: class\n    ", "", "f:5  `fields.y.name` is missing"),
        (
            "class",
            "clas",
            "f:6  `fields.y.name` must be one of 'audio', 'image', 'text', 'chat', 'class', 'classes', 'number'",
        ),
    ],
)
def test_mistakes_in_a_mapping_of_sections(old: str, new: str, message: str) -> None:
    with pytest.raises(AtinukeError) as caught:
        read(Settings, parse(GOOD.replace(old, new), "f"))
    assert message in str(caught.value)
