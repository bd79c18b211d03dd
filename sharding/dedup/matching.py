"""From facts and fingerprints to evidence: which clips hold the same sound, where, and how surely.

A cascade; every step leaves rows of the MATCHES table:

``identity``      what ids and intervals say (given; passed through)
``source_bytes``  the files are equal byte for byte
``pcm``           the canonical samples are equal
``fingerprint``   codes coincide at this offset: a candidate, never more than ``undecided``
``waveform``      the verdict of ``sharding.dedup.waveform`` at its offset
``residual``      whether each clip explains all that the other one holds (``sharding.dedup.residual``): ``same`` or
                  ``different``; only of pairs of which one clip may be removed

One row per (pair, method, offset); of a pair's offsets, the best, or all (``MatchSettings.every_place``).  A
pair's outcome is that of its strongest row of ``source_bytes``, ``pcm`` or ``waveform``: ``same`` where any says
same, else ``undecided`` where any says so, else ``different``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.progress import Progress
from sharding.dedup.candidates import JoinSettings, Spread, join
from sharding.dedup.fingerprint import HOP_S, RATE, fingerprint
from sharding.dedup.grouping import SOUND_METHODS, relations
from sharding.dedup.residual import explain_pairs, removable_pairs
from sharding.dedup.spans import Span, outside
from sharding.dedup.waveform import Verdict, VerificationSettings, align_and_compare, is_silent
from sharding.schema import FINGERPRINTS, MATCHES
from sharding.sources.protected import is_protected, parse_protect

_CHUNK = 64  # pairs of one work item
_MARGIN_S = 0.1  # about an offset that codes tell, to a hop or two
_HELD = 64  # clips of which a worker keeps the sound: at most 64 MB
_SEARCH_S, _SEARCH_OVERLAP_S = 300.0, 10.0  # of a clip that are searched at once for more places of a leak
Begin = Callable[[str, int | None, str], Progress]  # what, total, unit
_QUIETLY: Begin = partial(Progress, quiet=True)


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


def find_matches(
    catalogue: pa.Table,
    facts: pa.Table,
    fingerprints: pa.Table | Iterable[pa.Table],
    wave: Wave,
    identity: pa.Table,
    settings: MatchSettings | None = None,
    spread: Spread = map,
    known: pa.Table | None = None,
    old: Collection[str] = (),
    begin: Begin = _QUIETLY,
) -> pa.Table:
    """All evidence about pairs of clips: MATCHES, sorted; independent of the order of rows in its inputs.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS of the clips that were probed.
        fingerprints: FINGERPRINTS, whole or in parts.
        wave: reads sound, at 8 kHz and at the rate of ``sharding.dedup.explanation``.
        identity: MATCHES rows from ids, passed through.
        settings: see MatchSettings.
        spread: ``spread(function, items)`` gives results in any order: ``map``, or a runner's ``map``.
        known: MATCHES of an earlier run over the clips of ``old``; taken over, so that only pairs with a
            clip that is not in ``old`` are sought.
        old: clip_ids that the earlier run compared with each other.
        begin: ``begin(what, total, unit)`` begins to show progress.
    """
    settings = settings or MatchSettings()
    watch = _Watch(spread, begin)
    parts = [fingerprints] if isinstance(fingerprints, pa.Table) else fingerprints
    good = facts.filter(pc.is_null(facts["error"])) if facts.num_rows else facts
    durations = dict(zip(good["clip_id"].to_pylist(), good["duration_s"].to_pylist(), strict=True))
    ids = sorted(durations)
    order = {clip_id: number for number, clip_id in enumerate(ids)}
    fresh = np.array([clip_id not in old for clip_id in ids], bool)
    told = {(row["a"], row["b"]) for row in identity.select(["a", "b"]).to_pylist()}
    rows = identity.to_pylist()
    if known is not None:
        rows += [row for row in known.to_pylist() if row["method"] != "identity" and _both_old(row, old)]
    compare = _Comparison(wave, durations, settings)
    protected = _protected(catalogue, settings)
    rows += _equal_rows(good, compare, protected, old)
    settled = {(row["a"], row["b"]) for row in rows if row["method"] != "identity"}
    hops = int(sum(durations.values()) / HOP_S)
    preferred = np.array([clip_id in protected for clip_id in ids], bool)
    tables = watch.tables("match (posting)", parts, len(ids))
    pairing = partial(watch.parts, iter(("match (pairing)", "match (voting)")), settings.join.partitions)
    candidates = join(tables, order, preferred, fresh, settings.join, pairing, hops)
    work = [(a, b, offsets) for a, b, offsets in _by_pair(candidates, ids) if (a, b) not in settled]
    heard = settled | {(a, b) for a, b, _ in work}
    work += [(a, b, []) for a, b in sorted(told - heard) if a in durations and b in durations]
    rows += watch.pairs("match (comparing)", partial(_compare_all, compare=compare), work)
    if settings.every_place:
        leaks = _leaks(rows, protected, old)
        rows += watch.pairs("match (every place)", partial(_every_place, compare=compare), leaks)
    share, stretch_s = settings.removal_share, settings.stretch_s
    explain = partial(explain_pairs, wave=wave, durations=durations, share=share, stretch_s=stretch_s)
    removable = removable_pairs(relations(_table(rows)), durations, protected, share)
    rows += watch.pairs("match (explaining)", explain, removable)
    return _table(rows)


class _Watch:
    """Work spread over a runner, and shown while it goes on."""

    def __init__(self, spread: Spread, begin: Begin) -> None:
        self._spread, self._begin = spread, begin

    def tables(self, what: str, tables: Iterable[pa.Table], clips: int) -> Iterator[pa.Table]:
        """The tables; each is through when the next is asked for."""
        progress = self._begin(what, clips, "clips")
        for table in tables:
            yield table
            progress.add(table.num_rows)
        progress.finish()

    def parts(
        self, names: Iterator[str], most: int, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Results of ``function`` over at most ``most`` items; empty partitions are none."""
        progress = self._begin(next(names), most, "parts")
        for result in self._spread(function, items):
            yield result
            progress.add(1)
        progress.total = progress.done
        progress.finish()

    def pairs(self, what: str, function: Callable[[Any], tuple[int, list[dict]]], work: list) -> list[dict]:
        """The rows that ``function`` finds in ``work``, chunk after chunk."""
        rows: list[dict] = []
        progress = self._begin(what, len(work), "pairs")
        chunks = [work[i : i + _CHUNK] for i in range(0, len(work), _CHUNK)]
        for pairs, found in self._spread(function, chunks):
            rows += found
            progress.add(pairs)
        progress.finish()
        return rows


