"""Spans of time in a clip, and the stretches between them."""

from __future__ import annotations

import math
from collections.abc import Iterable

# Kept free on both sides of every span.  Offsets are right within 20 ms and published intervals within a second, and
# fades, echoes and the smear of codecs reach a little beyond the part that can be proved.
MARGIN_S = 1.0
# A shorter stretch is not worth its captions, which describe the whole recording.  The captioned datasets have clips
# of 10 s and more; this is half of that.
LEAST_S = 5.0
GRID_HZ = 1000  # a stretch begins and ends at a whole millisecond
Span = tuple[float, float]  # start and end in seconds; the end may be infinite


def outside(duration_s: float, spans: Iterable[Span]) -> list[Span]:
    """The stretches of a clip of ``duration_s`` seconds that no span covers, in order.

    Each stretch keeps ``MARGIN_S`` from every span and lasts at least ``LEAST_S``.  It begins and ends at a whole
    millisecond, except that it may end where the clip ends.
    """
    free: list[Span] = []
    earliest = 0.0  # the first time that the spans so far leave free
    for start, end in [*sorted(spans), (math.inf, math.inf)]:
        latest = min(start - MARGIN_S, duration_s)
        if latest - earliest >= LEAST_S:
            begin = math.ceil(earliest * GRID_HZ) / GRID_HZ
            finish = latest if latest == duration_s else math.floor(latest * GRID_HZ) / GRID_HZ
            if finish - begin >= LEAST_S:
                free.append((begin, finish))
        earliest = max(earliest, end + MARGIN_S)
    return free
