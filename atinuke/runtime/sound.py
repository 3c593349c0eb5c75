"""Sound files as samples: wav, flac, ogg (Vorbis, Opus) and mp3, of any rate and number of channels.

Decoded by libsndfile and resampled by soxr at its high quality; needs `atinuke[audio]`.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.runtime.media import named, opened

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
FIX = "give a wav, flac, ogg or mp3 file"
LONGEST = 60.0
BLOCK = 1 << 16  # frames decoded at a time
NOT_RECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
UNKNOWN = (0, 0xFFFFFFFF)  # the size in the header of a wav that was written into a pipe
# libsndfile reads what there is of a truncated file and says so only in its log.
SHORT_DATA = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
NO_END = re.compile(r"lacks an end-of-stream bit|without an End-Of-Stream flag")


def read_sound(source: Path | bytes, rate: int, longest: float = LONGEST) -> NDArray[np.float32]:
    """The samples of a file, or of its bytes, at `rate` Hz: float32 `[samples]`, full scale being -1 to 1.

    Several channels become their mean. A recording of more than `longest` seconds is refused before it is decoded.

    Raises:
        AtinukeError: the file is missing, unreadable, empty, of another format, damaged, truncated, without samples,
            longer than `longest`, or has samples that are no finite numbers; or soundfile and soxr are not installed.
    """
    try:
        import soundfile
        import soxr
    except ImportError:
        raise fail("reading sound needs soundfile and soxr", fix="pip install 'atinuke[audio]'") from None
    where = named(source)
    with opened(source) as stream:
        try:
            with soundfile.SoundFile(stream) as file:
                samples, theirs = _mono(file, longest, where), int(file.samplerate)
        except soundfile.LibsndfileError as error:
            if error.code == NOT_RECOGNISED:
                raise fail("is not a sound file", where=where, fix=FIX) from None
            raise fail("is damaged or truncated", error.error_string, where=where, fix="copy it again") from None
        except TypeError:  # soundfile's, about a name that ends in .raw
            raise fail("is not a sound file", "raw samples do not say their rate", where=where, fix=FIX) from None
    if not len(samples):
        raise fail("has no samples", where=where)
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise fail("has samples that are no numbers", f"{bad:,} of {len(samples):,} are NaN or infinite", where=where)
    resampled: NDArray[np.float32] = soxr.resample(samples, theirs, rate)
    return resampled


def _mono(file: Any, longest: float, where: str | None) -> NDArray[np.float32]:
    """The mean of the channels, block by block: hundreds of channels take no more memory than one."""
    if file.format not in FORMATS:
        raise fail("is sound in a format that is not read", f"its format: {file.format}", where=where, fix=FIX)
    found = SHORT_DATA.search(file.extra_info)
    if NO_END.search(file.extra_info) or (found and int(found[1]) not in UNKNOWN and int(found[1]) > int(found[2])):
        raise _truncated(where)
    most = longest * file.samplerate
    known = file.frames < 1 << 62  # a stream may not say how long it is
    blocks, total = [np.empty(0, np.float32)], 0
    while total <= most and not (known and file.frames > most):
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        blocks.append(block.mean(1))
        total += len(block)
        if len(block) < BLOCK:
            if known and total < file.frames:
                raise _truncated(where)
            return np.concatenate(blocks)
    seconds = f"{file.frames / file.samplerate:,.1f} s" if known else "more"
    raise fail(f"is longer than {longest:g} s", seconds, where=where, fix="cut it, or allow more by `longest`")


def _truncated(where: str | None) -> Exception:
    return fail("is truncated", "it ends before its header says", where=where, fix="copy it again")
