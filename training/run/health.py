"""Figures of the shared space of audio and text that show collapse and drift early."""

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
    """Alignment and uniformity (Wang and Isola 2020, arXiv 2005.10242, equations 2 and 3), and the loss's own figures.

    Alignment is the mean squared distance between a clip and its caption; 0 means that they are equal.
    Uniformity is the logarithm of the mean of exp(-2 d²) over the pairs of clips at distance d; 0 means that all
    clips have one vector, and lower values mean that they are more spread out.  Each rank measures its own
    samples, and the result is the mean over the ranks that have at least two.  A head without embeddings has
    neither figure.
    """
    with torch.no_grad():
        figures = loss.health()
    clips, captions = head.embedding(tuple(audio)), head.embedding(tuple(text))
    if clips is None or captions is None:
        return figures
    sums = torch.zeros(3, dtype=torch.float64)  # alignment, uniformity, ranks
    if len(clips) > 1:
        clips, captions = clips.double(), captions.double()
        alignment = (clips - captions).square().sum(1).mean()
        uniformity = torch.pdist(clips).square().mul(-2).exp().mean().log()
        sums = torch.stack((alignment, uniformity, torch.ones_like(alignment))).cpu()
    total_alignment, total_uniformity, ranks = group.sum(sums, "health").tolist()
    if ranks:
        figures = figures | {"alignment": total_alignment / ranks, "uniformity": total_uniformity / ranks}
    return figures
