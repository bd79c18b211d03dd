"""What a file's structure says of its sound, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from sharding.audio.errors import AudioError
from sharding.audio.form import MAX_CHANNELS, MAX_RATE, MIN_RATE


@dataclass(frozen=True)
class Extent:
    """A structure that is whole.

    ``remark``: a harmless oddity, or "".  ``frames``: at least as many samples a channel must come out; 0: not known.
    ``end``: the byte where the recording ends; None: where the file does.  ``libsndfile``: False where libsndfile
    would stop before the end.  ``head``: what decoders are shown instead of the first bytes.
    ``declared``: False where what the header says of the length is no more than a guess.
    """

    remark: str = ""
    frames: int = 0
    end: int | None = None
    libsndfile: bool = True
    head: bytes = b""
    declared: bool = True


WHOLE = Extent()


def cut(what: str, needed: int, size: int) -> AudioError:
    """The error of a file that ends within ``what``."""
    return AudioError("truncated", f"{what} ends at byte {needed}, the file at byte {size}")


def check_rate(rate: int, channels: int) -> None:
    """Refuse what no recording has (and what would make a resampler allocate gigabytes)."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("undecodable", f"an impossible sample rate: {rate} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("undecodable", f"an impossible number of channels: {channels}")
