"""Spans of recordings: neighbouring windows that answer a query become one place to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A stretch of a recording.

    Attributes:
        row: the entry with the best score.
        score: its score.
        start_s, end_s: the stretch, in the recording.
    """

    row: int
    score: float
    start_s: float
    end_s: float


def spans_of(
    rows: np.ndarray,
    scores: np.ndarray,
    recordings: Sequence[str],
    starts: np.ndarray,
    ends: np.ndarray,
    background: float,
) -> list[Span]:
    """The spans of found windows, best first; of equal ones, in the order of the windows.

    A span grows from its best window to both sides, as long as a neighbour touches it and scores above halfway between
    the best score and ``background``.  Windows of the same recording that do not touch it, or score below this, begin
    spans of their own, but not inside of a better one.

    Args:
        rows: entries ``[n]``.
        scores: theirs, ``[n]``.
        recordings: the clip_id of each, ``[n]``.
        starts, ends: where each is in its recording, in seconds, ``[n]``.
        background: the score of a window that does not answer the query.
    """
    order = np.lexsort((np.arange(len(rows)), -scores))
    members: dict[str, list[int]] = {}
    for place in order.tolist():
        members.setdefault(recordings[place], []).append(place)
    found = [
        span for places in members.values() for span in _of_recording(places, rows, scores, starts, ends, background)
    ]
    rank = {int(rows[place]): number for number, place in enumerate(order.tolist())}
    return sorted(found, key=lambda span: rank[span.row])


def _of_recording(
    places: list[int], rows: np.ndarray, scores: np.ndarray, starts: np.ndarray, ends: np.ndarray, background: float
) -> list[Span]:
    """The spans of one recording; ``places`` are its windows, best first."""
    left, spans = list(places), []
    while left:
        best = left[0]
        start, end, least = starts[best], ends[best], (scores[best] + background) / 2
        near = sorted((place for place in left if scores[place] >= least), key=lambda place: starts[place])
        for place in near:  # to the right
            if starts[place] <= end:
                end = max(end, ends[place]) if ends[place] > start else end
        for place in reversed(near):  # to the left
            if ends[place] >= start and starts[place] <= end:
                start = min(start, starts[place])
        spans.append(Span(int(rows[best]), float(scores[best]), float(start), float(end)))
        left = [place for place in left if ends[place] <= start or starts[place] >= end]
    return spans
