"""What a loss over the matrix of all pairs' scores is, so that it can be evaluated in tiles.

A loss sees the matrix one tile at a time, twice.  First it reports numbers per text and per audio
(`observe`), which are combined over tiles and ranks by logsumexp or sum.  From the combined numbers comes
the loss (`value`).  Then, with those numbers known, each tile's gradient is a formula (`gradient`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config.checks import require
from training.engine.distributed import accumulation_dtype
from training.objectives.pairs.relations import Related

Statistics = dict[str, Tensor]


@dataclass(frozen=True)
class Tile:
    """Some texts against some audios: logits ``[r, c]``, which a loss may overwrite, and their relations."""

    logits: Tensor
    related: Related


class PairLoss(nn.Module, ABC):
    """A loss over all pairs of a global batch.

    Attributes:
        positives: which pairs are positive, one of `training.objectives.pairs.relations.POSITIVES`.
        of_texts: the statistics of each text, and how each is combined: "logsumexp" or "sum".
        of_audios: likewise of each audio.
    """

    positives: str
    of_texts: dict[str, str]
    of_audios: dict[str, str]

    @abstractmethod
    def forward(self) -> tuple[Tensor, ...]:
        """The loss's own numbers (scale, bias), shape ``[1]`` each, in the graph of its parameters."""

    @abstractmethod
    def logits(self, scores: Tensor, *numbers: Tensor) -> Tensor:
        """Differentiable logits ``[r, c]`` from similarities and what `forward` returned."""

    @abstractmethod
    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        """What a tile tells about each of its texts ``[r]`` and each of its audios ``[c]``."""

    @abstractmethod
    def value(self, of_texts: Statistics, of_audios: Statistics) -> tuple[Tensor, Tensor]:
        """Each text's and each audio's term; the loss is the mean of the first plus the mean of the second."""

    @abstractmethod
    def gradient(self, tile: Tile, of_texts: Statistics, of_audios: Statistics, samples: int) -> Tensor:
        """D loss / d logits ``[r, c]``, given the combined statistics and the size of the global batch."""

    def health(self) -> dict[str, float]:
        """Numbers for the log, such as the temperature."""
        return {}


LOWEST_TAU, HIGHEST_TAU = 0.01, 1.0  # of a trained temperature
LEAST_TAU = 1e-6  # of a fixed one: float32 holds every logit, and their differences


def check_temperature(tau: float, trainable: bool) -> None:
    """``InputError`` where a temperature is out of range."""
    if trainable:
        holds, what = LOWEST_TAU < tau < HIGHEST_TAU, f"a trained tau starts between {LOWEST_TAU} and {HIGHEST_TAU}"
    else:
        holds, what = LEAST_TAU <= tau < math.inf, f"tau is at least {LEAST_TAU}"
    require(holds, what, tau)


class Temperature(nn.Module):
    """The factor ``1 / tau`` on similarities, fixed or trained.

    A trained tau is kept between ``low = LOWEST_TAU`` and ``high = HIGHEST_TAU`` by ``log(1 / tau) =
    log(1 / high) + log(high / low) * sigmoid(raw)``: logarithmic as in CLIP, and bounded smoothly, so that its
    gradient is exact everywhere and it can always come back from a bound.  `raw` has shape ``[1]``, as DeepSpeed
    refuses 0-dimensional parameters.

    Args:
        tau: the start; see `check_temperature`.
        trainable: whether it is a parameter.
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
