"""Finds candidate pairs of clips: a sort-merge join of fingerprint codes, with votes by pair and offset.

Sorting brings equal codes together.  So the cost grows with the number of codes and of coincidences, and not with the
square of the number of clips.

1. ``clip_postings`` turns a fingerprint into postings (code, context, clip, hop).  An informative frame has one posting
   for its code, and one for its code with the weakest bit flipped.  A hash of the code decides the partition of a
   posting.  In large collections only one class of hashes is posted: both copies of a sound post the same codes.
2. ``coincidences`` sorts the postings of one partition and pairs those of equal code.  A pair counts only where the
   codes 0.2 s before and after agree too (``context``); one in fifty of the pairs by chance passes this test.
   Partitions are independent, so that any runner can spread them.
3. ``vote`` counts the coincidences of each pair of clips at each offset.

Where postings or coincidences exceed ``memory_bytes``, they are written to files in ``scratch``, and workers read them
from there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sharding.common.storage import Storage
from sharding.dedup.fingerprint import INFORMATIVE, WEAKEST_SHIFT

POSTING = np.dtype([("code", "<u4"), ("context", "<u4"), ("position", "<u8")])  # position: clip << 24 | hop
COINCIDENCE = np.dtype([("pair", "<u8"), ("offset", "<i4"), ("hop", "<i4")])  # pair: a << 32 | b
CANDIDATE = np.dtype([("a", "<u4"), ("b", "<u4"), ("offset", "<i4"), ("votes", "<u4")])

_HOP_BITS = 24  # enough for a clip of 58 hours
_HOP_MASK = np.uint64((1 << _HOP_BITS) - 1)
_CONTEXT_HOPS = 16  # from a code to the two codes that form its context
_MIX = np.uint32(0x9E3779B1)  # Knuth's multiplicative hash
# A context holds 16 bits of the code before and 16 of the code after.  Two contexts agree if at most so many bits
# differ in one half, or in both halves together.
_HALF_AGREES, _BOTH_AGREE = 3, 9

Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class JoinSettings:
    """Bounds of the join.

    A code that more than ``common`` clips hold belongs to a common element, such as a jingle or a library effect.  Its
    clips are not all paired with each other, but only with ``representatives`` of them, protected clips first.
    """

    common: int = 48
    representatives: int = 8
    repeats: int = 4  # postings of one code that count in one clip, so that a loop has no more votes than this
    votes: int = 2  # coincidences at one offset that make a candidate
    offsets: int = 6  # best offsets of a pair that are kept
    partners: int = 64  # a pair must be among so many best pairs of one of its clips; protected partners come first
    dense_hops: int = 600_000_000  # collections with more codes, about 2,000 hours, are sampled
    partitions: int = 64
    memory_bytes: int = 1 << 30  # of postings, or of coincidences, that are held before they are written to files
    scratch: str | None = None  # folder for these files that every worker sees, local or s3://; None: a local one


class Spilled(NamedTuple):
    """A partition whose rows are in files.  It is small, and workers on other machines can read it."""

    scratch: Storage
    folder: str

    def read(self, dtype: np.dtype) -> np.ndarray:
        """All rows of the partition, in the order in which they were added."""
        sizes = self.scratch.sizes(self.folder)
        rows = np.empty(sum(sizes.values()) // dtype.itemsize, dtype)
        at = 0
        for name in sorted(sizes):
            some = np.frombuffer(self.scratch.read(name), dtype)
            rows[at : at + len(some)] = some
            at += len(some)
        return rows


class Spill:
    """Arrays of one dtype by partition: in memory up to ``limit`` bytes, then in files in ``scratch``."""

    def __init__(self, dtype: np.dtype, partitions: int, limit: int, scratch: Storage) -> None:
        self._dtype, self._limit, self._scratch = dtype, limit, scratch
        self._held: list[list[np.ndarray]] = [[] for _ in range(partitions)]
        self._bytes = 0
        self._flushes = 0
        self._spilled: set[int] = set()  # partitions that have files

    def add(self, rows: np.ndarray, partition: np.ndarray) -> None:
        """Append each row to its partition, in order."""
        order = np.argsort(partition, kind="stable")
        ends = np.cumsum(np.bincount(partition, minlength=len(self._held)))
        sorted_rows = rows[order]
        for held, start, end in zip(self._held, np.append(0, ends[:-1]), ends, strict=True):
            if end > start:
                held.append(sorted_rows[start:end])
        self._bytes += rows.nbytes
        if self._bytes > self._limit:
            self._flush()

    def parts(self) -> Iterator[np.ndarray | Spilled]:
        """Each partition that has rows: the array, or where its files are."""
        if self._spilled:
            self._flush()
        for number, held in enumerate(self._held):
            if number in self._spilled:
                yield Spilled(self._scratch, f"{number:05d}")
            elif held:
                yield np.concatenate(held)

    def _flush(self) -> None:
        for number, held in enumerate(self._held):
            if held:
                with self._scratch.writer(f"{number:05d}/{self._flushes:06d}.bin") as file:
                    for rows in held:
                        file.write(rows.tobytes())
                held.clear()
                self._spilled.add(number)
        self._bytes = 0
        self._flushes += 1


@contextmanager
def _scratch(url: str | None) -> Iterator[Storage]:
    """A folder that is empty at first, also after a killed build, and removed at the end."""
    if url is None:
        with tempfile.TemporaryDirectory(prefix="earshot-join-") as folder:
            yield Storage(folder)
        return
    storage = Storage(url).child("earshot-join")
    storage.remove_tree("")
    try:
        yield storage
    finally:
        storage.remove_tree("")


def join(
    fingerprints: Iterable[pa.Table],
    order: dict[str, int],
    protected: np.ndarray,
    fresh: np.ndarray,
    settings: JoinSettings,
    spread: Spread = map,
    hops: int = 0,
) -> np.ndarray:
    """CANDIDATE rows of FINGERPRINTS, sorted by pair, the best offset of a pair first.

    Args:
        fingerprints: tables, read once.
        order: the number of each clip that takes part.
        protected: bool [clips]: clips that are preferred as representatives of common elements.
        fresh: bool [clips]: only pairs with at least one fresh clip are found.
        settings: bounds of the join.
        spread: ``spread(function, items)`` gives the results in any order: ``map``, or a runner's ``map``.
        hops: about how many codes there are in all; decides whether they are sampled.
    """
    sample = 1
    while hops > sample * settings.dense_hops:
        sample *= 2
    with _scratch(settings.scratch) as scratch:
        postings = Spill(POSTING, settings.partitions, settings.memory_bytes, scratch.child("postings"))
        for table in fingerprints:
            for rows in _postings(table, order, sample):
                postings.add(rows, ((rows["code"] * _MIX) >> np.uint32(8)) % np.uint32(settings.partitions))
        found = Spill(COINCIDENCE, settings.partitions, settings.memory_bytes, scratch.child("coincidences"))
        work = partial(coincidences, protected=protected, fresh=fresh, settings=settings)
        for rows in spread(work, postings.parts()):
            mixed = (rows["pair"] * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
            found.add(rows, (mixed % np.uint64(settings.partitions)).astype(np.int64))
        voted = list(spread(partial(vote, settings=settings), found.parts()))
    return _bounded(np.concatenate([np.empty(0, CANDIDATE), *voted]), protected, settings)


def _bounded(found: np.ndarray, protected: np.ndarray, settings: JoinSettings) -> np.ndarray:
    """Candidates whose pair is among the best ``partners`` of one of its clips: at most so many pairs for each clip."""
    found = found[np.lexsort((found["offset"], -found["votes"].astype(np.int64), found["b"], found["a"]))]
    first = _run_starts(found["a"], found["b"])
    best = found[first]
    mine, other = np.concatenate([best["a"], best["b"]]), np.concatenate([best["b"], best["a"]])
    votes = np.tile(best["votes"].astype(np.int64), 2)
    order = np.lexsort((other, -votes, ~protected[other], mine))
    chosen = np.zeros(len(mine), bool)
    chosen[order] = _index_in_run(_run_starts(mine[order])) < settings.partners
    keep = chosen[: len(best)] | chosen[len(best) :]
    return found[keep[np.cumsum(first) - 1]]


def _postings(table: pa.Table, order: dict[str, int], sample: int) -> Iterator[np.ndarray]:
    """Postings of the clips of one table, in chunks."""
    held: list[np.ndarray] = []
    size = 0
    for batch in table.select(["clip_id", "codes", "flags"]).to_batches(max_chunksize=64):
        columns = (batch.column(name) for name in ("clip_id", "codes", "flags"))
        for clip_id, codes, flags in zip(*columns, strict=True):
            number = order.get(clip_id.as_py())
            if number is None:
                continue
            held.append(
                clip_postings(
                    np.frombuffer(codes.as_buffer(), "<u4"),
                    np.frombuffer(flags.as_buffer(), np.uint8),
                    number,
                    sample,
                )
            )
            size += len(held[-1])
            if size > 2_000_000:
                yield np.concatenate(held)
                held, size = [], 0
    if held:
        yield np.concatenate(held)


def clip_postings(codes: np.ndarray, flags: np.ndarray, clip: int, sample: int) -> np.ndarray:
    """Postings of one clip in the order of its hops.

    A code that stays the same over several hops is posted once.

    Args:
        codes: uint32 [n].
        flags: uint8 [n]; see ``Fingerprint``.
        clip: its number.
        sample: only the codes of one hash class in so many are posted; a power of two.
    """
    count = len(codes)
    hops = np.flatnonzero(flags & INFORMATIVE)
    if not len(hops):
        return np.empty(0, POSTING)
    folded = (codes ^ (codes >> np.uint32(16))) & np.uint32(0xFFFF)
    before, after = folded[np.maximum(hops - _CONTEXT_HOPS, 0)], folded[np.minimum(hops + _CONTEXT_HOPS, count - 1)]
    context = before | after << np.uint32(16)
    flipped = codes ^ (np.uint32(1) << (flags >> WEAKEST_SHIFT).astype(np.uint32))
    posted = np.stack([codes[hops], flipped[hops]], axis=1)
    new = np.ones(posted.shape, bool)
    new[1:] = (posted[1:] != posted[:-1]) | (np.diff(hops) > 1)[:, None]
    if sample > 1:
        new &= ((posted * _MIX) >> np.uint32(24)) % np.uint32(sample) == 0
    hop, column = np.nonzero(new)
    rows = np.empty(len(hop), POSTING)
    rows["code"], rows["context"] = posted[hop, column], context[hop]
    rows["position"] = np.uint64(clip << _HOP_BITS) | hops[hop].astype(np.uint64)
    return rows


def coincidences(
    part: np.ndarray | Spilled, protected: np.ndarray, fresh: np.ndarray, settings: JoinSettings
) -> np.ndarray:
    """COINCIDENCE rows of one partition of postings."""
    rows = part.read(POSTING) if isinstance(part, Spilled) else part
    key = rows["code"].astype(np.uint64) << np.uint64(32) | np.arange(len(rows), dtype=np.uint64)
    rows = rows[np.sort(key) & np.uint64(0xFFFFFFFF)]  # sorted by code; the rows of a clip stay together and in order
    clips = rows["position"] >> np.uint64(_HOP_BITS)
    rows = rows[_index_in_run(_run_starts(rows["code"], clips)) < settings.repeats]
    clips = (rows["position"] >> np.uint64(_HOP_BITS)).astype(np.int64)
    first = _run_starts(rows["code"])
    edges = np.append(np.flatnonzero(first), len(rows))
    run = np.cumsum(first) - 1
    holders = np.bincount(run, weights=_run_starts(rows["code"], clips), minlength=len(edges) - 1)
    wanted = np.bincount(run, weights=fresh[clips], minlength=len(edges) - 1) > 0
    found = []
    for number in np.flatnonzero(wanted & (holders > settings.common)):
        inside = slice(edges[number], edges[number + 1])
        found.append(_with_representatives(rows[inside], clips[inside], protected, fresh, settings))
    last = np.where(wanted & (holders > 1) & (holders <= settings.common), edges[1:], 0)[run]
    here = np.arange(len(rows))
    step = 1
    while len(here := here[here + step < last[here]]):
        there = here + step
        useful = (clips[here] != clips[there]) & (fresh[clips[here]] | fresh[clips[there]])
        found.append(_agreeing(rows[here[useful]], rows[there[useful]]))
        step += 1
    return np.concatenate(found) if found else np.empty(0, COINCIDENCE)


def _run_starts(*columns: np.ndarray) -> np.ndarray:
    """True at each row that differs from the one before it in any of the columns."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def _index_in_run(starts: np.ndarray) -> np.ndarray:
    """The number of each row in its run, from 0."""
    here = np.arange(len(starts))
    return here - np.maximum.accumulate(np.where(starts, here, 0))


