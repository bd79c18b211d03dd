"""The ``residual`` row of a pair: whether, over the whole of an overlap, each clip explains what the other one holds.

``sharding.dedup.explanation`` judges one stretch; here a whole overlap is read, stretch by stretch, and the strongest
difference becomes evidence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np

from sharding.dedup.explanation import RATE, Excess, ceiling, excesses, new_sound
from sharding.dedup.grouping import Relation, covers
from sharding.dedup.spreading import PIECE_S, Spreader
from sharding.rows import Difference

_SLACK_S = 0.1  # of a clip's end that the other one does not reach: what codecs and cutters add or take
_INTO_S = 0.1  # of the overlap that is read with such an end, so that it has no edge of its own
_STRETCHES = 6  # of an overlap that are one part
_COST = 0.02  # seconds of processor time for each second that is judged, roughly
_COST_OF_PAIR = 0.01


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


class Part(NamedTuple):
    """The stretches from ``first`` to before ``last`` of the overlap of two clips."""

    a: str
    b: str
    offset_s: float
    first: int
    last: int

    @property
    def pair(self) -> tuple[str, str, float]:
        return self.a, self.b, self.offset_s

    @property
    def stretches(self) -> int:
        return self.last - self.first


class Judged(TypedDict):
    """The result of judging some stretches: differences, and the greatest power [bands] that each clip reaches."""

    differences: list[Difference]
    reached: dict[str, list[float]]


class Conclusion(NamedTuple):
    """A pair whose overlap was judged part by part; only the ends beyond it have not been read."""

    pair: tuple[str, str, float]
    judged: list[Judged]


@dataclass(frozen=True)
class Explainer:
    """Explains overlaps; a long one part by part, so that its parts are spread over workers too.

    Attributes:
        wave, durations, stretch_s: see ``Overlap``.
        share: see ``removable_pairs``.
    """

    wave: Wave
    durations: Mapping[str, float]
    share: float
    stretch_s: float

    def explain(self, pairs: Iterable[tuple[str, str, float]], spreader: Spreader) -> list[dict[str, Any]]:
        """The ``residual`` rows of pairs (a, b, offset)."""
        counts = {pair: self._overlap(*pair).stretches for pair in pairs}
        parts = [
            Part(*pair, first, min(first + _STRETCHES, count))
            for pair, count in counts.items()
            for first in range(0, count, _STRETCHES)
        ]
        progress = spreader.begin("match (explaining)", sum(counts.values()), "stretches")
        judged: dict[tuple[str, str, float], dict[int, Judged]] = defaultdict(dict)
        rows: list[dict[str, Any]] = []
        for part, found in spreader.each(progress, self._judge, parts, self._seconds, lambda part: part.stretches):
            if "row" in found:
                rows.append(found["row"])
            else:
                judged[part.pair][part.first] = found["judged"]
        long = [Conclusion(pair, [found for _, found in sorted(some.items())]) for pair, some in judged.items()]
        rows += (row for _, row in spreader.each(progress, self._conclude, long, lambda one: PIECE_S, lambda one: 0))
        progress.finish()
        return rows

    def _overlap(self, a: str, b: str, offset_s: float) -> Overlap:
        return Overlap(self.wave, self.durations, a, b, offset_s, self.stretch_s)

    def _seconds(self, part: Part) -> float:
        overlap = self._overlap(*part.pair)
        return _COST_OF_PAIR + _COST * part.stretches * overlap.length / overlap.stretches

    def _judge(self, parts: list[Part]) -> list[dict[str, Any]]:
        """Judge parts of overlaps: the ``row`` of a part that is a whole overlap, or else what was ``judged``."""
        found: list[dict[str, Any]] = []
        for part in parts:
            overlap = self._overlap(*part.pair)
            judged = overlap.judged(part.first, part.last, self.share)
            whole = part.stretches == overlap.stretches
            found.append({"row": overlap.row([judged], self.share)} if whole else {"judged": judged})
        return found

    def _conclude(self, work: list[Conclusion]) -> list[dict[str, Any]]:
        return [self._overlap(*one.pair).row(one.judged, self.share) for one in work]


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

    @property
    def start(self) -> float:
        """Where the overlap begins in a, in seconds."""
        return max(0.0, self.offset_s)

    @property
    def end(self) -> float:
        """Where the overlap ends in a, in seconds."""
        return min(self.durations[self.a], self.offset_s + self.durations[self.b])

    @property
    def length(self) -> float:
        """The length of the overlap, in seconds."""
        return self.end - self.start

    @property
    def stretches(self) -> int:
        """How many stretches of equal length the overlap has."""
        return max(1, math.ceil(self.length / self.stretch_s))

    def judged(self, first: int, last: int, share: float) -> Judged:
        """Judge the stretches from ``first`` to before ``last``; for ``share`` see ``row``."""
        step = self.length / self.stretches
        rests = self._rests(share)
        reached: dict[str, np.ndarray] = {}
        differences = []
        for at in (self.start + k * step for k in range(first, last)):
            begins = {self.a: at, self.b: max(0.0, at - self.offset_s)}
            sounds = {clip_id: self.wave(clip_id, begin, step, RATE) for clip_id, begin in begins.items()}
            for clip_id in filter(rests.get, sounds):
                reached[clip_id] = np.maximum(reached.get(clip_id, 0.0), ceiling(sounds[clip_id]))
            for (clip_id, begin), excess in zip(begins.items(), excesses(*sounds.values()), strict=True):
                if excess is not None:
                    differences.append(_difference(clip_id, begin, excess))
        return {"differences": differences, "reached": {clip_id: most.tolist() for clip_id, most in reached.items()}}

    def row(self, judged: Sequence[Judged], share: float) -> dict[str, Any]:
        """The ``residual`` row of MATCHES.

        Args:
            judged: what all stretches tell, in order.
            share: a clip of which the overlap covers at least this share is judged to its ends.
        """
        found = [difference for part in judged for difference in part["differences"]]
        for clip_id, begin, finish in (
            (clip_id, *span) for clip_id, spans in self._rests(share).items() for span in spans
        ):
            reached = np.max([part["reached"][clip_id] for part in judged], axis=0).astype(np.float32)
            excess = new_sound(self.wave(clip_id, begin, finish - begin, RATE), reached)
            if excess is not None:
                found.append(_difference(clip_id, begin, excess))
        worst = max(found, key=lambda difference: difference["above_db"], default=None)
        return {
            "a": self.a,
            "b": self.b,
            "method": "residual",
            "offset_s": self.offset_s,
            "overlap_s": self.length,
            "score": None if worst is None else worst["above_db"],
            "outcome": "same" if worst is None else "different",
            "difference": worst,
        }

    def _rests(self, share: float) -> dict[str, list[tuple[float, float]]]:
        """The parts at the ends of each clip, beyond the overlap, that are read.

        Where the overlap covers little of a clip, the other one is an excerpt, and has no say beyond it.
        """
        spans = {self.a: (self.start, self.end), self.b: (self.start - self.offset_s, self.end - self.offset_s)}
        found = {}
        for clip_id, (first, last) in spans.items():
            duration = self.durations[clip_id]
            ends = ((0.0, first), (last, duration)) if last - first >= share * duration else ()
            found[clip_id] = [(max(0.0, s - _INTO_S), min(duration, e + _INTO_S)) for s, e in ends if e - s > _SLACK_S]
        return found


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
