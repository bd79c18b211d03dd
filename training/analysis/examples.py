"""Captions that a model finds easy or hard: where their own clip stands, what it preferred, and how both sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharding.audio import decode_segment
from sharding.common.excerpts import player, spectrogram
from sharding.layout import shard_name
from training.evaluation.figures import Questions

PREFERRED = 3  # clips that the model preferred, shown of each example
HEARD_S = 10.0  # of a clip on the page


@dataclass(frozen=True)
class Query:
    """A caption and what the model made of it.

    Attributes:
        caption: as published.
        clip: its own clip.
        rank: the rank of its own clip, from 1; of equal scores, the mean.
        margin: the score of its own clip minus that of the best other one.
        preferred: the best other clips.
    """

    caption: str
    clip: str
    rank: float
    margin: float
    preferred: tuple[str, ...]


def browse(blocks: Iterable[tuple[int, npt.NDArray[np.float32]]], questions: Questions) -> list[Query]:
    """Every caption with its rank, its margin and what the model preferred, the worst margin first.

    Args:
        blocks: the first row and the scores of each block of the score matrix, one after another.
        questions: what its rows and columns are.
    """
    queries = []
    for first, scores in blocks:
        own_clips = questions.clip_of[first : first + len(scores)].tolist()
        for row, (own, line) in enumerate(zip(own_clips, scores, strict=False)):  # queries that are no captions: last
            best = [clip for clip in _highest(line, PREFERRED + 1) if clip != own][:PREFERRED]
            above, ties = int((line > line[own]).sum()), int((line == line[own]).sum())
            margin = float(line[own] - line[best[0]]) if best else 0.0
            preferred = tuple(questions.clips[clip] for clip in best)
            rank = above + (ties + 1) / 2
            queries.append(Query(questions.texts[first + row], questions.clips[own], rank, margin, preferred))
    return sorted(queries, key=lambda query: (query.margin, query.clip, query.caption))


def _highest(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """The places of the highest scores, the highest first, and of equal ones the first."""
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= least)
        return places[np.argsort(-scores[places], kind="stable")].tolist()[:count]
    return np.argsort(-scores, kind="stable").tolist()


def chosen(queries: Sequence[Query], count: int) -> list[Query]:
    """Choose ``count`` queries: half of them are the worst ones, the others are spread from there to the best."""
    worst = list(queries[: count // 2])
    rest = queries[len(worst) :]
    spread = [rest[number] for number in np.linspace(0, len(rest) - 1, min(count - len(worst), len(rest))).astype(int)]
    return list(dict.fromkeys([*worst, *spread]))


class Clips:
    """Clips as a page shows them, each made once.

    Args:
        questions: the captions of the clips.
        manifest: the manifest of the build, for their sound; None: there is none to be heard.
    """

    def __init__(self, questions: Questions, manifest: Any | None) -> None:
        own_clips = questions.clip_of.tolist()
        self._captions = {
            questions.clips[clip]: questions.texts[row] for row, clip in reversed(list(enumerate(own_clips)))
        }
        self._manifest, self._made = manifest, dict[str, dict[str, Any]]()
        self._rows: dict[str, int] = {}
        if manifest is not None:
            wanted = set(questions.clips)
            first = manifest.table["window"].to_numpy() == 0
            ids = manifest.table["clip_id"].to_pylist()
            self._rows = {clip: row for row, clip in enumerate(ids) if first[row] and clip in wanted}

    def of(self, query: Query) -> list[dict[str, Any]]:
        """The clip of a query, then those that the model preferred."""
        return [self[clip] | {"own": clip == query.clip} for clip in (query.clip, *query.preferred)]

    def __getitem__(self, clip: str) -> dict[str, Any]:
        """``clip``, ``caption``, and ``sound``, ``picture`` and ``seconds`` where the build has its sound."""
        if clip not in self._made:
            sound: Mapping[str, Any] = {"sound": None, "picture": None, "seconds": 0.0}
            if clip in self._rows:
                sound = _sound(self._manifest, self._rows[clip])
            self._made[clip] = {"clip": clip, "caption": self._captions.get(clip, ""), **sound}
        return self._made[clip]


def _sound(manifest: Any, row: int) -> dict[str, Any]:
    """A clip's first seconds as a player and a picture; ``row`` is that of its first window in the manifest."""
    sample = manifest.table.slice(row, 1).to_pylist()[0]
    data = manifest.storage.read(shard_name(sample["shard"]), sample["audio_offset"], sample["audio_bytes"])
    wave, rate = decode_segment(data, 0.0, HEARD_S)
    return {"sound": player(wave, rate), "picture": spectrogram(wave, rate), "seconds": len(wave) / rate}
