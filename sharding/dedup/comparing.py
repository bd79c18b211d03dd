"""The waveforms of two clips compared: at offsets that their codes tell, or anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa

from sharding.dedup.candidates import JoinSettings, join
from sharding.dedup.fingerprint import HOP_S, RATE, fingerprint
from sharding.dedup.waveform import Verdict, VerificationSettings, align_and_compare, is_silent
from sharding.schema import FINGERPRINTS, MATCHES
from sharding.sources.protected import parse_protect

MARGIN_S = 0.1  # about an offset that codes tell, to a hop or two
_HELD = 64  # clips of which a worker keeps the sound: at most 64 MB
_COST = 0.006  # seconds of processor time for each second of sound that is compared, roughly
_COST_OF_PAIR = 0.01


class Wave(Protocol):
    """Reads a part of a clip as mono float32 [n], cut at the clip's ends."""

    def __call__(self, clip_id: str, start_s: float, duration_s: float, rate: int = RATE, /) -> np.ndarray: ...


LowWave = Callable[[str, float, float], np.ndarray]  # reads at 8 kHz


@dataclass(frozen=True)
class MatchSettings:
    """How sound is compared."""

    protect: frozenset[tuple[str, str]] = parse_protect()  # first among the clips that represent a common element
    join: JoinSettings = field(default_factory=JoinSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    stretch_s: float = 30.0  # longest stretch that one waveform comparison reads
    stretches: int = 12  # of one overlap that are compared, evenly spread where there are more
    search_s: float = 120.0  # of each clip, where only an id says that two clips belong together
    every_place: bool = False  # of a protected clip in another one has its row, not only the best
    removal_share: float = 0.95  # of a clip that an overlap must cover before the clip may be removed


def compare_waves(a: np.ndarray, b: np.ndarray, settings: MatchSettings | None = None) -> pa.Table:
    """MATCHES rows, named ``a`` and ``b``, of two recordings given as mono float [n] at 8 kHz.

    Where no codes coincide, the best alignment anywhere is judged: never without a ``waveform`` row.
    """
    settings = settings or MatchSettings()
    waves = {"a": a, "b": b}

    def wave(clip_id: str, start_s: float, duration_s: float) -> np.ndarray:
        start = round(start_s * RATE)
        return waves[clip_id][start : start + round(duration_s * RATE)]

    prints = [fingerprint(waves[name], RATE) for name in ("a", "b")]
    table = pa.Table.from_pylist(
        [
            {"clip_id": name, "codes": print_.codes.tobytes(), "flags": print_.flags.tobytes()}
            for name, print_ in zip(("a", "b"), prints, strict=True)
        ],
        FINGERPRINTS,
    )
    apart = replace(settings.join, scratch=None)  # two clips fit into memory; the folder is the whole join's
    candidates = join([table], {"a": 0, "b": 1}, np.zeros(2, bool), np.ones(2, bool), apart)
    compare = Comparison(wave, {name: len(w) / RATE for name, w in waves.items()}, settings)
    offsets = [(int(c["offset"]) * HOP_S, int(c["votes"])) for c in candidates]
    return matches_table(compare.at_offsets("a", "b", offsets) if offsets else compare.anywhere("a", "b"))


@dataclass(frozen=True)
class Comparison:
    """Compares waveforms of two clips."""

    wave: LowWave
    durations: dict[str, float]
    settings: MatchSettings

    def at_offsets(self, a: str, b: str, offsets: list[tuple[float, int]]) -> list[dict]:
        """Rows of the best of the offsets at which codes coincide; b's time 0 stands at ``offset`` of a."""
        best: tuple[Verdict, float, int] | None = None
        tried: list[float] = []
        for offset, votes in offsets:
            if any(abs(offset - other) < MARGIN_S / 2 for other in tried):
                continue  # the search about the other has passed here
            tried.append(offset)
            verdict = self._overlap(a, b, offset)
            if best is None or verdict.strength > best[0].strength:
                best = (verdict, offset, votes)
            if verdict.outcome == "same":
                break
        if best is None:
            return []
        verdict, offset, votes = best
        length = self._end(a, b, offset) - max(0.0, offset)
        candidate = match_row(a, b, "fingerprint", offset, max(0.0, length), float(votes), "undecided")
        return [candidate, self._verdict_row(a, b, verdict)]

    def seconds(self, a: str, b: str, offsets: list[tuple[float, int]]) -> float:
        """About how much processor time ``at_offsets`` takes, or ``anywhere`` where there are no offsets."""
        if offsets:
            longest = self.settings.stretches * self.settings.stretch_s
            sound = sum(min(longest, self._end(a, b, at) - max(0.0, at)) for at, _ in offsets)
        else:
            sound = sum(min(self.settings.search_s, self.durations[clip_id]) for clip_id in (a, b))
        return _COST_OF_PAIR + _COST * max(0.0, sound)

    def silent(self, clip_id: str) -> bool:
        """Whether nothing audible is in the clip, looked at in stretches."""
        starts = np.arange(0.0, self.durations[clip_id], self.settings.stretch_s)
        return all(is_silent(self.wave(clip_id, float(at), self.settings.stretch_s)) for at in starts)

    def anywhere(self, a: str, b: str) -> list[dict]:
        """A row for two clips that only their ids connect: the best offset anywhere."""
        first = self.wave(a, 0.0, self.settings.search_s)
        second = self.wave(b, 0.0, self.settings.search_s)
        verdict = align_and_compare(first, second, -len(second) / RATE, len(first) / RATE, self.settings.verification)
        return [self._verdict_row(a, b, verdict)]

    def _end(self, a: str, b: str, offset: float) -> float:
        return min(self.durations[a], offset + self.durations[b])

    def _overlap(self, a: str, b: str, offset: float) -> Verdict:
        """The verdict on all of the overlap at an offset, in stretches; long ones are sampled evenly."""
        start, end = max(0.0, offset), self._end(a, b, offset)
        count = max(1, math.ceil((end - start) / self.settings.stretch_s))
        step = (end - start) / count
        taken = np.unique(np.linspace(0, count - 1, min(count, self.settings.stretches)).round())
        verdicts = [self._stretch(a, b, offset, start + k * step, step) for k in taken]
        same = [v for v in verdicts if v.outcome == "same"]
        if len(verdicts) == 1 or not same:
            return max(verdicts, key=lambda v: v.strength)
        best = max(same, key=lambda v: v.evidence)
        share = sum(v.overlap_s for v in same) / (step * len(verdicts))
        return best._replace(overlap_s=share * (end - start), start_s=min(v.start_s for v in same))

    def _stretch(self, a: str, b: str, offset: float, start: float, length: float) -> Verdict:
        """The verdict on ``length`` seconds from ``start`` of a, give or take ``MARGIN_S`` of the offset."""
        begin_a, begin_b = max(0.0, start - MARGIN_S), max(0.0, start - offset)
        first = self.wave(a, begin_a, length + 2 * MARGIN_S)
        second = self.wave(b, begin_b, length + MARGIN_S)
        guess = begin_b + offset - begin_a
        verdict = align_and_compare(first, second, guess - MARGIN_S, guess + MARGIN_S, self.settings.verification)
        return verdict._replace(
            lag_s=verdict.lag_s + begin_a - begin_b,
            start_s=verdict.start_s + begin_a,
            overlap_s=min(verdict.overlap_s, length),
        )

    def _verdict_row(self, a: str, b: str, verdict: Verdict) -> dict:
        return match_row(a, b, "waveform", verdict.lag_s, verdict.overlap_s, verdict.correlation, verdict.outcome)


def held_sound(compare: Comparison) -> LowWave:
    """Reads sound for many comparisons: a clip that is short enough is decoded once, not at every offset."""

    @lru_cache(_HELD)
    def whole(clip_id: str) -> np.ndarray:
        return compare.wave(clip_id, 0.0, compare.durations[clip_id])

    def wave(clip_id: str, start_s: float, duration_s: float) -> np.ndarray:
        if compare.durations[clip_id] > compare.settings.stretch_s:
            return compare.wave(clip_id, start_s, duration_s)
        start = round(start_s * RATE)
        return whole(clip_id)[start : start + round(duration_s * RATE)]

    return wave


def match_row(a: str, b: str, method: str, offset: float | None, overlap: float, score: float, outcome: str) -> dict:
    """A row of MATCHES, turned so that the smaller id comes first; b's time 0 stands at ``offset`` seconds of a."""
    if a > b:
        a, b, offset = b, a, None if offset is None else -offset
    return {
        "a": a, "b": b, "method": method, "offset_s": offset, "overlap_s": overlap,
        "score": score, "outcome": outcome, "difference": None,
    }  # fmt: skip


def matches_table(rows: list[dict]) -> pa.Table:
    """Rows as MATCHES, sorted by pair, method and offset."""
    table = pa.Table.from_pylist(rows, MATCHES)
    return table.sort_by([(name, "ascending") for name in ("a", "b", "method", "offset_s")])
