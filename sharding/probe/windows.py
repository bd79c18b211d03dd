"""Cutting long recordings into numbered windows: the rule about their lengths, and a cutter for sound in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowRule:
    """Windows of ``length`` frames, one every ``hop`` frames.

    A window begins only where at least ``tail`` frames of new sound follow.  A shorter rest lengthens the last window
    (if it is adjacent), so that no sound is lost and no sample is very short.  So a recording of at most ``length``
    frames is one window, and a recording of ``length + tail - 1`` frames is one window as well.
    """

    length: int
    hop: int
    tail: int

    def cut(self, frames: int) -> list[tuple[int, int]]:
        """(first frame, number of frames) of each window of a recording of ``frames`` frames."""
        windows: list[tuple[int, int]] = []
        start = 0
        while True:
            if not self.has_next(start, frames):
                end = frames if self.hop <= self.length else min(start + self.length, frames)
                windows.append((start, end - start))
                return windows
            windows.append((start, self.length))
            start += self.hop

    def has_next(self, start: int, frames: int) -> bool:
        """Whether another window follows the window that begins at ``start``."""
        return frames >= max(start + self.length, start + self.hop) + max(self.tail, 1)


class Cutter:
    """Cuts a recording that arrives in blocks; it keeps no more than a window and a block in memory.

    Args:
        rule: lengths in frames.
        channels: the number of channels of the blocks, int16 ``[n, channels]``.
    """

    def __init__(self, rule: WindowRule, channels: int) -> None:
        self._rule = rule
        self._blocks: list[np.ndarray] = []
        self._channels = channels
        self._first = 0  # the frame at which the kept blocks begin
        self.arrived = 0  # frames so far
        self._start = 0  # the frame at which the next window begins

    def push(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(first frame, samples) of each window that is complete with this block."""
        self._blocks.append(block)
        self.arrived += len(block)
        while self._rule.has_next(self._start, self.arrived):
            yield self._start, self._samples_until(self._start + self._rule.length)
            self._start += self._rule.hop
            self._forget()

    def finish(self) -> tuple[int, np.ndarray]:
        """(first frame, samples) of the last window."""
        end = self.arrived
        if self._rule.hop > self._rule.length:
            end = min(end, self._start + self._rule.length)
        return self._start, self._samples_until(end)

    def _samples_until(self, end: int) -> np.ndarray:
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        if not self._blocks:
            return np.zeros((0, self._channels), np.int16)
        return self._blocks[0][self._start - self._first : end - self._first]

    def _forget(self) -> None:
        """Drop the samples before the next window."""
        kept = self._blocks[0]
        skip = min(self._start - self._first, len(kept))
        self._blocks = [kept[skip:].copy()]
        self._first += skip
