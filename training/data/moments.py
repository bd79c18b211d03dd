"""Captions with times: where in its recording each of them is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sharding.schema import stable_id
from training.data.captions import normalise

Floats = NDArray[np.float64]
TICKS = 1_000_000  # of a second, in which times travel as whole numbers


@dataclass(frozen=True)
class Moment:
    """A caption and where in its recording it is true.

    Attributes:
        clip: the recording.
        text: the caption as the model reads it.
        intervals: ``[n, 2]`` starts and ends in seconds.
    """

    clip: str
    text: str
    intervals: Floats


def moments_of(table: pa.Table, settings: Any) -> list[Moment]:
    """The captions with times of some samples, by clip and text; captions of duplicates do not count.

    Args:
        table: rows of MANIFEST.
        settings: the data section of the model's recipe, which says how captions are spelled.
    """
    found: dict[tuple[str, str], set[tuple[float, float]]] = {}
    for clip, captions in zip(table["clip_id"].to_pylist(), table["captions"].to_pylist(), strict=True):
        for one in captions or ():
            timed = one["onset"] is not None and one["offset"] is not None and one["offset"] > one["onset"]
            if timed and one["source"] is None and (text := normalise(one["text"] or "", settings)):
                found.setdefault((clip, text), set()).add((one["onset"], one["offset"]))
    return [Moment(clip, text, np.array(sorted(times))) for (clip, text), times in found.items()]


class CaptionTimes:
    """Looks up where a caption is true in its recording.

    Args:
        moments: what is known.

    Attributes:
        width: int64 words of each answer.
    """

    def __init__(self, moments: Sequence[Moment]) -> None:
        merged = {(stable_id(each.clip), each.text): _merged(each.intervals) for each in moments}
        self._known = {place: np.rint(TICKS * intervals).astype(np.int64) for place, intervals in merged.items()}
        self._most = max((len(intervals) for intervals in merged.values()), default=0)

    @property
    def width(self) -> int:
        return 2 * self._most

    def words(self, clips: Sequence[int], texts: Sequence[str]) -> NDArray[np.int64]:
        """The intervals of captions, ``[n, width]``: starts and ends in ticks; intervals from 0 to 0 fill the rest.

        Args:
            clips: stable ids of the recordings, ``n``.
            texts: the captions as the model reads them.
        """
        words = np.zeros((len(texts), self.width), np.int64)
        for row, place in enumerate(zip(clips, texts, strict=True)):
            if (intervals := self._known.get(place)) is not None:
                words[row, : intervals.size] = intervals.ravel()
        return words


def _merged(intervals: Floats) -> Floats:
    """Intervals ``[n, 2]`` in their order, those that touch each other joined."""
    found: list[list[float]] = []
    for start, end in sorted(intervals.tolist()):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return np.array(found)
