"""Find sounds by text among the clips of a build, which are encoded in memory and not kept.

`building.py` makes an index that is kept on disk, and `finding.py` searches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from sharding.common.errors import InputError
from training.data.captions import normalise
from training.data.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import SideEncoder, encode_clips, encode_texts, join, side_encoder
from training.evaluation.split import clips_of
from training.models.heads.base import Side
from training.models.retriever import Retriever
from training.run.progress import StatusLine
from training.search import CANDIDATES
from training.search.two_stage import two_stage_scores

BATCH = 32
_SHOWN = ("key", "clip_id", "dataset", "split", "shard", "audio", "duration_s", "licence")  # columns of a result


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
    encoder = _encoder(retriever)
    clips: list[str] = []
    parts = []
    for name in splits:
        order = SequentialOrder(manifest.table, name, retriever.recipe.data, BATCH)
        line = StatusLine(f"batches of {name}", order.steps_per_epoch)
        parts.append(encode_clips(encoder, manifest, order, LocalGroup(), line.report))
        clips += clips_of(order)
    return EncodedClips(clips, join(parts))


def search(
    retriever: Retriever,
    manifest: Any,
    queries: Sequence[str],
    split: str | None = None,
    top: int = 10,
    encoded: EncodedClips | None = None,
    candidates: int = CANDIDATES,
) -> dict[str, list[dict[str, Any]]]:
    """The ``top`` clips of each query, best first; equal scores are ordered by clip_id.

    Args:
        retriever: the model.
        manifest: of the build.
        queries: the texts.
        split: dataset/split or dataset; None: the whole build.
        top: how many clips of each query are returned.
        encoded: from `encode_build`, to search the same clips again without encoding them.
        candidates: of each query, found by vectors, that a head with attention scores exactly; 0: all.  At least
            ``top`` are scored exactly.

    Returns:
        For each query a list of clips, each a dict of score, key, clip_id, captions, dataset, split, shard, audio,
        duration_s and licence.
    """
    if top < 1 or candidates < 0:
        raise InputError("top counts from 1, and candidates from 0, which means all", value=(top, candidates))
    encoded = encoded or encode_build(retriever, manifest, split)
    texts = [normalise(query, retriever.recipe.data) for query in queries]
    sides = encode_texts(_encoder(retriever), texts, LocalGroup(), BATCH)
    scores = two_stage_scores(
        retriever.model.head,
        tuple(tensor.to(retriever.device) for tensor in sides),
        tuple(tensor.to(retriever.device) for tensor in encoded.sides),
        max(candidates, top) if candidates else 0,
    )
    rows = {clip: row for row, clip in reversed(list(enumerate(manifest.table["clip_id"].to_pylist())))}
    results: dict[str, list[dict[str, Any]]] = {}
    for query, row in zip(queries, scores.tolist(), strict=True):
        best = sorted(range(len(encoded.clips)), key=lambda number: (-row[number], encoded.clips[number]))[:top]
        results[query] = [_result(manifest, rows[encoded.clips[number]], row[number]) for number in best]
    return results


def _result(manifest: Any, row: int, score: float) -> dict[str, Any]:
    sample = manifest.table.slice(row, 1).to_pylist()[0]
    captions = [caption["text"] for caption in sample["captions"]]
    return {"score": score, **{name: sample[name] for name in _SHOWN}, "captions": captions}


def _encoder(retriever: Retriever) -> SideEncoder:
    return side_encoder(retriever.model, retriever.recipe.data)
