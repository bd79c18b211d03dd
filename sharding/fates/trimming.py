"""Where a training clip holds protected sound, and what of it is left outside: pure decisions.

All times are seconds in the clip.  A place reaches as far as the protected clip could: from where it begins to where
it ends, at the offset that was verified or that ids tell, whatever part of that the proof rests on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.grouping import SOUND_METHODS
from sharding.dedup.spans import _GRID, Span

LEAST_PART_S = 1.0  # of a window that the stretch cuts through: less of it is left out
_TIMES = ("onset", "offset")  # of a caption
_TOLD_S = 0.1  # of a timed caption that must lie in the stretch: in less, nothing can be heard


class Part(NamedTuple):
    """What is written of one of a clip's windows.

    Attributes:
        window: its number among the clip's windows.
        start_s, duration_s: of the part, in the clip.
        whole: the window is written as it is.
    """

    window: int
    start_s: float
    duration_s: float
    whole: bool


def shared_places(
    matches: pa.Table,
    protected: Collection[str],
    durations: Mapping[str, float],
    intervals: Mapping[str, Span],
    unknown: bool = True,
) -> dict[str, dict[str, list[Span]]]:
    """Where each unprotected clip holds protected ones: clip to protected clip to spans, sorted.

    Verified rows count, and ids that tell a place, however short the overlap; undecided sound does not.  A place
    that nobody knows is everywhere.

    Args:
        matches: MATCHES.
        protected: clip_ids.
        durations: of clips that decoded.
        intervals: what is known of the part of its source that a clip covers.
        unknown: whether ids that name the source and no part of it count.
    """
    heard = pc.and_(pc.is_in(matches["method"], pa.array(SOUND_METHODS)), pc.equal(matches["outcome"], "same"))
    told = pc.and_(pc.equal(matches["method"], "identity"), pc.not_equal(matches["outcome"], "different"))
    found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for row in matches.filter(pc.or_(heard, told)).to_pylist():
        a, b, offset = row["a"], row["b"], row["offset_s"]
        if (a in protected) == (b in protected):
            continue
        clip, other = (b, a) if a in protected else (a, b)
        if offset is None:
            if unknown or row["method"] != "identity":
                found[clip][other].append((-math.inf, math.inf))
            continue
        length = durations.get(other, 0.0)
        if row["method"] == "identity":
            start, end = intervals[other]
            length = max(length, end - start)
        start = offset if clip == a else -offset
        found[clip][other].append((start, start + length))
    return {
        clip: {other: sorted(set(spans)) for other, spans in sorted(others.items())} for clip, others in found.items()
    }


def longest(stretches: Sequence[Span]) -> Span | None:
    """The longest, the earliest of equals; None where there is none."""
    return max(stretches, key=lambda stretch: (stretch[1] - stretch[0], -stretch[0]), default=None)


def parts(windows: Sequence[Mapping[str, Any]], stretch: Span) -> list[Part]:
    """What is written of each window where only ``stretch`` is; windows as in FACTS."""
    found = []
    for window in windows:
        begin, finish = window["start_s"], window["start_s"] + window["duration_s"]
        start, end = max(begin, stretch[0]), min(finish, stretch[1])
        whole = start == begin and end > finish - 1 / _GRID
        if whole:
            found.append(Part(window["window"], begin, window["duration_s"], True))
        elif end - start >= LEAST_PART_S:
            found.append(Part(window["window"], start, end - start, False))
    return found


def extent(written: Sequence[tuple[float, float]]) -> Span:
    """Where the (start, duration) of parts begin and end, to the millisecond."""
    (start, _), (last, duration) = written[0], written[-1]
    return round(start, 3), round(last + duration, 3)


def later(captions: Iterable[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """The captions with times that are ``seconds`` larger, to the millisecond."""
    return [
        {**caption, **{name: round(caption[name] + seconds, 3) for name in _TIMES if caption.get(name) is not None}}
        for caption in captions
    ]


def told_in(captions: Iterable[dict[str, Any]], start_s: float, end_s: float) -> list[dict[str, Any]]:
    """The captions that speak of ``[start_s, end_s)``; their times are cut at its ends, and stay times of the clip.

    A caption without times speaks of all of the recording, and of this part too.
    """
    told = []
    for caption in captions:
        onset, offset = caption.get("onset"), caption.get("offset")
        start, end = max(start_s, onset or 0.0), min(end_s, math.inf if offset is None else offset)
        if onset is None and offset is None:
            told.append(caption)
        elif end - start >= _TOLD_S:
            told.append(
                {**caption, "onset": onset if onset is None else start, "offset": offset if offset is None else end}
            )
    return told
