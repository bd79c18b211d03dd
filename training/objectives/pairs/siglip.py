"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, section 3.2) with several positives.

With logits ``l_ij = score(row i, column j) / tau + bias`` over the B rows of the global batch,

    L = 1 / B  ( sum over positive pairs of softplus(-l_ij)  +  sum over negative pairs of softplus(l_ij) )

that is ``-log sigmoid(z_ij l_ij)`` with z = 1 or -1.  Pairs that are left out appear nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.engine.distributed import accumulation_dtype
from training.objectives.pairs.base import PairLoss, SideName, Statistics, Temperature, Tile, check_temperature


@dataclass(frozen=True)
class Settings:
    """Settings of the sigmoid loss.

    Attributes:
        name: the key of the registry.
        tau: temperature; the paper starts at 1 / tau = 10.
        trainable_tau: learn it, between 0.01 and 1 (the paper does).
        bias: added to every logit; the paper starts at -10, so that the many negatives begin easy.
        trainable_bias: learn it (the paper does).
        positives: "clip or caption" or "clip".
    """

    name: str = "siglip"
    tau: float = 0.1
    trainable_tau: bool = True
    bias: float = -10.0
    trainable_bias: bool = True
    positives: Literal["clip or caption", "clip"] = "clip or caption"

    def __post_init__(self) -> None:
        check_temperature(self.tau, self.trainable_tau)


class SigLIP(PairLoss):
    """A sigmoid loss of every pair on its own; no pair is compared with another one."""

    of_rows = {"loss": "sum"}  # noqa: RUF012
    of_columns = {}  # noqa: RUF012
    by_hand = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.positives = settings.positives
        self.temperature = Temperature(settings.tau, settings.trainable_tau)
        self.bias = nn.Parameter(torch.tensor([settings.bias]), requires_grad=settings.trainable_bias)

    def forward(self) -> tuple[Tensor, ...]:
        # A copy in the graph: where parameters are sharded, they are whole only inside forward().
        return self.temperature(), self.bias.to(accumulation_dtype(self.bias.dtype), copy=True)

    def logits(self, scores: Tensor, *numbers: Tensor) -> Tensor:
        return torch.addcmul(numbers[1], scores, numbers[0])

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        positive = tile.logits.reshape(-1)[tile.related.positive]
        losses = F.softplus(tile.logits)
        losses.view(-1)[tile.related.left_out] = 0
        losses.view(-1)[tile.related.positive] = F.softplus(-positive)
        return {"loss": losses.sum(1)}, {}

    def terms(self, statistics: Statistics, side: SideName) -> tuple[Tensor, Tensor]:
        if side == "columns":  # every pair is counted in its row
            return self.bias.new_zeros(1), self.bias.new_zeros(1)
        return statistics["loss"], torch.ones_like(statistics["loss"])

    def gradient(
        self, tile: Tile, of_rows: Statistics, of_columns: Statistics, row_weight: float, column_weight: float
    ) -> Tensor:
        weight = tile.logits.sigmoid_()
        weight.view(-1)[tile.related.left_out] = 0
        weight.view(-1)[tile.related.positive] -= 1
        return weight.div_(row_weight)

    def health(self) -> dict[str, float]:
        return {"tau": 1 / float(self.temperature()), "bias": float(self.bias)}


def build(settings: Settings) -> SigLIP:
    """The loss that ``settings`` describes."""
    return SigLIP(settings)
