"""Completes a bundle's certificate on another machine, without torch: its builds against the answers that lie in it."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.runtime.bundle import PARITY, Bundle
from atinuke.runtime.comparison import compare, compare_texts, load_sample, load_writing
from atinuke.runtime.parity import SAMPLES, TEXTS, Build, Parity, read_parity
from atinuke.runtime.runner import NotHereError, Runner

NO_SAMPLES = "the bundle holds no samples of it"

Tell = Callable[[str, int, int], Any]


def verify(bundle: Bundle, builds: Sequence[str] = (), tell: Tell = lambda what, done, of: None) -> Parity:
    """The certificate of a bundle's builds (of those named, or of all) on this machine.

    Raises:
        AtinukeError: there is no such build, an engine does not take its files, or certificate and samples do not
            belong to the bundle.
    """
    parity = read_parity(bundle.folder / PARITY)
    known = {build.name: build for build in parity.builds}
    for name in builds:
        if name not in known:
            told = f"it has {', '.join(known)}"
            raise fail(f"the bundle has no `{name}`", told, where=str(bundle.folder), fix=close(name, known))
    found = []
    for name in builds or known:
        tell(f"{name}: comparing", 0, 0)
        try:
            runner = bundle.runner(name)
        except NotHereError as error:
            told = "; ".join(mistake.what for mistake in error.mistakes)
            found.append(replace(known[name], calls=(), texts=None, reason=told, quality=None))
            continue
        try:
            found.append(_again(known[name], parity, bundle.folder / SAMPLES, runner))
        except (KeyError, IndexError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
            told = f"{type(error).__name__}: {error}"
            raise fail(
                "certificate and samples do not fit the bundle", told, where=str(bundle.folder), fix="compile it again"
            ) from None
    return replace(parity, builds=tuple(found), quality=None)  # that was measured on another machine


def _again(build: Build, parity: Parity, folder: Path, runner: Runner) -> Build:
    """A build compared here; not run, where the bundle has no answers. Calls whose answers are not kept are left out,
    but for those that have never been run."""
    calls = []
    for program, kept in parity.samples.items():
        answers = load_sample(folder / f"{program}.npz", len(kept))
        for call, (feeds, wanted) in zip(kept, answers, strict=True):
            found = compare(runner.programs[program], wanted, runner.run(program, feeds))
            calls.append(replace(call, differences=found))
    here = {(call.program, call.kind, *call.sizes.items()) for call in calls}
    never = [call for call in build.calls if call.reason and (call.program, call.kind, *call.sizes.items()) not in here]
    file = folder / f"{TEXTS}.npz"
    texts = compare_texts(load_writing(file), runner) if file.is_file() else None
    return replace(build, calls=(*calls, *never), texts=texts, reason=None if calls else NO_SAMPLES, quality=None)
