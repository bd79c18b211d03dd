"""Which pairs of a global batch are positive, left out, or negative.

A text and an audio are a positive pair if they come from the same clip or carry the same caption; otherwise
they are left out of the denominator if they share a group (verified same sound) or kin (perhaps the same
sound); otherwise they are negatives.  Ids are stable 64-bit numbers that travel with each sample, so the
answer does not depend on which rank a sample stands.

Related pairs are few, so they are found by sorting ids, never by comparing every pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharding.common.errors import InputError

POSITIVES = ("clip or caption", "clip")
CLIP, CAPTION, GROUP, KIN, TAGS = range(5)


def stack_ids(clip: Tensor, caption: Tensor, group: Tensor, kin: Tensor, tags: Tensor | None = None) -> Tensor:
    """The ids of a batch as one tensor, ``[b, 4 + w]`` int64: clip, caption, group, kin, and w words of tags.

    ``tags [b, w]`` are made by `training.objectives.pairs.tags.pack`; without them w is 0.
    """
    ids = torch.stack((clip, caption, group, kin), dim=1)
    return ids if tags is None else torch.cat((ids, tags), dim=1)


def batch_ids(batch: Any) -> Tensor:
    """The ids ``[b, 4 + w]`` of a `training.data.batch.Batch`."""
    return stack_ids(batch.clip, batch.caption, batch.group, batch.kin, batch.tags)


@dataclass(frozen=True)
class Related:
    """The pairs of a tile that are not plain negatives.

    Attributes:
        shape: texts and audios of the tile.
        positive: flat indices ``text * audios + audio`` of the positive pairs, ascending, int64.
        left_out: flat indices of the pairs that count neither as positive nor as negative.
    """

    shape: tuple[int, int]
    positive: Tensor
    left_out: Tensor

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """Text and audio index of each positive pair."""
        return self.positive // self.shape[1], self.positive % self.shape[1]


class SortedIds:
    """The ids of some audios, sorted once so that many tiles of texts can be joined with them."""

    def __init__(self, ids: Tensor) -> None:
        self.count = len(ids)
        self.values, self.order = ids[:, :TAGS].t().contiguous().sort(dim=1, stable=True)

    def matches(self, texts: Tensor, kind: int) -> Tensor:
        """Flat indices of the pairs whose id of one kind is equal; `texts` is ``[r, 4 + w]``."""
        wanted, values = texts[:, kind].contiguous(), self.values[kind]
        first = torch.searchsorted(values, wanted)
        counts = torch.searchsorted(values, wanted, right=True) - first
        total = int(counts.sum())
        rows = torch.repeat_interleave(counts, output_size=total)
        before = counts.cumsum(0) - counts
        place = torch.arange(total, device=texts.device) - before[rows] + first[rows]
        return rows * self.count + self.order[kind][place]


def related(texts: Tensor, audios: SortedIds, positives: str = "clip or caption", leaves_out: bool = True) -> Related:
    """The pairs between some texts (ids ``[r, 4 + w]``) and some audios that are positive or left out.

    Args:
        texts: ids of the texts, ``[r, 4 + w]`` int64.
        audios: ids of the audios.
        positives: "clip or caption", or "clip" (the same caption on another clip is then a negative).
        leaves_out: whether pairs of one group or of kin are left out; otherwise they are negatives.
    """
    if positives not in POSITIVES:
        raise InputError("unknown rule for positive pairs", value=positives, remedy=f"one of {', '.join(POSITIVES)}")
    positive = audios.matches(texts, CLIP)
    if positives == "clip or caption":
        positive = torch.cat((positive, audios.matches(texts, CAPTION)))
    positive = positive.unique()
    if not leaves_out:
        return Related((len(texts), audios.count), positive, positive[:0])
    akin = torch.cat((audios.matches(texts, GROUP), audios.matches(texts, KIN))).unique()
    return Related((len(texts), audios.count), positive, akin[~torch.isin(akin, positive)])
