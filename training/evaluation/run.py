"""Retrieval on a split, on every rank, equal to one process.

Ranks take whole batches in turn, so a batch holds the same clips for any number of ranks; scores are taken in
float64 and compared as float32, so that identical sounds tie whatever the shape of the tile they stood in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.data.captions import normalise, tokenise
from training.data.features import AudioInput
from training.data.loader import Loader
from training.data.mixture import select_rows
from training.data.order import SequentialOrder
from training.data.sampling import DrawnSamples
from training.data.settings import DataSettings
from training.engine.distributed import Group
from training.evaluation.retrieval import Ranks, metrics, rank_relevant, relevance_matrix
from training.models.heads.base import Head, Side
from training.models.retrieval import RetrievalModel
from training.search.two_stage import two_stage_scores

ROWS = 256  # queries that are ranked at once


@dataclass(frozen=True)
class Split:
    """The clips of a split in their order, and their captions as the model reads them.

    Attributes:
        name: dataset/split.
        clips: clip_ids.
        captions: texts, clip by clip.
        owner: ``[captions]`` index into ``clips``.
    """

    name: str
    clips: list[str]
    captions: list[str]
    owner: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Encoders:
    """How sides come about: a model's own, or an engine's, which gathers sharded weights."""

    head: Head
    audio: Callable[[Any], Side]  # of a Batch
    text: Callable[[Tensor, Tensor], Side]  # of tokens and their mask


def encoders_of(model: RetrievalModel, device: torch.device) -> Encoders:
    """The sides that a model in this process computes."""

    def audio(batch: Any) -> Side:
        with torch.inference_mode():
            return model.audio_side(batch.features.to(device), batch.frames.to(device), batch.seeds.to(device))

    def text(tokens: Tensor, mask: Tensor) -> Side:
        with torch.inference_mode():
            return model.text_side(tokens.to(device), mask.to(device))

    model.eval().to(device)
    return Encoders(model.head, audio, text)


class Dealt:
    """Whole batches of an order dealt to the ranks in turn; the last round may leave a rank an empty one."""

    def __init__(self, order: SequentialOrder, rank: int, world: int) -> None:
        self.order, self.rank, self.world = order, rank, world
        self.steps_per_epoch = -(-order.steps_per_epoch // world)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The ``step``-th batch of this rank."""
        return self.order.batch(epoch, step * self.world + self.rank)


def read_split(table: pa.Table, name: str, order: SequentialOrder, settings: DataSettings) -> Split:
    """The clips of a split with all their own captions."""
    clips = [clip for step in range(order.steps_per_epoch) for clip in order.batch(0, step).clip_ids]
    wanted = set(clips)
    texts: dict[str, list[str]] = {}
    rows = table.select(["clip_id", "captions"]).filter(pa.array(select_rows(table, name)))
    for clip, captions in zip(rows["clip_id"].to_pylist(), rows["captions"].to_pylist(), strict=True):
        if clip in wanted and clip not in texts:
            own = [normalise(caption["text"], settings) for caption in captions if caption["source"] is None]
            texts[clip] = [text for text in own if text]
    silent = next((clip for clip in clips if not texts[clip]), None)
    if silent is not None:
        raise InputError(f"a clip of {name} has no caption to be found by", value=silent)
    owner = [number for number, clip in enumerate(clips) for _ in texts[clip]]
    return Split(name, clips, [text for clip in clips for text in texts[clip]], np.array(owner, np.int64))


