"""Spans of a clip, and what lies outside of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

# Kept away from every place.  Offsets are right within 20 ms; what an id tells is rounded to a second, and an
# excerpt's fades, echo and the codecs' smear reach a little beyond where it can be proved.
MARGIN_S = 1.0
# A stretch shorter than this is not worth its captions, which speak of the whole recording: half the shortest clips
# of the captioned datasets.
LEAST_S = 5.0
_GRID = 1000  # a stretch begins and ends at whole milliseconds
Span = tuple[float, float]  # start, end; the end may be infinite


def outside(duration_s: float, places: Iterable[Span]) -> list[Span]:
    """The stretches of a clip that keep ``MARGIN_S`` from all places and last ``LEAST_S`` at least, in order."""
    free: list[Span] = []
    at = 0.0
    for start, end in [*sorted(places), (math.inf, math.inf)]:
        stop = min(start - MARGIN_S, duration_s)
        if stop - at >= LEAST_S:
            begin = math.ceil(at * _GRID) / _GRID
            finish = stop if stop == duration_s else math.floor(stop * _GRID) / _GRID
            if finish - begin >= LEAST_S:
                free.append((begin, finish))
        at = max(at, end + MARGIN_S)
    return free
