"""Hybrid-NCE: tags make weak positives, and near negatives weigh more (AuroLA, arXiv 2602.18010).

With logits ``l_ij = score(row i, column j) / tau``, the positives ``P_i`` of row i (its own clip or caption), and its
tag positives ``T_i`` (items whose sets of tags overlap by ``IoU_ij >= least_iou``), all others that are not left out
are negatives ``N_i``, and

    pos_i = exp( mean over p in P_i of l_ip )  +  tag_weight * sum over j in T_i of IoU_ij exp(l_ij)
    neg_i = sum over j in N_i of w_ij exp(l_ij),   w_ij = |N_i| exp(beta l_ij) / sum over k in N_i of exp(beta l_ik)
    L_i   = - log( pos_i / ( alpha pos'_i + neg_i ) )

and the same for each column over the rows, with the column's own positives and negatives; the loss is half the mean
over rows plus half the mean over columns.  ``pos'_i`` is ``pos_i`` with the sum of ``exp(l_ip)`` over ``P_i`` in place
of the first term.  The paper has one positive in ``P_i``, for which both are the same.  With several, the mean stands
outside the logarithm as in `ntxent`, so that ``beta = tag_weight = 0, alpha = 1`` is NT-Xent for any data.

The weights need no second pass over the pairs, because
``neg_i = |N_i| sum exp((1 + beta) l_ij) / sum exp(beta l_ij)``: two log-sum-exps.

**The published code differs** from its formula: it trains the direction from audio to text alone, asks for equal sets
of tags (so that IoU is always 1), and its ranks gather each other's vectors without gradient, so that the gradient of
the encoders is that of the loss divided by the number of ranks.  ``released: true`` does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.config.checks import require
from training.objectives.pairs.base import SideName, Statistics, TemperedLoss, Tile, check_temperature
from training.objectives.pairs.tags import overlap


@dataclass(frozen=True)
class Settings:
    """Settings of Hybrid-NCE; the defaults are those of AuroLA's second stage.

    Attributes:
        name: the key of the registry.
        tau: temperature, the start if it is trained.
        trainable_tau: learn it, between 0.01 and 1.
        alpha: the weight of the positives in the denominator.
        tag_weight: the weight of tag positives (lambda in the paper); 0: tags play no part.
        beta: how much more near negatives weigh; 0: all weigh 1.
        least_iou: the overlap from which two sets of tags make a positive pair; 1: the sets are equal.
        weights: whether the gradient also flows through the weights of negatives ("with gradient", as in the
            published code) or takes them as given ("fixed").
        positives: "clip or caption" or "clip".
        released: do as the published code does; see above.
    """

    name: str = "hybrid-nce"
    tau: float = 0.05
    trainable_tau: bool = False
    alpha: float = 1.0
    tag_weight: float = 0.2
    beta: float = 0.1
    least_iou: float = 1.0
    weights: Literal["with gradient", "fixed"] = "with gradient"
    positives: Literal["clip or caption", "clip"] = "clip or caption"
    released: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.tau, self.trainable_tau)
        require(0 < self.alpha < math.inf, "alpha must be positive", self.alpha)
        require(0 <= self.tag_weight < math.inf, "tag_weight must not be negative", self.tag_weight)
        require(0 <= self.beta < math.inf, "beta must not be negative", self.beta)
        require(0 < self.least_iou <= 1, "least_iou must be above 0, and at most 1", self.least_iou)
        require(
            not self.released or (self.least_iou == 1 and self.weights == "with gradient"),
            "released: true asks for equal sets of tags, and for weights with gradient",
            {"least_iou": self.least_iou, "weights": self.weights},
        )


class HybridNCE(TemperedLoss):
    """NT-Xent with positives by tags and with weights of negatives; the module's description has the formula."""

    of_rows = of_columns = {  # noqa: RUF012
        "count": "sum",  # of positives
        "pull": "sum",  # the logits of positives
        "positives": "logsumexp",
        "tagged": "logsumexp",  # IoU exp(l) over tag positives
        "negatives": "sum",
        "hard": "logsumexp",  # (1 + beta) l over negatives
        "hardness": "logsumexp",  # beta l over negatives
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.tau, settings.trainable_tau)
        self.settings = settings
        self.positives = "clip" if settings.released else settings.positives
        self.leaves_out = not settings.released
        self.gradient_per_rank = settings.released

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        logits, positive, beta = tile.logits, tile.positive(), self.settings.beta
        similar, tagged = self._tagged(tile)
        tagged &= ~(positive | tile.left_out())
        negative = ~(positive | tagged | tile.left_out())
        near = logits + similar.clamp(min=torch.finfo(similar.dtype).tiny).log()
        given = logits.detach() if self.settings.weights == "fixed" else logits
        hard, hardness, pulled = logits + beta * given, beta * given, logits * positive
        found: list[Statistics] = [
            {
                "count": positive.sum(axis).to(logits),
                "pull": pulled.sum(axis),
                "positives": _lse(logits, positive, axis),
                "tagged": _lse(near, tagged, axis),
                "negatives": negative.sum(axis).to(logits),
                "hard": _lse(hard, negative, axis),
                "hardness": _lse(hardness, negative, axis),
            }
            for axis in (1, 0)
        ]
        return found[0], found[1]

    def _tagged(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """How much the sets of tags overlap ``[r, c]``, and the pairs that are positive by them."""
        similar = overlap(tile.row_tags, tile.column_tags, tile.logits.dtype)
        if self.settings.tag_weight == 0 and not self.settings.released:
            return similar, torch.zeros_like(similar, dtype=torch.bool)
        return similar, similar >= self.settings.least_iou

    def terms(self, statistics: Statistics, side: SideName) -> tuple[Tensor, Tensor]:
        settings, count = self.settings, statistics["count"]
        counts = count > 0
        log_weight = math.log(settings.tag_weight) if settings.tag_weight else -math.inf
        tagged = statistics["tagged"] + log_weight
        mean = statistics["pull"] / count.clamp(min=1)
        above = torch.logaddexp(mean, tagged)
        positives = torch.logaddexp(torch.where(counts, statistics["positives"], mean), tagged)
        some = statistics["negatives"] > 0
        hard, hardness = (torch.where(some, statistics[name], 0) for name in ("hard", "hardness"))
        negatives = statistics["negatives"].clamp(min=1).log() + hard - hardness
        below = positives + math.log(settings.alpha)
        below = torch.where(some, torch.logaddexp(below, negatives), below)
        terms = torch.where(counts, below - above, 0) * self._factor(side)
        return terms, counts.to(terms.dtype)

    def _factor(self, side: SideName) -> float:
        if self.settings.released:
            return 1.0 if side == "columns" else 0.0  # columns are clips, which look for their captions
        return 0.5


def build(settings: Settings) -> HybridNCE:
    """The loss that ``settings`` describes."""
    return HybridNCE(settings)


def _lse(logits: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Log-sum-exp of the masked logits along an axis; minus infinity, without gradient, where there are none."""
    nothing = ~mask.any(axis)
    kept = logits.masked_fill(~mask, -torch.inf).masked_fill(nothing.unsqueeze(axis), 0)
    return kept.logsumexp(axis).masked_fill(nothing, -torch.inf)
