"""atinuke.lock: what a bundle was made with, and the size and hash of every file in it.

It tells damage and carelessness, not who made a bundle: whoever can change a file can write a new lock.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atinuke.core.errors import AtinukeError, fail
from atinuke.core.files import replacing
from atinuke.runtime.strict import Value, brief, read_json, require_format

FORMAT = 1
LOCK = "atinuke.lock"
FILES = 10_000
PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,7}")
CODE = re.compile(r".*\.(py[cdo]?|pkl|pickle|joblib|pth?|ckpt|so|dll|dylib|exe|sh|bat|cmd|ps1)", re.IGNORECASE)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANY = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True)
class Origin:
    """Where a component or backend comes from: the plugin ("" is Atinuke itself), and the package and version that
    bring it."""

    plugin: str
    package: str
    version: str


@dataclass(frozen=True)
class Provenance:
    """What a bundle was made with: Atinuke's version, where its components and backends come from, and the versions of
    the packages that built it."""

    atinuke: str
    components: Mapping[str, Origin] = field(default_factory=dict)
    backends: Mapping[str, Origin] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What a file must be: its size in bytes and its hash."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """What `atinuke.lock` says; `files` are all files but itself, by their paths in the bundle."""

    provenance: Provenance
    files: Mapping[str, Entry]


def write_lock(folder: Path, provenance: Provenance) -> None:
    """Writes the lock of what is in the folder now; the same files and versions give the same bytes.

    Raises:
        AtinukeError: the folder holds what no bundle may: a link, a file of code, a name that is no plain word.
    """
    files = {path: Entry(size, _hash(folder / path)) for path, size in sorted(_walk(folder)) if path != LOCK}
    for path in files:
        _allow(path, str(folder))
    _no_clash(files, str(folder))
    told = {
        "atinuke": FORMAT,
        "version": provenance.atinuke,
        "components": {name: vars(origin) for name, origin in sorted(provenance.components.items())},
        "backends": {name: vars(origin) for name, origin in sorted(provenance.backends.items())},
        "packages": dict(sorted(provenance.packages.items())),
        "files": {path: vars(entry) for path, entry in files.items()},
    }
    with replacing(folder / LOCK) as draft:
        draft.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def read_lock(folder: Path) -> Lock:
    """What the lock says, of which nothing is checked against the files.

    Raises:
        AtinukeError: there is none, or it is not what `write_lock` writes.
    """
    value = read_json(folder / LOCK)
    require_format(value, FORMAT)
    lock = value.record("atinuke", "version", "components", "backends", "packages", "files")
    files = lock["files"].mapping()
    if len(files) > FILES:
        raise fail(f"lists more than {FILES:,} files", where=value.file)
    entries: dict[str, Entry] = {}
    for path, told in files.items():
        _allow(path, value.file)
        entry = told.record("size", "sha256")
        entries[path] = Entry(entry["size"].whole(0), entry["sha256"].text(_SHA256, "64 hexadecimal digits"))
    _no_clash(entries, value.file)
    provenance = Provenance(
        lock["version"].text(_ANY, "a version"),
        _origins(lock["components"]),
        _origins(lock["backends"]),
        {name: version.text(_ANY, "a version") for name, version in lock["packages"].mapping(_ANY).items()},
    )
    return Lock(provenance, entries)


def check_files(folder: Path) -> Lock:
    """The lock of a folder that holds exactly the files that it lists, each of its size and hash.

    Raises:
        AtinukeError: a file is missing, too much, changed, or no plain file; the message names it.
    """
    lock = read_lock(folder)
    where = str(folder)
    sizes: dict[str, int] = {}
    for path, size in _walk(folder):
        if path not in lock.files and path != LOCK:
            raise fail(f"{brief(path)} is not in {LOCK}", where=where, fix="remove it")
        sizes[path] = size
    for path, told in lock.files.items():
        if path not in sizes:
            raise fail(f"`{path}` is missing, and {LOCK} lists it", where=where, fix="copy the bundle anew")
        if sizes[path] != told.size:
            raise _changed(path, f"{told.size} bytes", str(sizes[path]), where)
    for path, told in lock.files.items():
        digest = _hash(folder / path)
        if digest != told.sha256:
            raise _changed(path, f"SHA-256 {told.sha256[:16]}...", f"{digest[:16]}...", where)
    return lock


def _changed(path: str, expected: str, got: str, where: str) -> AtinukeError:
    return fail(
        f"`{path}` is not the file that was sealed: {LOCK} says {expected}, it has {got}",
        where=where,
        fix="copy the bundle anew",
    )


def _origins(value: Value) -> dict[str, Origin]:
    read = {name: origin.record("plugin", "package", "version") for name, origin in value.mapping(_ANY).items()}
    return {
        name: Origin(
            "" if origin["plugin"].data == "" else origin["plugin"].text(_ANY, "a plugin's name"),
            origin["package"].text(_ANY, "a package's name"),
            origin["version"].text(_ANY, "a version"),
        )
        for name, origin in read.items()
    }


def _allow(path: str, where: str) -> None:
    if len(path) > 512 or not PATH.fullmatch(path) or path == LOCK:
        raise fail(f"{brief(path)} is not a path that a bundle may have", where=where)
    if CODE.fullmatch(path):
        raise fail(f"`{path}` is code or a pickle, which no bundle holds", where=where)


def _no_clash(paths: Mapping[str, Entry], where: str) -> None:
    """No two paths that some file systems take for one."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.lower(), path)
        if other != path:
            raise fail(f"`{other}` and `{path}` differ only in case", where=where)


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """The path and size of every file; a link, a device or an empty folder is refused, and links are never followed."""
    try:
        with os.scandir(folder / below) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            stats = [entry.stat(follow_symlinks=False) for entry in found]
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(folder / below)) from None
    if below and not found:
        raise fail(f"`{below}` is an empty folder", where=str(folder), fix="remove it")
    for entry, told in zip(found, stats, strict=True):
        kind = told.st_mode
        path = f"{below}/{entry.name}" if below else entry.name
        if stat.S_ISDIR(kind) and path.count("/") < 8:
            yield from _walk(folder, path)
        elif stat.S_ISREG(kind):
            yield path, told.st_size
        else:
            what = "a link" if stat.S_ISLNK(kind) else "no plain file"
            raise fail(f"{brief(path)} is {what}, which no bundle holds", where=str(folder), fix="remove it")


def _hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(file)) from None
