"""The ``residual`` row of a pair: whether, over the whole of an overlap, each clip explains what the other one holds.

``sharding.dedup.explanation`` judges one stretch; here a whole overlap is read, stretch by stretch, and the strongest
difference becomes evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharding.dedup.explanation import RATE, Excess, ceiling, excesses, new_sound
from sharding.dedup.grouping import Relation, covers
from sharding.rows import Difference

_SLACK_S = 0.1  # of a clip's end that the other one does not reach: what codecs and cutters add or take
_INTO_S = 0.1  # of the overlap that is read with such an end, so that it has no edge of its own


Wave = Callable[[str, float, float, int], np.ndarray]  # clip_id, start_s, duration_s, rate


def removable_pairs(
    found: Iterable[Relation], durations: Mapping[str, float], protected: Collection[str], share: float
) -> list[tuple[str, str, float]]:
    """(a, b, offset) of pairs of which one clip may be removed, without a residual row and without equal samples.

    Args:
        found: what the matches say of each pair.
        durations: the durations of the clips, in seconds.
        protected: clips that are never removed, and whose leaks need no more than shared sound.
        share: the share of a clip that an overlap must cover before the clip may be removed.
    """

    def is_removable(relation: Relation) -> bool:
        ends = relation.a, relation.b
        known = relation.explained or relation.difference is not None
        return not (known or any(end in protected for end in ends)) and any(
            covers(relation, end, durations, share) for end in ends
        )

    return [(relation.a, relation.b, relation.offset_s) for relation in found if is_removable(relation)]


def explain_pairs(
    pairs: Sequence[tuple[str, str, float]], wave: Wave, durations: Mapping[str, float], share: float, stretch_s: float
) -> tuple[int, list[dict[str, Any]]]:
    """How many pairs (a, b, offset), and their ``residual`` rows; see ``Overlap``."""
    return len(pairs), [Overlap(wave, durations, *pair, stretch_s).row(share) for pair in pairs]


@dataclass(frozen=True)
class Overlap:
    """Two clips at an offset.

    Attributes:
        wave: ``wave(clip_id, start_s, duration_s, rate)`` gives mono float32 [n], cut at the clip's ends.
        durations: the durations of both clips, in seconds.
        a, b: their clip_ids.
        offset_s: b's time 0 stands at this time of a.
        stretch_s: the longest stretch that is judged at once.
    """

    wave: Wave
    durations: Mapping[str, float]
    a: str
    b: str
    offset_s: float
    stretch_s: float

    def row(self, share: float) -> dict[str, Any]:
        """The ``residual`` row of MATCHES.

        Args:
            share: a clip of which the overlap covers at least this share is judged to its ends.
        """
        start, end = max(0.0, self.offset_s), min(self.durations[self.a], self.offset_s + self.durations[self.b])
        found = list(self._differences(start, end, share))
        worst = max(found, key=lambda difference: difference["above_db"], default=None)
        return {
            "a": self.a,
            "b": self.b,
            "method": "residual",
            "offset_s": self.offset_s,
            "overlap_s": end - start,
            "score": None if worst is None else worst["above_db"],
            "outcome": "same" if worst is None else "different",
            "difference": worst,
        }

    def _differences(self, start: float, end: float, share: float) -> Iterator[Difference]:
        """All differences of an overlap, whose times are a's."""
        count = max(1, math.ceil((end - start) / self.stretch_s))
        step = (end - start) / count
        rests = {self.a: self._rests(self.a, start, end, share)}
        rests[self.b] = self._rests(self.b, start - self.offset_s, end - self.offset_s, share)
        reached: dict[str, np.ndarray] = {}
        for at in (start + k * step for k in range(count)):
            begins = {self.a: at, self.b: max(0.0, at - self.offset_s)}
            sounds = {clip_id: self.wave(clip_id, begin, step, RATE) for clip_id, begin in begins.items()}
            for clip_id in filter(rests.get, sounds):
                reached[clip_id] = np.maximum(reached.get(clip_id, 0.0), ceiling(sounds[clip_id]))
            for (clip_id, begin), excess in zip(begins.items(), excesses(*sounds.values()), strict=True):
                if excess is not None:
                    yield _difference(clip_id, begin, excess)
        for clip_id, begin, finish in ((clip_id, *span) for clip_id, spans in rests.items() for span in spans):
            excess = new_sound(self.wave(clip_id, begin, finish - begin, RATE), reached[clip_id])
            if excess is not None:
                yield _difference(clip_id, begin, excess)

    def _rests(self, clip_id: str, first: float, last: float, share: float) -> list[tuple[float, float]]:
        """What is read of the ends of a clip that the overlap from ``first`` to ``last`` does not reach.

        Where the overlap covers little of the clip, the other one is an excerpt, and has no say beyond it.
        """
        duration = self.durations[clip_id]
        if last - first < share * duration:
            return []
        ends = ((0.0, first), (last, duration))
        return [(max(0.0, s - _INTO_S), min(duration, e + _INTO_S)) for s, e in ends if e - s > _SLACK_S]


def _difference(clip_id: str, begin_s: float, excess: Excess) -> Difference:
    return {
        "clip_id": clip_id,
        "start_s": begin_s + excess.start_s,
        "duration_s": excess.duration_s,
        "low_hz": excess.low_hz,
        "high_hz": excess.high_hz,
        "above_db": excess.above_db,
    }


def difference_in_words(difference: Difference) -> str:
    """A value of DIFFERENCE in words."""
    start, end = difference["start_s"], difference["start_s"] + difference["duration_s"]
    band = f"{_kilohertz(difference['low_hz'])} to {_kilohertz(difference['high_hz'])} kHz"
    level = difference["above_db"]
    relation = f"{level:.0f} dB above" if level >= 0 else f"{-level:.0f} dB below"
    return (
        f"{difference['clip_id']} holds sound at {start:.1f} to {end:.1f} s, {band}, that the other clip does not: "
        f"{relation} what they share there"
    )


def _kilohertz(hertz: float) -> str:
    return f"{hertz / 1000:.2g}"