def evaluate(
    encoders: Encoders,
    manifest: Any,
    split: str,
    settings: DataSettings,
    audio: AudioInput,
    tokenizer: Any,
    group: Group,
    batch_size: int = 32,
    relevance: dict[str, list[str]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    first: int = 0,
) -> dict[str, Any]:
    """Text-to-audio and audio-to-text retrieval among all clips of a split; the same on every rank.

    Args:
        encoders: `encoders_of` a model, or an engine's.
        manifest: of the build.
        split: dataset/split.
        settings: the recipe's data section (spelling of captions, crop, workers).
        audio: what the audio encoder wants.
        tokenizer: the text encoder's.
        group: the ranks; each takes a share.
        batch_size: clips, or captions, that a rank encodes at once.
        relevance: query to file names of all relevant clips, for ``text_to_audio_multiple``.
        progress: called with what is being done, how much of it is done, and how much there is.
        first: candidates of each query that a head with attention scores exactly, the nearest by vectors; 0: all.

    Returns:
        ``{"split", "clips", "captions", "text_to_audio": metrics, "audio_to_text": metrics}``.
    """
    order = SequentialOrder(manifest.table, split, settings, batch_size)
    found = read_split(manifest.table, split, order, settings)
    sounds = encode_clips(encoders, manifest, order, settings, audio, tokenizer, group, progress)
    texts = encode_texts(encoders, found.captions, tokenizer, settings, group, batch_size)
    clips = np.arange(len(found.clips))
    result: dict[str, Any] = {"split": split, "clips": len(found.clips), "captions": len(found.captions)}
    by_clip = _rank_shared(
        encoders.head, texts, sounds, found.owner[:, None] == clips[None, :], found.clips, group, first
    )
    result["text_to_audio"] = metrics(by_clip)
    caption_ids = [f"{found.clips[owner]}#{number:09d}" for number, owner in enumerate(found.owner)]
    by_caption = _rank_shared(
        encoders.head,
        texts,
        sounds,
        clips[:, None] == found.owner[None, :],
        caption_ids,
        group,
        first,
        by_text=False,
    )
    result["audio_to_text"] = metrics(by_caption)
    if relevance is not None:
        queries = sorted(relevance)
        spelled = [normalise(query, settings) for query in queries]
        asked = encode_texts(encoders, spelled, tokenizer, settings, group, batch_size)
        items = {f"{clip.removeprefix(split + '/')}.wav": number for number, clip in enumerate(found.clips)}
        matrix = relevance_matrix(queries, relevance, items)
        result["text_to_audio_multiple"] = metrics(
            _rank_shared(encoders.head, asked, sounds, matrix, found.clips, group, first)
        )
        result["queries"] = len(queries)
    return result


def encode_clips(
    encoders: Encoders,
    manifest: Any,
    order: SequentialOrder,
    settings: DataSettings,
    audio: AudioInput,
    tokenizer: Any,
    group: Group,
    progress: Callable[[str, int, int], None] | None = None,
) -> Side:
    """The audio sides of all clips of an order, in its order, on the CPU of every rank."""
    dealt = Dealt(order, group.rank, group.size)
    loader = Loader(manifest, dealt, settings, audio, tokenizer, train=False)
    sides = []
    tell = progress or (lambda what, done, total: None)
    tell("clips", 0, order.steps_per_epoch)
    for step, batch in enumerate(loader.epoch(0)):
        if batch.failures:
            raise InputError(
                f"a clip cannot be read: {batch.failures[0]}", remedy="rebuild the shard that `verify` names"
            )
        sides.append(_on_cpu(encoders.audio(batch)))
        tell("clips", min((step + 1) * group.size, order.steps_per_epoch), order.steps_per_epoch)
    return _undeal(sides, order.draws_per_epoch, order.batch_size, group, "audio sides")


def encode_texts(
    encoders: Encoders,
    texts: Sequence[str],
    tokenizer: Any,
    settings: DataSettings,
    group: Group,
    batch_size: int,
) -> Side:
    """The text sides of all texts, in their order, on the CPU of every rank."""
    sides = []
    blocks = -(-len(texts) // batch_size)
    for turn in range(-(-blocks // group.size)):
        start = (turn * group.size + group.rank) * batch_size
        block = list(texts[start : start + batch_size])
        # every rank encodes in every turn, since sharded weights are gathered by all
        side = encoders.text(*tokenise(tokenizer, block or ["nothing"], settings))
        sides.append(_on_cpu(tuple(tensor[: len(block)] for tensor in side)))
    return _undeal(sides, len(texts), batch_size, group, "text sides")


def _rank_shared(
    head: Head,
    texts: Side,
    sounds: Side,
    relevant: np.ndarray[Any, np.dtype[np.bool_]],
    ids: Sequence[str],
    group: Group,
    first: int,
    by_text: bool = True,
) -> Ranks:
    """Ranks of the relevant items of all queries; each rank of the group scores its share of the queries."""
    texts, sounds = _comparable(head, texts), _comparable(head, sounds)
    count = len(relevant)
    begin, end = count * group.rank // group.size, count * (group.rank + 1) // group.size
    order = np.argsort(np.argsort(np.array(ids, dtype=object), kind="stable"), kind="stable")
    parts = []
    for start in range(begin, end, ROWS):
        some = slice(start, min(start + ROWS, end))
        queries = tuple(tensor[some] for tensor in (texts if by_text else sounds))
        pair = (queries, sounds) if by_text else (texts, queries)
        scores = two_stage_scores(head, *pair, first, by_text)
        scores = scores if by_text else scores.t()
        parts.append(rank_relevant(scores.float().numpy(), relevant[some], order))
    shares = group.gather_objects(parts, "ranks of relevant items")
    return Ranks.concatenate([part for share in shares for part in share])


def _on_cpu(side: Side) -> Side:
    return tuple((tensor.float() if tensor.is_floating_point() else tensor).cpu() for tensor in side)


def _comparable(head: Head, side: Side) -> Side:
    """A side where and as precisely as it is scored: in float64 unless the head's weights take part."""
    shared = head.shared()
    dtype, device = (shared[0].dtype, shared[0].device) if shared else (torch.float64, torch.device("cpu"))
    return tuple(tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype) for tensor in side)


def _undeal(sides: Iterable[Side], count: int, size: int, group: Group, name: str) -> Side:
    """Batches that were dealt in turn, put back into their order, whole on every rank."""
    mine = join(list(sides))
    whole = group.gather_many(mine, name)
    position = np.concatenate([p for rank in range(group.size) for p in _positions(count, size, rank, group.size)])
    back = torch.from_numpy(np.argsort(position, kind="stable"))
    return tuple(tensor.detach()[back] for tensor in whole)


def _positions(count: int, size: int, rank: int, world: int) -> Iterator[Any]:
    yield np.zeros(0, np.int64)
    for block in range(rank, -(-count // size), world):
        yield np.arange(block * size, min((block + 1) * size, count))


def join(sides: Sequence[Side]) -> Side:
    """Batches' sides one behind the other; shorter ones are padded with zeros, which masks call padding."""
    joined = []
    for tensors in zip(*sides, strict=True):
        trailing = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
        rows = []
        for tensor in tensors:
            padded = tensor.new_zeros((len(tensor), *trailing))
            padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
            rows.append(padded)
        joined.append(torch.cat(rows))
    return tuple(joined)
