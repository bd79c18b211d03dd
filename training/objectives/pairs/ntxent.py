"""NT-Xent with several positives: the normalised-temperature cross-entropy of papers/000.

With logits ``l_ij = score(text i, audio j) / tau``, positives ``P_i`` and negatives ``N_i`` of text i,

    L_i = - 1 / |P_i|  sum over p in P_i of  ( l_ip - log sum over j in P_i and N_i of exp(l_ij) )

and the same for each audio over the texts; the loss is half the mean over texts plus half the mean over
audios.  The mean over positives stands outside the logarithm ("SupCon-out", Khosla et al. 2020,
arXiv 2004.11362, eq. 2) and positives stay in the denominator.  Pairs that are left out appear nowhere.  With
one positive each this is the symmetric InfoNCE of CLIP, and of papers/001 eq. 2 up to its factor 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.objectives.pairs.base import PairLoss, Statistics, Temperature, Tile, check_temperature

# Numbers this close together share one exponential: neither it nor its inverse leaves float32, and what
# underflows in it is below 1e-11 of its sum.
SAFE_SPAN = 60.0


@dataclass(frozen=True)
class Settings:
    """Settings of NT-Xent.

    Attributes:
        name: the key of the registry.
        tau: temperature (papers/000 section 3.3: 0.05), the start if it is trained.
        trainable_tau: learn it, between 0.01 and 1.
        positives: "clip or caption", or "clip" as published.
    """

    name: str = "ntxent"
    tau: float = 0.05
    trainable_tau: bool = False
    positives: Literal["clip or caption", "clip"] = "clip or caption"

    def __post_init__(self) -> None:
        check_temperature(self.tau, self.trainable_tau)


class NTXent(PairLoss):
    of_texts = of_audios = {"lse": "logsumexp", "positives": "sum", "pull": "sum"}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.positives = settings.positives
        self.temperature = Temperature(settings.tau, settings.trainable_tau)

    def forward(self) -> tuple[Tensor, ...]:
        return (self.temperature(),)

    def logits(self, scores: Tensor, *numbers: Tensor) -> Tensor:
        return scores * numbers[0]

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        logits = tile.logits
        text, audio = tile.related.positive_pairs()
        pulled = logits.reshape(-1)[tile.related.positive]
        lse_texts, lse_audios = _lse_both_ways(logits, tile.related.left_out)
        found = []
        for size, index, lse in ((logits.shape[0], text, lse_texts), (logits.shape[1], audio, lse_audios)):
            zeros = logits.new_zeros(size)
            found.append(
                {
                    "lse": lse,
                    "positives": zeros.index_add(0, index, torch.ones_like(pulled)),
                    "pull": zeros.index_add(0, index, pulled),
                }
            )
        return found[0], found[1]

    def value(self, of_texts: Statistics, of_audios: Statistics) -> tuple[Tensor, Tensor]:
        texts, audios = ((s["lse"] - s["pull"] / s["positives"]) / 2 for s in (of_texts, of_audios))
        return texts, audios

    def gradient(self, tile: Tile, of_texts: Statistics, of_audios: Statistics, samples: int) -> Tensor:
        logits = tile.logits
        half = 0.5 / samples
        weight = _softmax_both_ways(logits, tile.related.left_out, of_texts["lse"], of_audios["lse"], half)
        text, audio = tile.related.positive_pairs()
        pull = half / of_texts["positives"][text] + half / of_audios["positives"][audio]
        weight.view(-1)[tile.related.positive] -= pull
        return weight

    def health(self) -> dict[str, float]:
        return {"tau": 1 / float(self.temperature())}


def build(settings: Settings) -> NTXent:
    return NTXent(settings)


def _lse_both_ways(logits: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over audios ``[r]`` and over texts ``[c]``; overwrites `logits`."""
    low, high = logits.aminmax()
    logits.view(-1)[left_out] = -torch.inf
    if float(high - low) < SAFE_SPAN:
        exponentials = logits.sub_(high).exp_()
        return high + exponentials.sum(1).log_(), high + exponentials.sum(0).log_()
    return logits.logsumexp(1), logits.logsumexp(0)


def _softmax_both_ways(
    logits: Tensor, left_out: Tensor, lse_texts: Tensor, lse_audios: Tensor, factor: float
) -> Tensor:
    """``factor * (softmax over audios + softmax over texts)``; overwrites `logits`."""
    high = logits.max()
    logits.view(-1)[left_out] = -torch.inf
    if float(high - torch.minimum(lse_texts.min(), lse_audios.min())) < SAFE_SPAN:
        rows, columns = factor * (high - lse_texts).exp(), factor * (high - lse_audios).exp()
        return logits.sub_(high).exp_().mul_(rows[:, None] + columns)
    over_audios = (logits - lse_texts[:, None]).exp_()
    return over_audios.add_(logits.sub_(lse_audios).exp_()).mul_(factor)
