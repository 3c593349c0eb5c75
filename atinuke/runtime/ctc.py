"""From the best class of every frame to labels: the reading that belongs to CTC (Graves et al., 2006)."""

from collections.abc import Iterable, Iterator

BLANK = ""
"""The name, among those of classes, of the class that stands for no label."""


def collapsed(path: Iterable[int], blank: int) -> Iterator[int]:
    """Of equal neighbours one, and no blanks."""
    before = blank
    for label in path:
        if label not in (blank, before):
            yield label
        before = label
