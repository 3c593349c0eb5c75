"""What each precision of a target takes on disk."""

from pathlib import Path


def sizes(target: Path) -> dict[str, int]:
    """Bytes of all files of each precision, by name; `target` is a folder `targets/<target>` of a bundle."""
    return {
        precision.name: sum(file.stat().st_size for file in precision.rglob("*") if file.is_file())
        for precision in sorted(target.iterdir())
        if precision.is_dir()
    }
