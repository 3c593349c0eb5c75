"""The last that is written of a bundle: its config, its card and its lock."""

from pathlib import Path

from atinuke.core.files import replacing
from atinuke.runtime.bundle import CARD, Bundle, read_config, require_layout, write_config
from atinuke.runtime.card import card, front_matter
from atinuke.runtime.lock import Provenance, read_lock, write_lock


def seal(bundle: Bundle, provenance: Provenance) -> None:
    """Writes `config.json`, the card and the lock of what is in the bundle's folder. The same files and versions give
    the same bytes.

    Raises:
        AtinukeError: `open_bundle` would refuse what is there.
    """
    write_config(bundle)
    _finish(read_config(bundle.folder), provenance, None)


def reseal(folder: Path) -> None:
    """Writes the card and the lock anew, when something in a bundle has been changed on purpose: `parity.json`, or the
    front matter of the card, which stays as it is.

    Raises:
        AtinukeError: `open_bundle` would refuse what is there.
    """
    provenance = read_lock(folder).provenance
    _finish(read_config(folder), provenance, front_matter(folder / CARD))


def _finish(bundle: Bundle, provenance: Provenance, front: str | None) -> None:
    with replacing(bundle.folder / CARD) as draft:
        draft.write_text(card(bundle, provenance, front), encoding="utf-8")
    write_lock(bundle.folder, provenance)
    require_layout(bundle, read_lock(bundle.folder))
