"""NT-Xent with several positives: the normalised-temperature cross-entropy (Calvet and Toledano 2025, section 3.3).

With logits ``l_ij = score(row i, column j) / tau``, positives ``P_i`` and negatives ``N_i`` of row i,

    L_i = - 1 / |P_i|  sum over p in P_i of  ( l_ip - log sum over j in P_i and N_i of exp(l_ij) )

and the same for each column over the rows; the loss is half the mean over rows plus half the mean over columns.
Rows and columns without a positive do not count.  The mean over positives stands outside the logarithm
("SupCon-out", Khosla et al. 2020, arXiv 2004.11362, eq. 2) and positives stay in the denominator.  Pairs that are
left out appear nowhere.  With one positive each this is the symmetric InfoNCE of CLIP.

With ``positives: published`` the loss is the one of the published baselines: positives are the pairs of one clip,
every other pair is a negative, and the mean runs over all positive pairs instead of over rows and then over each
row's positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.objectives.pairs.base import SideName, Statistics, TemperedLoss, Tile, check_temperature

# Numbers this close together share one exponential: neither it nor its inverse leaves float32, and what
# underflows in it is below 1e-11 of its sum.
SAFE_SPAN = 60.0


@dataclass(frozen=True)
class Settings:
    """Settings of NT-Xent.

    Attributes:
        name: the key of the registry.
        tau: temperature (Calvet and Toledano 2025, section 3.3: 0.05), the start if it is trained.
        trainable_tau: learn it, between 0.01 and 1.
        positives: "clip or caption", "clip", or "published": by clip, kin are negatives, mean over positive pairs.
        directions: "both"; "rows": each row (caption) finds its columns (clips) only; "columns": the reverse only.
    """

    name: str = "ntxent"
    tau: float = 0.05
    trainable_tau: bool = False
    positives: Literal["clip or caption", "clip", "published"] = "clip or caption"
    directions: Literal["both", "rows", "columns"] = "both"

    def __post_init__(self) -> None:
        check_temperature(self.tau, self.trainable_tau)


class NTXent(TemperedLoss):
    """The cross-entropy of each row's and each column's positives against all pairs that are not left out."""

    of_rows = of_columns = {"lse": "logsumexp", "positives": "sum", "pull": "sum"}  # noqa: RUF012
    by_hand = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.tau, settings.trainable_tau)
        self.by_pair = settings.positives == "published"
        self.positives = "clip" if self.by_pair else settings.positives
        self.leaves_out = not self.by_pair
        self.directions = settings.directions
        self.factor = {side: _factor(settings.directions, side) for side in ("rows", "columns")}

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        logits = tile.logits
        rows, columns = tile.related.positive_pairs()
        pulled = logits.reshape(-1)[tile.related.positive]
        lse_rows, lse_columns = _lse_both_ways(logits, tile.related.left_out)
        found = []
        for size, index, lse in ((logits.shape[0], rows, lse_rows), (logits.shape[1], columns, lse_columns)):
            zeros = logits.new_zeros(size)
            found.append(
                {
                    "lse": lse,
                    "positives": zeros.index_add(0, index, torch.ones_like(pulled)),
                    "pull": zeros.index_add(0, index, pulled),
                }
            )
        return found[0], found[1]

    def terms(self, statistics: Statistics, side: SideName) -> tuple[Tensor, Tensor]:
        positives, pull = statistics["positives"], statistics["pull"]
        counts = positives > 0
        lse = torch.where(counts, statistics["lse"], 0)
        if self.by_pair:
            return self.factor[side] * (positives * lse - pull), positives
        terms = self.factor[side] * (lse - pull / positives.clamp(min=1))
        return terms, counts.to(terms.dtype)

    def gradient(
        self, tile: Tile, of_rows: Statistics, of_columns: Statistics, row_weight: float, column_weight: float
    ) -> Tensor:
        logits = tile.logits
        row_share = self._share(of_rows, self.factor["rows"] / row_weight)
        column_share = self._share(of_columns, self.factor["columns"] / column_weight)
        high = logits.max() if logits.numel() else logits.new_zeros(())
        lse = [torch.where(found["positives"] > 0, found["lse"], high) for found in (of_rows, of_columns)]
        weight = _softmax_both_ways(logits, tile.related.left_out, high, lse[0], lse[1], row_share, column_share)
        rows, columns = tile.related.positive_pairs()
        # each positive of a row pulls with the row's share divided by its number of positives
        pull = row_share[rows] / of_rows["positives"][rows] + column_share[columns] / of_columns["positives"][columns]
        weight.view(-1)[tile.related.positive] -= pull
        return weight

    def _share(self, statistics: Statistics, factor: float) -> Tensor:
        """The weight of each row's (or column's) softmax in the gradient."""
        positives = statistics["positives"]
        return factor * (positives if self.by_pair else (positives > 0).to(positives.dtype))


def _factor(directions: str, side: str) -> float:
    if directions == "both":
        return 0.5
    return 1.0 if directions == side else 0.0


def build(settings: Settings) -> NTXent:
    """The loss that ``settings`` describes."""
    return NTXent(settings)


def _lse_both_ways(logits: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over columns ``[r]`` and over rows ``[c]``; overwrites `logits`."""
    low, high = logits.aminmax()
    logits.view(-1)[left_out] = -torch.inf
    if float(high - low) < SAFE_SPAN:
        exponentials = logits.sub_(high).exp_()
        return high + exponentials.sum(1).log_(), high + exponentials.sum(0).log_()
    return logits.logsumexp(1), logits.logsumexp(0)


def _softmax_both_ways(
    logits: Tensor,
    left_out: Tensor,
    high: Tensor,
    lse_rows: Tensor,
    lse_columns: Tensor,
    row_share: Tensor,
    column_share: Tensor,
) -> Tensor:
    """``row_share * softmax over columns + column_share * softmax over rows``; overwrites `logits`.

    ``high`` is the largest of the logits; shares are ``[r]`` and ``[c]``.
    """
    logits.view(-1)[left_out] = -torch.inf
    if float(high - torch.minimum(lse_rows.min(), lse_columns.min())) < SAFE_SPAN:
        rows, columns = row_share * (high - lse_rows).exp(), column_share * (high - lse_columns).exp()
        return logits.sub_(high).exp_().mul_(rows[:, None] + columns)
    over_columns = (logits - lse_rows[:, None]).exp_().mul_(row_share[:, None])
    return over_columns.add_(logits.sub_(lse_columns).exp_().mul_(column_share))
