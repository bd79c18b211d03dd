"""Retrieval on a split: the same figures on any number of ranks.

Scores are computed in float64 and compared as float32, so that identical sounds tie whatever the shape of the tile in
which they were scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.data.captions import normalise
from training.data.order import SequentialOrder
from training.engine.distributed import Group
from training.evaluation.encoding import SideEncoder, encode_clips, encode_texts
from training.evaluation.metrics import Ranking, metrics, rank_relevant
from training.evaluation.relevance import relevance_matrix
from training.evaluation.split import Split, read_split
from training.models.heads.base import Head, Side
from training.search.two_stage import two_stage_scores

QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated.

    Attributes:
        split: dataset/split.
        batch_size: clips, or captions, that a rank encodes at once.
        candidates: of each query, found by vectors, that a head with attention scores exactly; 0: all.
        relevance: each query and the file names of its relevant clips, for ``text_to_audio_multiple``; None: none.
    """

    split: str
    batch_size: int = 32
    candidates: int = 0
    relevance: dict[str, list[str]] | None = None


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
        manifest: of the build.
        settings: what is evaluated.
        group: the ranks; each takes a share.
        progress: called with the number of batches of clips that are encoded, and of all of them.

    Returns:
        ``{"split", "clips", "captions", "text_to_audio": metrics, "audio_to_text": metrics}``, and with a relevance
        table ``"text_to_audio_multiple": metrics`` and ``"queries"``.
    """
    order = SequentialOrder(manifest.table, settings.split, encoder.settings, settings.batch_size)
    split = read_split(manifest.table, settings.split, order, encoder.settings)
    multiple = None if settings.relevance is None else _multiple(settings.relevance, split)
    sounds = encode_clips(encoder, manifest, order, group, progress)
    texts = encode_texts(encoder, split.captions, group, settings.batch_size)
    own = split.clip_of[:, None] == np.arange(len(split.clips))[None, :]
    ranking = _SharedRanking(encoder.head, group, settings.candidates)
    result: dict[str, Any] = {"split": split.name, "clips": len(split.clips), "captions": len(split.captions)}
    result["text_to_audio"] = metrics(ranking.of_clips(texts, sounds, own))
    result["audio_to_text"] = metrics(ranking.of_captions(texts, sounds, own.T))
    if multiple is not None:
        queries, relevant = multiple
        spelled = [normalise(query, encoder.settings) for query in queries]
        texts = encode_texts(encoder, spelled, group, settings.batch_size)
        result["text_to_audio_multiple"] = metrics(ranking.of_clips(texts, sounds, relevant))
        result["queries"] = len(queries)
    return result


def _multiple(table: dict[str, list[str]], split: Split) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """The queries of a relevance table, and which clips of the split are relevant, ``[queries, clips]``."""
    queries = sorted(table)
    columns = {clip.removeprefix(split.name + "/"): number for number, clip in enumerate(split.clips)}
    return queries, relevance_matrix(queries, table, columns)


@dataclass(frozen=True)
class _SharedRanking:
    """Finds the relevant items of queries; each rank of the group scores its share of the queries."""

    head: Head
    group: Group
    candidates: int

    def of_clips(self, texts: Side, sounds: Side, relevant: npt.NDArray[np.bool_]) -> Ranking:
        """Where the relevant clips of each text are; ``relevant [texts, clips]``."""
        texts, sounds = _comparable(self.head, texts), _comparable(self.head, sounds)

        def scores(some: slice) -> torch.Tensor:
            queries = tuple(tensor[some] for tensor in texts)
            return two_stage_scores(self.head, queries, sounds, self.candidates)

        return self._share(scores, relevant)

    def of_captions(self, texts: Side, sounds: Side, relevant: npt.NDArray[np.bool_]) -> Ranking:
        """Where the relevant captions of each clip are; ``relevant [clips, captions]``."""
        texts, sounds = _comparable(self.head, texts), _comparable(self.head, sounds)

        def scores(some: slice) -> torch.Tensor:
            queries = tuple(tensor[some] for tensor in sounds)
            return two_stage_scores(self.head, texts, queries, self.candidates, by_text=False).t()

        return self._share(scores, relevant)

    def _share(self, scores: Callable[[slice], torch.Tensor], relevant: npt.NDArray[np.bool_]) -> Ranking:
        """The ranking of all queries, from scores ``[queries, items]`` of those in a slice."""
        count, group = len(relevant), self.group
        begin, end = count * group.rank // group.size, count * (group.rank + 1) // group.size
        parts = []
        for start in range(begin, end, QUERIES_AT_ONCE):
            some = slice(start, min(start + QUERIES_AT_ONCE, end))
            parts.append(rank_relevant(scores(some).float().numpy(), relevant[some]))
        shares = group.gather_objects(parts, "ranking of relevant items")
        return Ranking.concatenate([part for share in shares for part in share])


def _comparable(head: Head, side: Side) -> Side:
    """A side on the device and in the precision of its scoring: float64 on the CPU unless the head has weights."""
    shared = head.shared()
    dtype, device = (shared[0].dtype, shared[0].device) if shared else (torch.float64, torch.device("cpu"))
    return tuple(tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype) for tensor in side)
