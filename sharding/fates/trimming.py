"""Arithmetic of time for trimming: where a clip holds protected sound, and what a stretch leaves of its windows.

All times are seconds in the clip.  The span of protected sound covers all that the protected clip could cover at the
offset that was found, from its beginning to its end, and not only the part on which the proof rests.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.grouping import SOUND_METHODS
from sharding.dedup.spans import GRID_HZ, Span
from sharding.rows import Caption, MatchRow, Window, rows

LEAST_PART_S = 1.0  # shorter parts of a window are left out
_LEAST_CAPTIONED_S = 0.1  # a timed caption must overlap the stretch by as much: less cannot be heard


class WindowPart(NamedTuple):
    """What is written of one window of a clip.

    Attributes:
        window: its number among the clip's windows.
        start_s, duration_s: where the part begins in the clip, and its length, in seconds.
        whole: whether the window is written as it is.
    """

    window: int
    start_s: float
    duration_s: float
    whole: bool


def protected_spans(
    matches: pa.Table,
    protected: Collection[str],
    durations: Mapping[str, float],
    intervals: Mapping[str, Span],
    unknown_part_leaks: bool = True,
) -> dict[str, dict[str, list[Span]]]:
    """Where each unprotected clip holds protected sound: clip to protected clip to spans, sorted.

    Verified matches count, and matches by published ids whose offset is known, however short the overlap.  Undecided
    matches by sound do not count.  A match without an offset covers the whole clip.

    Args:
        matches: MATCHES.
        protected: clip_ids.
        durations: the durations of clips that were decoded, in seconds.
        intervals: the part of its original that a clip covers, where it is known.
        unknown_part_leaks: whether matches by ids without an offset count.
    """
    by_sound = pc.and_(pc.is_in(matches["method"], pa.array(SOUND_METHODS)), pc.equal(matches["outcome"], "same"))
    by_ids = pc.and_(pc.equal(matches["method"], "identity"), pc.not_equal(matches["outcome"], "different"))
    found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for match in rows(matches.filter(pc.or_(by_sound, by_ids)), MatchRow):
        if (match.a in protected) == (match.b in protected):
            continue
        clip, other = (match.b, match.a) if match.a in protected else (match.a, match.b)
        if match.offset_s is None:
            if unknown_part_leaks or match.method != "identity":
                found[clip][other].append((-math.inf, math.inf))
            continue
        length = durations.get(other, 0.0)
        if match.method == "identity":
            start, end = intervals[other]
            length = max(length, end - start)
        start = match.offset_s if clip == match.a else -match.offset_s
        found[clip][other].append((start, start + length))
    return {
        clip: {other: sorted(set(spans)) for other, spans in sorted(others.items())} for clip, others in found.items()
    }


def longest(stretches: Sequence[Span]) -> Span | None:
    """The longest stretch, the earliest of equally long ones; None if there is none."""
    return max(stretches, key=lambda stretch: (stretch[1] - stretch[0], -stretch[0]), default=None)


def cut_windows(windows: Sequence[Window], stretch: Span) -> list[WindowPart]:
    """What is written of each window if only ``stretch`` is written; windows as in FACTS."""
    found = []
    for window in windows:
        begin, finish = window["start_s"], window["start_s"] + window["duration_s"]
        start, end = max(begin, stretch[0]), min(finish, stretch[1])
        whole = start == begin and end > finish - 1 / GRID_HZ
        if whole:
            found.append(WindowPart(window["window"], begin, window["duration_s"], True))
        elif end - start >= LEAST_PART_S:
            found.append(WindowPart(window["window"], start, end - start, False))
    return found


def extent(written: Sequence[tuple[float, float]]) -> Span:
    """Where parts, given as (start, duration) in order, begin and end, to the millisecond."""
    (start, _), (last, duration) = written[0], written[-1]
    return round(start, 3), round(last + duration, 3)


def shift_captions(captions: Iterable[Caption], seconds: float) -> list[Caption]:
    """The captions with their times increased by ``seconds``, to the millisecond."""

    def shifted(time: float | None) -> float | None:
        return None if time is None else round(time + seconds, 3)

    return [
        {**caption, "onset": shifted(caption["onset"]), "offset": shifted(caption["offset"])} for caption in captions
    ]


def captions_within(captions: Iterable[Caption], start_s: float, end_s: float) -> list[Caption]:
    """The captions that describe ``[start_s, end_s)``, with their times cut to it; times stay times of the clip.

    A caption without times describes the whole recording, and so this stretch too.
    """
    found: list[Caption] = []
    for caption in captions:
        onset, offset = caption["onset"], caption["offset"]
        start, end = max(start_s, onset or 0.0), min(end_s, math.inf if offset is None else offset)
        if onset is None and offset is None:
            found.append(caption)
        elif end - start >= _LEAST_CAPTIONED_S:
            cut_onset, cut_offset = None if onset is None else start, None if offset is None else end
            found.append({**caption, "onset": cut_onset, "offset": cut_offset})
    return found
