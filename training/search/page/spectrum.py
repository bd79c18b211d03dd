"""A small spectrogram of a sound for a page that draws it in its own colours."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

BANDS, COLUMNS = 72, 480
LOWEST_HZ, HIGHEST_HZ = 60.0, 14_000.0
SIZE, HOP = 1024, 512  # samples of a frame, and from frame to frame
RANGE_DB = 65.0  # what lies further below the loudest cell is drawn as silence
QUIETEST_DB = -55.0  # the loudest cell of a sound counts at least as much, so that silence stays empty


def spectrum(wave: NDArray[np.float32], rate: int) -> NDArray[np.uint8]:
    """Levels of ``wave [n]`` at ``rate`` Hz, ``[BANDS, columns]``, the highest band first; 255 is the loudest.

    Bands lie evenly on a logarithmic scale.  A column is the loudest of its frames, so that a click stays visible.
    """
    padded = np.pad(np.asarray(wave, np.float32), (0, max(0, SIZE - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP]
    window = np.hanning(SIZE).astype(np.float32)
    edges = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, rate / 2 * 0.95), BANDS + 1) * SIZE / rate
    low = np.floor(edges[:-1]).astype(int)
    high = np.maximum(np.ceil(edges[1:]).astype(int), low + 1)
    columns = min(COLUMNS, len(frames))
    bounds = np.linspace(0, len(frames), columns + 1).astype(int)
    levels = np.empty((BANDS, columns), np.float32)
    for column, (begin, end) in enumerate(itertools.pairwise(bounds)):
        power = np.abs(np.fft.rfft(frames[begin:end] * window, axis=1)) ** 2
        levels[:, column] = _bands(power, low, high).max(axis=0)
    decibels = 10 * np.log10(levels / (SIZE / 4) ** 2 + 1e-12)
    top = max(float(decibels.max()), QUIETEST_DB)
    scaled = np.clip((decibels - top) / RANGE_DB + 1, 0, 1)
    return np.round(255 * scaled).astype(np.uint8)[::-1]


def _bands(power: NDArray[np.float32], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean power of each band, ``[frames, BANDS]``, from cumulated powers ``[frames, bins]``."""
    summed = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    return np.asarray((summed[:, high] - summed[:, low]) / (high - low), np.float32)