def _with_representatives(
    rows: np.ndarray, clips: np.ndarray, protected: np.ndarray, fresh: np.ndarray, settings: JoinSettings
) -> np.ndarray:
    """Coincidences of a common code: of each clip with the representatives, not of all clips with all."""
    members = np.unique(clips)
    chosen = members[np.lexsort((members, ~protected[members]))][: settings.representatives]
    is_chosen = np.isin(clips, chosen)
    found = []
    for i in np.flatnonzero(is_chosen):
        j = np.flatnonzero((clips != clips[i]) & (~is_chosen | (clips > clips[i])) & (fresh[clips] | fresh[clips[i]]))
        found.append(_agreeing(rows[np.full(len(j), i)], rows[j]))
    return np.concatenate(found)


def _agreeing(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """COINCIDENCE rows of the paired postings whose contexts agree."""
    differing = x["context"] ^ y["context"]
    before = np.bitwise_count(differing & np.uint32(0xFFFF))
    after = np.bitwise_count(differing >> np.uint32(16))
    agree = (before <= _HALF_AGREES) | (after <= _HALF_AGREES) | (before + after <= _BOTH_AGREE)
    x, y = x["position"][agree], y["position"][agree]
    a, b = np.minimum(x, y), np.maximum(x, y)
    found = np.empty(len(a), COINCIDENCE)
    shift = np.uint64(_HOP_BITS)
    found["pair"] = (a >> shift) << np.uint64(32) | (b >> shift)
    found["hop"] = a & _HOP_MASK
    found["offset"] = (a & _HOP_MASK).astype(np.int64) - (b & _HOP_MASK).astype(np.int64)
    return found


def vote(part: np.ndarray | Spilled, settings: JoinSettings) -> np.ndarray:
    """CANDIDATE rows of one partition of coincidences.

    The votes for an offset are the distinct hops of the first clip that coincide there or one hop beside.
    """
    rows = part.read(COINCIDENCE) if isinstance(part, Spilled) else part
    rows = rows[np.lexsort((rows["hop"], rows["offset"], rows["pair"]))]
    rows = rows[_run_starts(rows["pair"], rows["offset"], rows["hop"])]
    starts = np.flatnonzero(_run_starts(rows["pair"], rows["offset"]))
    if not len(starts):
        return np.empty(0, CANDIDATE)
    counts = np.diff(np.append(starts, len(rows)))
    pair, offset = rows["pair"][starts], rows["offset"][starts]
    adjacent = (pair[1:] == pair[:-1]) & (np.diff(offset) == 1)
    votes = counts.copy()
    votes[:-1] += counts[1:] * adjacent
    votes[1:] += counts[:-1] * adjacent
    enough = votes >= settings.votes
    pair, offset, votes = pair[enough], offset[enough], votes[enough]
    best = np.lexsort((offset, -votes, pair))
    best = best[_index_in_run(_run_starts(pair[best])) < settings.offsets]
    found = np.empty(len(best), CANDIDATE)
    found["a"], found["b"] = pair[best] >> np.uint64(32), pair[best] & np.uint64(0xFFFFFFFF)
    found["offset"], found["votes"] = offset[best], votes[best]
    return found
