"""The clips of a build, each encoded as a whole and kept in memory: for vectors of clips, and for studies of scores.

A search goes through an index, which encodes windows of recordings; see `training.search.building`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from training.data.sampling.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import encode_clips, join, side_encoder
from training.evaluation.split import clips_of
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.run.progress import StatusLine

BATCH = 32


@dataclass(frozen=True)
class EncodedClips:
    """The audio sides of some clips, ready to be scored.

    Attributes:
        clips: clip_ids, in the order of ``sides``.
        sides: what the model's head keeps of the clips.
    """

    clips: list[str]
    sides: Side


def encode_build(retriever: Retriever, manifest: Any, split: str | None = None) -> EncodedClips:
    """Encode every clip of ``split`` (dataset/split, dataset, or None for the whole build)."""
    splits = [split] if split else sorted(pc.unique(manifest.table["dataset"]).to_pylist())
    encoder = side_encoder(retriever.model, retriever.recipe.data)
    clips: list[str] = []
    parts = []
    for name in splits:
        order = SequentialOrder(manifest.table, name, retriever.recipe.data, BATCH)
        line = StatusLine(f"batches of {name}", order.steps_per_epoch)
        parts.append(encode_clips(encoder, manifest, order, LocalGroup(), line.report))
        clips += clips_of(order)
    return EncodedClips(clips, join(parts))
