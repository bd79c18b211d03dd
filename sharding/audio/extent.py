"""What the structure of a file says about its sound, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from sharding.audio.errors import AudioError
from sharding.audio.form import MAX_CHANNELS, MAX_RATE, MIN_RATE


@dataclass(frozen=True)
class Extent:
    """What is known of a file whose structure is complete.

    Attributes:
        remark: a harmless oddity in words, or "".
        frames: the least number of samples in each channel that decoding must deliver; 0: not known.
        end: the byte where the recording ends; None: the end of the file.
        libsndfile: False if libsndfile would stop before the end of the recording.
        head: bytes that decoders get in place of the first bytes of the file.
        declared: False if the length in the header is only a guess.
    """

    remark: str = ""
    frames: int = 0
    end: int | None = None
    libsndfile: bool = True
    head: bytes = b""
    declared: bool = True


WHOLE = Extent()


def cut(what: str, needed: int, size: int) -> AudioError:
    """The error for a file that ends inside ``what``."""
    return AudioError("truncated", f"{what} ends at byte {needed}, the file at byte {size}")


def check_rate(rate: int, channels: int) -> None:
    """Refuse a rate or a number of channels that no recording has; a resampler would allocate gigabytes for them."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("undecodable", f"an impossible sample rate: {rate} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("undecodable", f"an impossible number of channels: {channels}")