def _both_old(row: dict, old: Collection[str]) -> bool:
    return row["a"] in old and row["b"] in old


def _by_pair(candidates: np.ndarray, ids: list[str]) -> Iterator[tuple[str, str, list[tuple[float, int]]]]:
    for (a, b), group in groupby(candidates.tolist(), key=lambda c: c[:2]):
        yield ids[a], ids[b], [(offset * HOP_S, votes) for _, _, offset, votes in group]


def _compare_all(work: list[tuple[str, str, list]], compare: _Comparison) -> tuple[int, list[dict]]:
    """How many pairs, and their rows."""
    rows: list[dict] = []
    compare = replace(compare, wave=_held(compare))
    for a, b, offsets in work:
        rows += compare.at_offsets(a, b, offsets) if offsets else compare.anywhere(a, b)
    return len(work), rows


def _leaks(rows: list[dict], protected: Collection[str], old: Collection[str]) -> list[tuple[str, str, list[float]]]:
    """(clip, protected clip, where it begins) of pairs whose sound is the same, sorted; no pair of two old clips."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if (
            row["method"] in SOUND_METHODS
            and row["outcome"] == "same"
            and (row["a"] in protected) != (row["b"] in protected)
        ):
            if row["b"] in protected:
                found[row["a"], row["b"]].append(row["offset_s"])
            else:
                found[row["b"], row["a"]].append(-row["offset_s"])
    return [(*pair, offsets) for pair, offsets in sorted(found.items()) if not all(clip in old for clip in pair)]


def _every_place(work: list[tuple[str, str, list[float]]], compare: _Comparison) -> tuple[int, list[dict]]:
    """How many pairs, and rows of the places where a clip holds a protected one besides those that are known.

    What may be written of the clip is searched until nothing is found there.
    """
    rows: list[dict] = []
    compare = replace(compare, wave=_held(compare))
    for clip, other, offsets in work:
        length, places, clean = compare.durations[other], list(offsets), set[Span]()
        while todo := set(outside(compare.durations[clip], [(at, at + length) for at in places])) - clean:
            stretch = min(todo)
            found = compare.searched(clip, stretch, other)
            fresh = [row for row in found if all(abs(row["offset_s"] - at) >= _MARGIN_S for at in places)]
            if not fresh:
                clean.add(stretch)
            places += [row["offset_s"] for row in fresh]
            rows += [
                _row(clip, other, "waveform", row["offset_s"], row["overlap_s"], row["score"], "same") for row in fresh
            ]
    return len(work), rows


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
    compare = _Comparison(wave, {name: len(w) / RATE for name, w in waves.items()}, settings)
    offsets = [(int(c["offset"]) * HOP_S, int(c["votes"])) for c in candidates]
    return _table(compare.at_offsets("a", "b", offsets) if offsets else compare.anywhere("a", "b"))


def _protected(catalogue: pa.Table, settings: MatchSettings) -> set[str]:
    columns = (catalogue[name].to_pylist() for name in ("clip_id", "dataset", "split"))
    return {
        clip_id
        for clip_id, dataset, split in zip(*columns, strict=True)
        if is_protected(dataset, split, settings.protect)
    }


def _equal_rows(facts: pa.Table, compare: _Comparison, protected: Collection[str], old: Collection[str]) -> list[dict]:
    """Rows of clips whose bytes or samples are equal; silent clips equal nothing."""
    rows: list[dict] = []
    silent: dict[str, bool] = {}
    bounds = compare.settings.join
    for method, column in (("source_bytes", "source_sha256"), ("pcm", "pcm_sha256")):
        holders: dict[str, list[str]] = defaultdict(list)
        for clip_id, digest in zip(facts["clip_id"].to_pylist(), facts[column].to_pylist(), strict=True):
            if digest:
                holders[digest].append(clip_id)
        for members in holders.values():
            members.sort(key=lambda clip_id: (clip_id not in protected, clip_id))
            first = members[0]
            if len(members) > 1 and first not in silent:
                silent[first] = compare.silent(first)
            if len(members) < 2 or silent[first]:
                continue
            representatives = members if len(members) <= bounds.common else members[: bounds.representatives]
            rows += [
                _row(a, b, method, 0.0, compare.durations[a], 1.0, "same")
                for i, a in enumerate(representatives)
                for b in members[i + 1 :]
                if not (a in old and b in old)
            ]
    return rows


def _row(a: str, b: str, method: str, offset: float | None, overlap: float, score: float, outcome: str) -> dict:
    if a > b:
        a, b, offset = b, a, None if offset is None else -offset
    return {
        "a": a, "b": b, "method": method, "offset_s": offset, "overlap_s": overlap,
        "score": score, "outcome": outcome, "difference": None,
    }  # fmt: skip


@dataclass(frozen=True)
class _Comparison:
    """Compares waveforms of two clips."""

    wave: LowWave
    durations: dict[str, float]
    settings: MatchSettings

    def at_offsets(self, a: str, b: str, offsets: list[tuple[float, int]]) -> list[dict]:
        """Rows of the best of the offsets at which codes coincide; b's time 0 stands at ``offset`` of a."""
        best: tuple[Verdict, float, int] | None = None
        tried: list[float] = []
        for offset, votes in offsets:
            if any(abs(offset - other) < _MARGIN_S / 2 for other in tried):
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
        candidate = _row(a, b, "fingerprint", offset, max(0.0, length), float(votes), "undecided")
        return [candidate, self._verdict_row(a, b, verdict)]

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

    def searched(self, clip: str, stretch: Span, other: str) -> list[dict]:
        """Rows, seen from the clip, of places in a stretch of it that hold sound of the other one; not of all."""
        found = []
        for start, first in self._pieces(clip, *stretch):
            for begin, second in self._pieces(other, 0.0, self.durations[other]):
                rows = compare_waves(first, second, self.settings).to_pylist()
                found += [
                    row | {"offset_s": start + row["offset_s"] - begin} for row in rows if row["outcome"] == "same"
                ]
        return found

    def _pieces(self, clip: str, start: float, end: float) -> Iterator[tuple[float, np.ndarray]]:
        """(begin, sound) of pieces of a stretch that overlap, so that a place between two lies in one of them."""
        while True:
            yield start, self.wave(clip, start, min(_SEARCH_S, end - start))
            if end - start <= _SEARCH_S:
                return
            start += _SEARCH_S - _SEARCH_OVERLAP_S

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
        """The verdict on ``length`` seconds from ``start`` of a, give or take ``_MARGIN_S`` of the offset."""
        begin_a, begin_b = max(0.0, start - _MARGIN_S), max(0.0, start - offset)
        first = self.wave(a, begin_a, length + 2 * _MARGIN_S)
        second = self.wave(b, begin_b, length + _MARGIN_S)
        guess = begin_b + offset - begin_a
        verdict = align_and_compare(first, second, guess - _MARGIN_S, guess + _MARGIN_S, self.settings.verification)
        return verdict._replace(
            lag_s=verdict.lag_s + begin_a - begin_b,
            start_s=verdict.start_s + begin_a,
            overlap_s=min(verdict.overlap_s, length),
        )

    def _verdict_row(self, a: str, b: str, verdict: Verdict) -> dict:
        return _row(a, b, "waveform", verdict.lag_s, verdict.overlap_s, verdict.correlation, verdict.outcome)


def _held(compare: _Comparison) -> LowWave:
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


def _table(rows: list[dict]) -> pa.Table:
    table = pa.Table.from_pylist(rows, MATCHES)
    return table.sort_by([(name, "ascending") for name in ("a", "b", "method", "offset_s")])
