"""A loss over the matrix of the scores of all pairs, in a form that can be evaluated tile by tile.

The matrix has one row and one column for each item of the global batch, for example a row for each caption and a
column for each clip.  A loss sees it one tile at a time, twice:

1. `PairLoss.observe` reports statistics of each row and each column of a tile.  The engine combines them over all
   tiles and all ranks (`COMBINED`), and `PairLoss.terms` turns the combined statistics into the loss.
2. For the gradient, the engine computes each tile again.  The chain rule leads from the loss through the combined
   statistics to the tile's own statistics, and autograd from there to the scores.  A loss whose gradient is a short
   formula may give it as `PairLoss.gradient` and set `by_hand`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.config.checks import require
from training.engine.distributed import accumulation_dtype
from training.objectives.pairs.relations import Related

Statistics = dict[str, Tensor]
SideName = Literal["rows", "columns"]


@dataclass(frozen=True)
class Tile:
    """Some rows against some columns.

    Attributes:
        logits: ``[r, c]``; a loss that is `by_hand` may overwrite them.
        related: which pairs of the tile are positive or left out.
        row_tags, column_tags: the sets of tags, ``[r, w]`` and ``[c, w]`` int64; see `objectives.pairs.tags`.
        teacher: the teacher's scores of the same pairs, ``[r, c]`` without gradient, where the term has a teacher.
    """

    logits: Tensor
    related: Related
    row_tags: Tensor
    column_tags: Tensor
    teacher: Tensor | None = None

    def left_out(self) -> Tensor:
        """Bool ``[r, c]``: the pairs that take no part."""
        mask = torch.zeros(self.logits.numel(), dtype=torch.bool, device=self.logits.device)
        mask[self.related.left_out] = True
        return mask.view_as(self.logits)

    def positive(self) -> Tensor:
        """Bool ``[r, c]``: the positive pairs."""
        mask = torch.zeros(self.logits.numel(), dtype=torch.bool, device=self.logits.device)
        mask[self.related.positive] = True
        return mask.view_as(self.logits)


class PairLoss(nn.Module, ABC):
    """A loss over all pairs of a global batch.

    The loss is the sum of the rows' terms divided by the sum of the rows' weights, plus the same for the columns.  A
    row or column without any positive pair has weight 0 if the loss needs a positive.

    Attributes:
        positives: which pairs are positive, one of `training.objectives.pairs.relations.POSITIVES`.
        leaves_out: whether pairs of one group or of kin are left out; otherwise they are negatives.
        of_rows: the statistics of each row, and how each is combined over tiles: a key of `COMBINED`, or
            ``mean by NAME``: the mean weighted by the exponential of the statistic NAME, which has no gradient.
        of_columns: the same for each column.
        needs_teacher: whether tiles must come with a teacher's scores.
        gradient_per_rank: whether the gradient is divided by the number of ranks, as in published code whose ranks
            gather each other's vectors without gradient.  N ranks then do not equal one.
        by_hand: whether `gradient` is given; otherwise `observe` must be differentiable and overwrite nothing.
    """

    positives: str = "clip"
    leaves_out: bool = True
    needs_teacher: bool = False
    gradient_per_rank: bool = False
    of_rows: dict[str, str]
    of_columns: dict[str, str]
    by_hand: bool = False

    @abstractmethod
    def forward(self) -> tuple[Tensor, ...]:
        """The loss's own numbers (scale, bias), shape ``[1]`` each, differentiable by its parameters."""

    @abstractmethod
    def logits(self, scores: Tensor, *numbers: Tensor) -> Tensor:
        """Differentiable logits ``[r, c]`` from similarities and what `forward` returned."""

    @abstractmethod
    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        """The statistics of each row ``[r]`` and of each column ``[c]`` of a tile."""

    @abstractmethod
    def terms(self, statistics: Statistics, side: SideName) -> tuple[Tensor, Tensor]:
        """The term and the weight of each row or column ``[n]``, from its combined statistics."""

    def gradient(
        self, tile: Tile, of_rows: Statistics, of_columns: Statistics, row_weight: float, column_weight: float
    ) -> Tensor:
        """The derivative of the loss by the tile's logits, ``[r, c]``; only where `by_hand`.

        Args:
            tile: some rows against some columns.
            of_rows, of_columns: their combined statistics.
            row_weight, column_weight: the sums of the weights of all rows and of all columns of the global batch.
        """
        raise TypeError(f"{type(self).__name__} gives no gradient by hand")

    def health(self) -> dict[str, float]:
        """Numbers for the log, such as the temperature."""
        return {}


LOWEST_TAU, HIGHEST_TAU = 0.01, 1.0  # the range of a trained temperature
LEAST_TAU = 1e-6  # the least fixed temperature: float32 can still hold every logit, and their differences


def check_temperature(tau: float, trainable: bool) -> None:
    """``InputError`` if a temperature is out of range."""
    if trainable:
        holds, what = LOWEST_TAU < tau < HIGHEST_TAU, f"a trained tau must start between {LOWEST_TAU} and {HIGHEST_TAU}"
    else:
        holds, what = LEAST_TAU <= tau < math.inf, f"tau must be at least {LEAST_TAU}"
    require(holds, what, tau)


class Temperature(nn.Module):
    """The factor ``1 / tau`` on similarities, fixed or trained.

    A trained tau is kept between ``low = LOWEST_TAU`` and ``high = HIGHEST_TAU`` by ``log(1 / tau) =
    log(1 / high) + log(high / low) * sigmoid(raw)``: logarithmic as in CLIP, and bounded smoothly, so that its
    gradient is exact everywhere and it can always come back from a bound.  `raw` has shape ``[1]``, as DeepSpeed
    refuses 0-dimensional parameters.

    Args:
        tau: the temperature at the start; see `check_temperature`.
        trainable: whether the temperature is trained.
    """

    def __init__(self, tau: float, trainable: bool) -> None:
        super().__init__()
        self.tau, self.floor, self.span = tau, -math.log(HIGHEST_TAU), math.log(HIGHEST_TAU / LOWEST_TAU)
        self.raw: nn.Parameter | None = None
        if trainable:
            share = (-math.log(tau) - self.floor) / self.span
            self.raw = nn.Parameter(torch.tensor([math.log(share / (1 - share))]))

    def forward(self) -> Tensor:
        """``1 / tau``, shape ``[1]``; float32, or float64 if the parameter is."""
        if self.raw is None:
            return torch.tensor([1 / self.tau], dtype=torch.float64)
        raw = self.raw.to(accumulation_dtype(self.raw.dtype))
        return (self.floor + self.span * raw.sigmoid()).exp()


class TemperedLoss(PairLoss):
    """A loss whose logits are scores divided by a temperature, fixed or trained; arguments as of `Temperature`."""

    def __init__(self, tau: float, trainable: bool) -> None:
        super().__init__()
        self.temperature = Temperature(tau, trainable)

    def forward(self) -> tuple[Tensor, ...]:
        return (self.temperature(),)

    def logits(self, scores: Tensor, *numbers: Tensor) -> Tensor:
        return scores * numbers[0]

    def health(self) -> dict[str, float]:
        return {"tau": 1 / float(self.temperature())}
