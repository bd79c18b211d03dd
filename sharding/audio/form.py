"""The form in which shards store sound, and the canonical form in which sound is measured and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sharding.common.errors import InputError

CANONICAL_RATE = 32000  # Hz; pcm_sha256, levels, bandwidth and fingerprints are of mono sound at this rate
CODECS = ("flac", "wav", "opus", "original")
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # RFC 6716, section 2
MIN_RATE, MAX_RATE = 1000, 768_000  # Hz; a header that names another rate is wrong
MAX_CHANNELS = 64


@dataclass(frozen=True)
class AudioForm:
    """How shards store sound.

    Args:
        codec: ``flac`` (16 bit), ``wav`` (16 bit), ``opus`` (in Ogg), or ``original``: the source's own
            bytes for recordings that fit into one window, FLAC windows for longer ones.
        rate: samples a second; for Opus one of its five rates.
        channels: 1 (the mean of all channels) or 2 (one channel is doubled; more than two become their mean, doubled).
    """

    codec: str = "flac"
    rate: int = CANONICAL_RATE
    channels: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InputError("unknown audio codec", value=self.codec, remedy=f"choose one of {', '.join(CODECS)}")
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise InputError("sample rate out of range", value=self.rate, remedy=f"choose {MIN_RATE} to {MAX_RATE} Hz")
        if self.codec == "opus" and self.rate not in OPUS_RATES:
            rates = ", ".join(map(str, OPUS_RATES))
            raise InputError("Opus does not have this sample rate", value=self.rate, remedy=f"choose one of {rates}")
        if self.channels not in (1, 2):
            raise InputError("unknown number of channels", value=self.channels, remedy="choose 1 or 2")

    @property
    def window_codec(self) -> str:
        """The codec of windows that must be encoded: a part of a file cannot keep the file's own bytes."""
        return "flac" if self.codec == "original" else self.codec


def mix(block: np.ndarray, channels: int) -> np.ndarray:
    """float32 ``[n, c]`` as ``[n, channels]``; where the numbers differ, the mean of all channels, doubled for two."""
    given = block.shape[1]
    if given == channels:
        return block
    if given == 1:
        return np.repeat(block, channels, axis=1)
    if given == 2:  # many times faster than numpy's mean over so short an axis
        mono = (block[:, :1] + block[:, 1:]) * np.float32(0.5)
    else:
        mono = block.mean(axis=1, keepdims=True, dtype=np.float32)
    return mono if channels == 1 else np.repeat(mono, channels, axis=1)


def quantise(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1) to int16: ``rint(32768 x)``, clipped; exact for samples that came from 16 bits."""
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)
