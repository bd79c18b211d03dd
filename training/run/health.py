"""How the shared space is doing: numbers that tell collapse and drift early."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.engine.distributed import Group
from training.models.heads.base import Head
from training.objectives.pairs.base import PairLoss


def measure_health(
    head: Head, loss: PairLoss, audio: Sequence[Tensor], text: Sequence[Tensor], group: Group
) -> dict[str, float]:
    """Alignment and uniformity (Wang and Isola 2020, arXiv 2005.10242, eq. 2 and 3) and the loss's numbers.

    Alignment is the mean squared distance of a clip and its caption (0: equal).  Uniformity is the log of the
    mean of exp(-2 d²) over pairs of clips (0: collapsed; lower is more spread).  Both are of each rank's own
    samples, averaged over the ranks that have enough.  Heads without embeddings have neither.
    """
    with torch.no_grad():
        found = loss.health()
    sounds, words = head.embedding(tuple(audio)), head.embedding(tuple(text))
    if sounds is None or words is None:
        return found
    figures = torch.zeros(3, dtype=torch.float64)
    if len(sounds) > 1:
        sounds, words = sounds.double(), words.double()
        alignment = (sounds - words).square().sum(1).mean()
        uniformity = torch.pdist(sounds).square().mul(-2).exp().mean().log()
        figures = torch.stack((alignment, uniformity, torch.ones_like(alignment))).cpu()
    alignment, uniformity, ranks = group.sum(figures, "health").tolist()
    if ranks:
        found = found | {"alignment": alignment / ranks, "uniformity": uniformity / ranks}
    return found
