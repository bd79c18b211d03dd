"""How the statistics of tiles combine into those of whole rows and columns, and how gradients flow back.

A statistic is kept for each row or column.  Its kind says how the values of two tiles combine:

- ``sum``: ``a + b``;
- ``logsumexp``: ``log(exp a + exp b)``;
- ``mean by NAME``: the mean of a and b, weighted by the exponentials of the statistic NAME of the same tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from training.engine.distributed import Group
from training.objectives.pairs.base import Statistics

MEAN_BY = "mean by "
_EMPTY = {"sum": 0.0, "logsumexp": -math.inf}


def empty(kinds: Mapping[str, str], count: int, like: Tensor) -> Statistics:
    """The statistics of ``count`` rows or columns before any tile was seen."""
    return {name: like.new_full((count,), _EMPTY.get(kind, 0.0)) for name, kind in kinds.items()}


def combine(kinds: Mapping[str, str], totals: Statistics, tile: Statistics, rows: slice) -> None:
    """Add a tile's statistics to the totals of its rows (or columns), in place."""
    before = {name: totals[name][rows] for name in kinds}
    after = {}
    for name, kind in kinds.items():
        if kind == "sum":
            after[name] = before[name] + tile[name]
        elif kind == "logsumexp":
            after[name] = torch.logaddexp(before[name], tile[name])
        else:
            weight = kind.removeprefix(MEAN_BY)
            share = _share(tile[weight], torch.logaddexp(before[weight], tile[weight]))
            after[name] = before[name] * (1 - share) + tile[name] * share
    for name, value in after.items():
        totals[name][rows] = value


def over_ranks(kinds: Mapping[str, str], totals: Statistics, group: Group) -> Statistics:
    """The totals of all ranks; every rank has seen other tiles of the same rows (or columns)."""
    whole: Statistics = {}
    for name, kind in kinds.items():
        what = f"{name} of the gathered side"
        if kind == "sum":
            whole[name] = group.sum(totals[name], what)
        elif kind == "logsumexp":
            whole[name] = group.logsumexp(totals[name], what)
    for name, kind in kinds.items():
        if kind.startswith(MEAN_BY):
            weight = kind.removeprefix(MEAN_BY)
            share = _share(totals[weight], whole[weight])
            whole[name] = group.sum(totals[name] * share, f"{name} of the gathered side")
    return whole


def cotangents(kinds: Mapping[str, str], tile: Statistics, whole: Statistics, by_whole: Statistics) -> list[Tensor]:
    """The derivative of the loss by each statistic of a tile, from that by the combined ones: the chain rule."""
    found = []
    for name, kind in kinds.items():
        if kind == "sum":
            found.append(by_whole[name])
            continue
        weight = name if kind == "logsumexp" else kind.removeprefix(MEAN_BY)
        found.append(by_whole[name] * _share(tile[weight].detach(), whole[weight]))
    return found


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``exp(part - whole)``; 0 where nothing was seen."""
    return torch.where(whole > -math.inf, (part - whole).exp(), torch.zeros_like(part)).nan_to_num(0.0)
