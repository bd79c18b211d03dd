"""How the shared space of two modalities is doing: numbers that show collapse and drift early."""

from __future__ import annotations

import torch
from torch import Tensor

from training.engine.distributed import Group

ROWS = 1024  # items whose distances to all others are held at once


def alignment_and_uniformity(sounds: Tensor, words: Tensor, group: Group) -> dict[str, float]:
    """Alignment and uniformity of the global batch (Wang and Isola 2020, arXiv 2005.10242, eqs. 2 and 3).

    Alignment is the mean squared distance of a clip and its caption (0: equal).  Uniformity is the log of the mean of
    exp(-2 d²) over pairs of clips (0: collapsed; lower is more spread).  A collective call.

    Args:
        sounds, words: this rank's embeddings ``[b, d]`` of clips and of their captions, row by row.
        group: the ranks.

    Returns:
        ``alignment`` and, where the global batch has two clips, ``uniformity``.
    """
    sounds, words = sounds.detach().float(), words.detach().float()
    distances = (sounds - words).square().sum()
    everything = group.gather_many((sounds,), "embeddings for the log")[0].double()
    near = torch.zeros((), dtype=torch.float64)
    for some in sounds.double().split(ROWS):
        near += torch.cdist(some, everything).square().mul(-2).exp().sum().cpu()
    count = float(len(everything))
    figures = torch.stack((distances.double().cpu(), near))
    total, near = group.sum(figures, "health").tolist()
    found = {"alignment": total / max(count, 1)}
    if count > 1:  # each clip's distance to itself is 0, and its exponential 1
        found["uniformity"] = float(torch.tensor((near - count) / (count * (count - 1))).log())
    return found
