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

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.progress import Progress
from sharding.dedup.candidates import Spread, join
from sharding.dedup.comparing import (
    MARGIN_S,
    Comparison,
    MatchSettings,
    Wave,
    held_sound,
    match_row,
    matches_table,
)
from sharding.dedup.fingerprint import HOP_S
from sharding.dedup.grouping import SOUND_METHODS, relations
from sharding.dedup.residual import explain_pairs, removable_pairs
from sharding.dedup.spans import Span, outside
from sharding.sources.protected import is_protected

_CHUNK = 64  # pairs of one work item
Begin = Callable[[str, int | None, str], Progress]  # what, total, unit
_QUIETLY: Begin = partial(Progress, quiet=True)


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
    compare = Comparison(wave, durations, settings)
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
    removable = removable_pairs(relations(matches_table(rows)), durations, protected, share)
    rows += watch.pairs("match (explaining)", explain, removable)
    return matches_table(rows)


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


def _compare_all(work: list[tuple[str, str, list]], compare: Comparison) -> tuple[int, list[dict]]:
    """How many pairs, and their rows."""
    rows: list[dict] = []
    compare = replace(compare, wave=held_sound(compare))
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


def _every_place(work: list[tuple[str, str, list[float]]], compare: Comparison) -> tuple[int, list[dict]]:
    """How many pairs, and rows of the places where a clip holds a protected one besides those that are known.

    What may be written of the clip is searched until nothing is found there.
    """
    rows: list[dict] = []
    compare = replace(compare, wave=held_sound(compare))
    for clip, other, offsets in work:
        length, places, clean = compare.durations[other], list(offsets), set[Span]()
        while todo := set(outside(compare.durations[clip], [(at, at + length) for at in places])) - clean:
            stretch = min(todo)
            found = compare.searched(clip, stretch, other)
            fresh = [row for row in found if all(abs(row["offset_s"] - at) >= MARGIN_S for at in places)]
            if not fresh:
                clean.add(stretch)
            places += [row["offset_s"] for row in fresh]
            rows += [
                match_row(clip, other, "waveform", row["offset_s"], row["overlap_s"], row["score"], "same")
                for row in fresh
            ]
    return len(work), rows


def _protected(catalogue: pa.Table, settings: MatchSettings) -> set[str]:
    columns = (catalogue[name].to_pylist() for name in ("clip_id", "dataset", "split"))
    return {
        clip_id
        for clip_id, dataset, split in zip(*columns, strict=True)
        if is_protected(dataset, split, settings.protect)
    }


def _equal_rows(facts: pa.Table, compare: Comparison, protected: Collection[str], old: Collection[str]) -> list[dict]:
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
                match_row(a, b, method, 0.0, compare.durations[a], 1.0, "same")
                for i, a in enumerate(representatives)
                for b in members[i + 1 :]
                if not (a in old and b in old)
            ]
    return rows
