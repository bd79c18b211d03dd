"""How a long recording becomes numbered windows: a rule about lengths, and a cutter that follows it on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowRule:
    """Windows of ``length`` frames, one every ``hop`` frames.

    A window is begun only where at least ``tail`` frames of new sound follow; a shorter rest stays with the last
    window (if it touches it), so that nothing is lost and no sample is a snippet.  A recording of at most ``length``
    frames is therefore one window, and so is one of ``length + tail - 1``.
    """

    length: int
    hop: int
    tail: int

    def cut(self, frames: int) -> list[tuple[int, int]]:
        """(first frame, number of frames) of each window of a recording of ``frames`` frames."""
        windows: list[tuple[int, int]] = []
        start = 0
        while True:
            if not self._has_next(start, frames):
                end = frames if self.hop <= self.length else min(start + self.length, frames)
                windows.append((start, end - start))
                return windows
            windows.append((start, self.length))
            start += self.hop

    def _has_next(self, start: int, frames: int) -> bool:
        """Whether another window follows the one that begins at ``start``."""
        return frames >= max(start + self.length, start + self.hop) + max(self.tail, 1)


class Cutter:
    """Cuts a recording that arrives in blocks; holds no more than a window and a block.

    Args:
        rule: lengths in frames.
        channels: of the blocks, int16 ``[n, channels]``.
    """

    def __init__(self, rule: WindowRule, channels: int) -> None:
        self._rule = rule
        self._blocks: list[np.ndarray] = []
        self._channels = channels
        self._first = 0  # frame at which the held blocks begin
        self.arrived = 0  # frames
        self._start = 0  # of the next window

    def push(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(first frame, samples) of each window that this block decides."""
        self._blocks.append(block)
        self.arrived += len(block)
        while self._rule._has_next(self._start, self.arrived):
            yield self._start, self._take(self._start + self._rule.length)
            self._start += self._rule.hop
            self._forget()

    def finish(self) -> tuple[int, np.ndarray]:
        """(first frame, samples) of the last window."""
        end = self.arrived
        if self._rule.hop > self._rule.length:
            end = min(end, self._start + self._rule.length)
        return self._start, self._take(end)

    def _take(self, end: int) -> np.ndarray:
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        if not self._blocks:
            return np.zeros((0, self._channels), np.int16)
        return self._blocks[0][self._start - self._first : end - self._first]

    def _forget(self) -> None:
        """Let go of what lies before the next window."""
        held = self._blocks[0]
        skip = min(self._start - self._first, len(held))
        self._blocks = [held[skip:].copy()]
        self._first += skip
