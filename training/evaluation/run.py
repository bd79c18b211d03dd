"""Retrieval on a split: the same figures on any number of ranks.

Scores are computed in float64 and compared as float32, so that identical sounds tie whatever the shape of the tile in
which they were scored.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.sampling.order import SequentialOrder
from training.engine.distributed import Group
from training.evaluation.counting import Block, comparable
from training.evaluation.encoding import SideEncoder, encode_clips, encode_texts
from training.evaluation.figures import Questions, figures, multiple_of, rank_all
from training.evaluation.split import read_split
from training.evaluation.two_stage import two_stage_scores
from training.models.heads.base import Head, Side, rows_of

QUERIES_AT_ONCE = 256
IN_MEMORY = 2**30  # bytes of scores that a rank keeps in memory; more are kept in a file without a name


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated.

    Attributes:
        split: dataset/split.
        batch_size: clips, or captions, that a rank encodes at once.
        candidates: how many candidates of each query, found by vectors, a head with attention scores exactly; 0: all.
        relevance: each query, the file names of its relevant clips and their relevance, for
            ``text_to_audio_multiple``; None: none.
    """

    split: str
    batch_size: int = 32
    candidates: int = 0
    relevance: Mapping[str, Mapping[str, float]] | None = None


def evaluate(
    encoder: SideEncoder,
    manifest: Any,
    settings: EvaluationSettings,
    group: Group,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Text-to-audio and audio-to-text retrieval among all clips of a split; the same on every rank.

    Args:
        encoder: a model's, or an engine's.
        manifest: the manifest of the build.
        settings: what is evaluated.
        group: the ranks; each takes a share.
        progress: called with the number of batches of clips that are encoded, and of all of them.

    Returns:
        as `training.evaluation.figures.figures`.
    """
    order = SequentialOrder(manifest.table, settings.split, encoder.settings, settings.batch_size)
    split = read_split(manifest.table, settings.split, order, encoder.settings)
    questions = Questions.of(split, settings.relevance, encoder.settings)
    multiple = None if settings.relevance is None else multiple_of(questions, settings.relevance)
    sounds = scored_side(encoder.head, encode_clips(encoder, manifest, order, group, progress))
    texts = scored_side(encoder.head, encode_texts(encoder, questions.read, group, settings.batch_size))
    # Once: ranks score different numbers of queries, and ZeRO-3 asks all ranks for weights whenever a module runs.
    with torch.no_grad():
        shared = encoder.head.shared()
    score = functools.partial(two_stage_scores, encoder.head, candidates=settings.candidates, shared=shared)
    rows = _Share(len(questions.read), group, lambda some: score(rows_of(texts, some), sounds))
    by_clip = None
    if settings.candidates:
        captions = rows_of(texts, slice(questions.captions))
        columns = _Share(
            len(questions.clips), group, lambda some: score(captions, rows_of(sounds, some), by_text=False).t()
        )
        by_clip = columns.blocks
    found = rank_all(rows.blocks, questions, multiple, group, by_clip)
    return figures(found, questions, multiple)


class _Share:
    """The rows of a score matrix that a rank computes, once; later passes read them again.

    Args:
        count: the number of all rows.
        group: the ranks, which take contiguous shares.
        scores: the scores of some rows.
    """

    def __init__(self, count: int, group: Group, scores: Callable[[slice], torch.Tensor]) -> None:
        self.begin, self.end = count * group.rank // group.size, count * (group.rank + 1) // group.size
        self._scores = scores
        self._kept: Block | None = None

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """The first row of each block, and its scores."""
        known, kept = self._kept is not None, self._kept
        for start in range(self.begin, self.end, QUERIES_AT_ONCE):
            stop = min(start + QUERIES_AT_ONCE, self.end)
            if known:
                assert kept is not None
                block = kept[start - self.begin : stop - self.begin]
            else:
                block = comparable(self._scores(slice(start, stop)).float().numpy())
                if kept is None:
                    kept = _room(self.end - self.begin, block.shape[1])
                kept[start - self.begin : stop - self.begin] = block
            yield start, block
        self._kept = kept


def _room(rows: int, columns: int) -> Block:
    """An array for scores, in memory or in a file that is gone when this process ends."""
    if rows * columns * 4 <= IN_MEMORY:
        return np.empty((rows, columns), np.float32)
    with tempfile.TemporaryFile(prefix="earshot-scores-") as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))


def scored_side(head: Head, side: Side) -> Side:
    """A side on the device and in the precision of its scoring: float64 on the CPU unless the head has weights."""
    shared = head.shared()
    dtype, device = (shared[0].dtype, shared[0].device) if shared else (torch.float64, torch.device("cpu"))
    return tuple(tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype) for tensor in side)
