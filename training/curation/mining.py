"""Hard negatives: for each clip the captions that look nearest and are wrong, by an exact top-k over all vectors.

A caption is no negative of a clip, however near, if

- it belongs to the clip, or to one of its group or kin (they may hold the same sound), or
- it resembles one of the clip's own captions by at least a threshold (a false negative: it may be true as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import located
from sharding.schema import stable_id
from training.data.captions import normalise
from training.data.negatives import NEGATIVES
from training.data.sampling.order import SequentialOrder
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import encode_clips, encode_texts, side_encoder
from training.evaluation.split import clips_of
from training.models.retriever import Retriever

BLOCK = 4096  # captions that are compared at once
CLIPS_AT_ONCE = 1024  # of a share
AT_ONCE = 32  # clips or captions that are encoded at once
_COLUMNS = ("clip_id", "captions", "group", "kin")


@dataclass(frozen=True)
class Vectors:
    """Clips and captions as a dual encoder sees them.

    Attributes:
        clips: ``[n, d]`` float32, of unit length.
        captions: ``[m, d]`` float32, of unit length.
        clip_of: ``[m]`` int64, the clip of each caption.
        group, kin: ``[n]`` int64, stable ids of the clips.
    """

    clips: Tensor
    captions: Tensor
    clip_of: Tensor
    group: Tensor
    kin: Tensor


def nearest_wrong(vectors: Vectors, rows: slice, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    """The hard negatives of some clips.

    Args:
        vectors: the vectors of all clips and captions.
        rows: the clips, for example a worker's share.
        top: how many of each.
        threshold: captions that resemble one of the clip's own by this cosine or more are taken for true.

    Returns:
        captions ``[rows, top]``, nearest first, and their scores; where there are fewer, -1 and minus infinity.
    """
    clips = torch.arange(len(vectors.clips))[rows]
    best = vectors.clips.new_full((len(clips), top), -torch.inf)
    found = torch.full((len(clips), top), -1)
    place = {int(clip): number for number, clip in enumerate(clips)}
    own = torch.tensor([number for number, clip in enumerate(vectors.clip_of.tolist()) if clip in place])
    owner = torch.tensor([place[int(vectors.clip_of[number])] for number in own.tolist()])
    for start in range(0, len(vectors.captions), BLOCK):
        some = slice(start, start + BLOCK)
        scores = vectors.clips[clips] @ vectors.captions[some].t()
        theirs = vectors.clip_of[some]
        akin = vectors.group[clips][:, None] == vectors.group[theirs][None]
        akin |= vectors.kin[clips][:, None] == vectors.kin[theirs][None]
        akin |= clips[:, None] == theirs[None]
        if len(own):
            near = (vectors.captions[own] @ vectors.captions[some].t() >= threshold).to(scores)
            akin |= torch.zeros_like(scores).index_add_(0, owner, near) > 0
        scores[akin] = -torch.inf
        numbers = torch.arange(start, start + len(theirs)).expand(len(clips), -1)
        both, names = torch.cat((best, scores), 1), torch.cat((found, numbers), 1)
        best, order = both.topk(top, 1)
        found = names.gather(1, order)
    return torch.where(best > -torch.inf, found, -1), best


@dataclass(frozen=True)
class _Share:
    """Mines the clips of one share; a runner sends it to its workers once."""

    vectors: Vectors
    top: int
    threshold: float

    def __call__(self, rows: slice) -> tuple[int, list[list[int]], list[list[float]]]:
        found, scores = nearest_wrong(self.vectors, rows, self.top, self.threshold)
        return rows.start, found.tolist(), scores.tolist()


def mine(
    retriever: Retriever, manifest: Any, split: str, top: int, threshold: float, out: str, runner: Runner
) -> dict[str, Any]:
    """Write the hard negatives of every clip of a split, as `training.data.negatives.NEGATIVES`.

    Raises:
        InputError: the model has no vectors of clips alone.
    """
    clips, captions, vectors = embedded(retriever, manifest, split)
    shares = [slice(start, min(start + CLIPS_AT_ONCE, len(clips))) for start in range(0, len(clips), CLIPS_AT_ONCE)]
    progress = Progress("mine", len(clips), "clips", runner.watch)
    rows: dict[int, dict[str, Any]] = {}
    for start, found, scores in runner.map(_Share(vectors, top, threshold), shares):
        for number, (own, values) in enumerate(zip(found, scores, strict=True), start):
            kept = [(captions[c], score) for c, score in zip(own, values, strict=True) if c >= 0]
            texts = dict(reversed(kept))  # a caption that several clips have, once
            rows[number] = {"clip_id": clips[number], "texts": list(texts), "scores": list(texts.values())}
        progress.add(len(found))
    progress.finish()
    table = pa.Table.from_pylist([rows[number] for number in sorted(rows)], schema=NEGATIVES)
    storage, name = located(out)
    storage.write_table(name, table)
    return {"clips": len(clips), "negatives": sum(len(row["texts"]) for row in rows.values()), "out": out}


def embedded(retriever: Retriever, manifest: Any, split: str) -> tuple[list[str], list[str], Vectors]:
    """The clips of a split, all their captions as published, and the vectors of both."""
    settings = retriever.recipe.data
    order = SequentialOrder(manifest.table, split, settings, AT_ONCE)
    clips = clips_of(order)
    side = encode_clips(side_encoder(retriever.model, settings, retriever.device), manifest, order, LocalGroup())
    sounds = retriever.model.head.embedding(side)
    if sounds is None:
        remedy = "name a model with the head dual"
        raise InputError("a head with attention has no vectors of clips alone", remedy=remedy)
    place = {clip: number for number, clip in enumerate(clips)}
    rows = {row["clip_id"]: row for row in manifest.table.select(list(_COLUMNS)).to_pylist() if row["clip_id"] in place}
    captions = [
        (place[clip], caption["text"])
        for clip in clips
        for caption in rows[clip]["captions"]
        if caption["source"] is None and caption["text"]
    ]
    group = [stable_id(rows[clip]["group"] or clip) for clip in clips]
    kin = [stable_id(rows[clip]["kin"] or rows[clip]["group"] or clip) for clip in clips]
    texts = [text for _, text in captions]
    owners = torch.tensor([owner for owner, _ in captions], dtype=torch.int64)
    vectors = Vectors(sounds, caption_vectors(retriever, texts), owners, torch.tensor(group), torch.tensor(kin))
    return clips, texts, vectors


def caption_vectors(retriever: Retriever, texts: Sequence[str]) -> Tensor:
    """The vectors ``[texts, d]`` of texts in any spelling."""
    settings = retriever.recipe.data
    encoder = side_encoder(retriever.model, settings, retriever.device)
    read = [normalise(text, settings) for text in texts]
    found = retriever.model.head.embedding(encode_texts(encoder, read, LocalGroup(), AT_ONCE))
    if found is None:
        remedy = "name a model with the head dual"
        raise InputError("a head with attention has no vectors of texts alone", remedy=remedy)
    return found
