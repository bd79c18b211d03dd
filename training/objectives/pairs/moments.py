"""A loss between captions with times and windows of recordings: a caption finds the windows in which it is true.

It is NT-Xent (`ntxent`) over the captions and the windows of all samples of the global batch.  Of the windows of a
caption's own recording,

- those that share at least ``least`` of themselves, or of an interval of the caption, with the interval are positives;
- those that share nothing with any interval of the caption are negatives;
- the others are left out: whether the caption is true of them is not sure.

Windows of other recordings are negatives, unless the recordings may hold the same sound or have the caption too; these
are left out.  A caption without times has no positives and counts as a negative of other recordings' windows alone.

The times travel as whole numbers where tags of items do: see `CaptionTimes` and `window_words`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.config.checks import require
from training.objectives.pairs import ntxent
from training.objectives.pairs.base import Statistics, Tile, check_temperature
from training.objectives.pairs.ntxent import NTXent
from training.objectives.pairs.relations import Related

__all__ = ["MomentNCE", "Settings", "caption_words", "window_words"]


@dataclass(frozen=True)
class Settings:
    """Settings of the loss between captions and windows.

    Attributes:
        tau: temperature.
        trainable_tau: learn it, between 0.01 and 1.
        least: the share of a window, or of an interval, that both must have in common for a positive.
    """

    tau: float = 0.05
    trainable_tau: bool = False
    least: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.least <= 1, "least must be above 0, and at most 1", self.least)
        check_temperature(self.tau, self.trainable_tau)


def caption_words(clip: Tensor, intervals: Tensor) -> Tensor:
    """What travels with a caption, ``[b, 1 + 2 k]`` int64: its clip, and the k intervals in which it is true.

    Args:
        clip: stable ids ``[b]`` int64.
        intervals: ``[b, 2 k]`` int64 from `training.data.moments.CaptionTimes.words`.
    """
    return torch.cat((clip[:, None], intervals), dim=1)


def window_words(clip: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """What travels with a window, ``[n, 3]`` int64: its clip, and where it begins and ends, in ticks."""
    return torch.stack((clip, start, end), dim=1)


class MomentNCE(NTXent):
    """NT-Xent whose positives in a recording are decided by times; the module's description has the rules."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(ntxent.Settings(tau=settings.tau, trainable_tau=settings.trainable_tau))
        self.least = settings.least

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        return super().observe(self._timed(tile))

    def gradient(
        self, tile: Tile, of_rows: Statistics, of_columns: Statistics, row_weight: float, column_weight: float
    ) -> Tensor:
        return super().gradient(self._timed(tile), of_rows, of_columns, row_weight, column_weight)

    def _timed(self, tile: Tile) -> Tile:
        """The tile with the pairs of one clip sorted by their times; pairs of one caption alone are left out."""
        found = tile.related
        rows, columns = found.positive_pairs()
        captions, windows = tile.row_tags[rows], tile.column_tags[columns]
        own = captions[:, 0] == windows[:, 0]
        begins, ends = captions[:, 1::2], captions[:, 2::2]
        start, end = windows[:, 1, None], windows[:, 2, None]
        shared = (torch.minimum(ends, end) - torch.maximum(begins, start)).clamp(min=0)
        shorter = torch.minimum(ends - begins, end - start).clamp(min=1)
        inside = own & (shared >= self.least * shorter).logical_and(shared > 0).any(1)
        timed = (ends > begins).any(1)
        elsewhere = own & timed & (shared == 0).all(1)
        unsure = found.positive[~inside & ~elsewhere]
        left_out = torch.cat((found.left_out, unsure)).sort().values
        return replace(tile, related=Related(found.shape, found.positive[inside], left_out))
