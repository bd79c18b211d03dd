"""Resampling of sound that arrives in blocks."""

from __future__ import annotations

import numpy as np
import soxr


class Resampler:
    """float32 blocks ``[n, channels]`` from one rate (Hz) to another (soxr HQ); unchanged where the rates are equal."""

    def __init__(self, rate: int, target: int, channels: int) -> None:
        self._empty = np.zeros((0, channels), np.float32)
        self._stream = None
        if rate != target:
            self._stream = soxr.ResampleStream(rate, target, channels, dtype="float32", quality="HQ")

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take a block, and return what is ready, float32 ``[m, channels]``; it lags behind what was given."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def finish(self) -> np.ndarray:
        """Return the rest.  Call once, at the end."""
        return self._empty if self._stream is None else self._stream.resample_chunk(self._empty, last=True)
