"""Matches by published identifiers: clips that are parts of the same original recording."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from sharding.rows import MatchRow, to_table
from sharding.schema import MATCHES
from sharding.sources.identities import original_of

MINIMUM_OVERLAP_S = 1.0  # a shorter overlap is ``undecided``, unless it is half of the shorter clip
MANY = 64  # clips of one source; of more, only those that may overlap are paired


@dataclass(frozen=True, slots=True)
class _Part:
    clip_id: str
    interval: tuple[float, float] | None  # seconds of the source; the end may be infinite; None: unknown


def identity_matches(catalogue: pa.Table) -> pa.Table:
    """MATCHES rows, method ``identity``, for every two clips of one source, sorted by (a, b).

    If a source has more than ``MANY`` clips, pairs whose intervals do not overlap have no row.  They are kin through
    their source anyway, and a thousand excerpts of one recording would have half a million such pairs.

    ``offset_s`` and ``overlap_s`` are null where an interval is unknown.  ``score`` is the share of the shorter
    interval that the overlap covers.
    """
    sources: dict[str, list[_Part]] = defaultdict(list)
    rows = catalogue.select(["clip_id", "identity", "interval"]).filter(pc.is_valid(catalogue["identity"]))
    starts, ends = (pc.struct_field(rows["interval"], name).to_pylist() for name in ("start", "end"))
    ids, identities = rows["clip_id"].to_pylist(), rows["identity"].to_pylist()
    for clip_id, identity, start, end in zip(ids, identities, starts, ends, strict=True):
        empty = start is None or (end is not None and end <= start)  # an interval without length proves nothing
        interval = None if empty else (start, math.inf if end is None else end)
        sources[original_of(identity)].append(_Part(clip_id, interval))
    found = [
        _match(*sorted(pair, key=lambda part: part.clip_id)) for parts in sources.values() for pair in _pairs(parts)
    ]
    found.sort()
    return to_table(found, MATCHES)


def _pairs(parts: list[_Part]) -> Iterator[tuple[_Part, _Part]]:
    """Every two parts of a source; of more than ``MANY`` parts, only pairs that may overlap."""
    if len(parts) <= MANY:
        yield from combinations(parts, 2)
        return
    unknown = [part for part in parts if part.interval is None]
    yield from combinations(unknown, 2)
    begun: list[tuple[float, _Part]] = []  # (end, part) of parts that may overlap with the next
    known = [(part.interval, part) for part in parts if part.interval is not None]
    for (start, end), part in sorted(known, key=lambda item: (*item[0], item[1].clip_id)):
        begun = [(last, other) for last, other in begun if last > start]
        yield from ((other, part) for _, other in begun)
        yield from ((other, part) for other in unknown)
        begun.append((end, part))


def _match(a: _Part, b: _Part) -> MatchRow:
    if a.interval is None or b.interval is None:
        return MatchRow(a.clip_id, b.clip_id, "identity", None, None, None, "undecided", None)
    overlap = max(0.0, min(a.interval[1], b.interval[1]) - max(a.interval[0], b.interval[0]))
    shorter = min(a.interval[1] - a.interval[0], b.interval[1] - b.interval[0])
    if overlap <= 0:
        outcome = "different"
    else:
        outcome = "same" if overlap >= min(MINIMUM_OVERLAP_S, shorter / 2) else "undecided"
    offset = b.interval[0] - a.interval[0]
    if math.isinf(overlap):  # both reach to the end of the source
        return MatchRow(a.clip_id, b.clip_id, "identity", offset, None, None, outcome, None)
    score = overlap / shorter if 0 < shorter < math.inf else None
    return MatchRow(a.clip_id, b.clip_id, "identity", offset, overlap, score, outcome, None)


def shared_sources(catalogue: pa.Table) -> dict[str, list[str]]:
    """Sources that have several clips in one dataset, with the sorted clip_ids of these clips."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    columns = catalogue.select(["clip_id", "dataset", "identity"]).to_pydict()
    for clip_id, dataset, identity in zip(*columns.values(), strict=True):
        if identity:
            found[dataset, original_of(identity)].append(clip_id)
    return {source: sorted(clips) for (_, source), clips in sorted(found.items()) if len(clips) > 1}
