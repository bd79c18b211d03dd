"""Find sounds by text among all clips of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import torch

from sharding.common.errors import InputError
from training.data.captions import normalise
from training.data.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.run import encode_clips, encode_texts, encoders_of, join
from training.models.heads.base import Side
from training.models.hub import Retriever
from training.run.progress import StatusLine
from training.search import CANDIDATES
from training.search.two_stage import two_stage_scores

BATCH = 32


@dataclass(frozen=True)
class Index:
    """The audio sides of some clips, ready to be scored.

    Attributes:
        clips: clip_ids, in the order of ``sides``.
        sides: what the model's head keeps of them.
    """

    clips: list[str]
    sides: Side


def build_index(retriever: Retriever, manifest: Any, split: str | None = None) -> Index:
    """Encode every clip of ``split`` (dataset/split, dataset, or None for the whole build)."""
    splits = [split] if split else sorted(pc.unique(manifest.table["dataset"]).to_pylist())
    encoders = encoders_of(retriever.model, _device())
    clips: list[str] = []
    parts = []
    for name in splits:
        order = SequentialOrder(manifest.table, name, retriever.recipe.data, BATCH)
        progress = StatusLine(f"batches of {name}", order.steps_per_epoch)
        parts.append(
            encode_clips(
                encoders,
                manifest,
                order,
                retriever.recipe.data,
                retriever.audio_input,
                retriever.tokenizer,
                LocalGroup(),
                lambda _, done, total, line=progress: line.update(done),  # type: ignore[misc]
            )
        )
        clips += [clip for step in range(order.steps_per_epoch) for clip in order.batch(0, step).clip_ids]
    return Index(clips, join(parts))


def search(
    retriever: Retriever,
    manifest: Any,
    queries: Sequence[str],
    split: str | None = None,
    top: int = 10,
    index: Index | None = None,
    first: int = CANDIDATES,
) -> dict[str, list[dict[str, Any]]]:
    """The best clips for each query: score, key, clip_id, captions, dataset, split, shard; best first.

    Equal scores are ordered by clip_id.  Pass an ``index`` to search the same clips again.  Heads with attention take
    the ``first`` clips by vectors and score those exactly (0: every clip); those that are shown are among them.
    """
    if top < 1 or first < 0:
        raise InputError("--top counts from 1 and --first from 0, which means all", value=(top, first))
    index = index or build_index(retriever, manifest, split)
    encoders = encoders_of(retriever.model, _device())
    data = retriever.recipe.data
    texts = [normalise(query, data) for query in queries]
    asked = encode_texts(encoders, texts, retriever.tokenizer, data, LocalGroup(), BATCH)
    scores = two_stage_scores(
        retriever.model.head,
        tuple(tensor.to(retriever.device) for tensor in asked),
        tuple(tensor.to(retriever.device) for tensor in index.sides),
        max(first, top) if first else 0,
    )
    rows = {clip: row for row, clip in reversed(list(enumerate(manifest.table["clip_id"].to_pylist())))}
    results: dict[str, list[dict[str, Any]]] = {}
    for query, row in zip(queries, scores.tolist(), strict=True):
        best = sorted(range(len(index.clips)), key=lambda number: (-row[number], index.clips[number]))[:top]
        results[query] = [_hit(manifest, rows[index.clips[number]], row[number]) for number in best]
    return results


def _hit(manifest: Any, row: int, score: float) -> dict[str, Any]:
    record = manifest.table.slice(row, 1).to_pylist()[0]
    names = ("key", "clip_id", "dataset", "split", "shard", "audio", "duration_s", "licence")
    return {
        "score": score,
        **{name: record[name] for name in names},
        "captions": [caption["text"] for caption in record["captions"]],
    }


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
