"""Pairs of clips that share sound, with players that start where the two coincide."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow.compute as pc

from sharding.dedup.grouping import Relation
from sharding.dedup.residual import difference_in_words
from sharding.reports.contents import BuildContents, ClipView
from sharding.reports.stats import ranked_counts
from sharding.rows import rows

SHOWN_PAIRS = 8  # of each fate
EVIDENCE = {
    "identity": "the same source by id",
    "source_bytes": "identical files",
    "pcm": "identical samples",
    "fingerprint": "similar fingerprints",
    "waveform": "matching waveforms",
    "residual": "nothing heard in one alone",
    "listed": "named by an exclusion list",
}


@dataclass(frozen=True)
class PairView:
    """Two clips side by side: ``label`` is the fate of the first, ``evidence`` says in words what they share."""

    label: str
    evidence: str
    a: ClipView
    b: ClipView


def dropped_pairs(build: BuildContents, fate: str) -> list[PairView]:
    """Some clips of a fate, each with the clip because of which it was dropped, over all kinds of evidence."""
    by_evidence: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for dropped in _dropped(build, fate):
        if dropped.other:
            methods = build.methods.get(_pair_of(dropped.clip_id, dropped.other), set())
            by_evidence[tuple(sorted(methods))].append((dropped.clip_id, dropped.other))
    in_turn = [
        pairs[turn] for turn in range(SHOWN_PAIRS) for _, pairs in sorted(by_evidence.items()) if turn < len(pairs)
    ]
    return [_view(build, a, b, fate) for a, b in in_turn[:SHOWN_PAIRS]]


def undecided_pairs(build: BuildContents) -> tuple[int, list[PairView]]:
    """How many pairs the sound leaves undecided, and some of them."""
    undecided = [one for one in build.relations.values() if one.by_waveform == "undecided"]
    return len(undecided), [_view(build, one.a, one.b, "undecided") for one in undecided[:SHOWN_PAIRS]]


def unexplained_pairs(build: BuildContents) -> tuple[int, list[PairView]]:
    """How many pairs were both written because one holds sound that the other lacks, and some of them."""
    unexplained = [one for one in build.relations.values() if one.difference]
    return len(unexplained), [_view(build, one.a, one.b, "written") for one in unexplained[:SHOWN_PAIRS]]


def leak_evidence(build: BuildContents) -> list[tuple[str, int]]:
    """How many withheld clips each kind of evidence ties to a protected clip, or to an exclusion list."""
    found: Counter[str] = Counter()
    for dropped in _dropped(build, "withheld"):
        pair = _pair_of(dropped.clip_id, dropped.other or "")
        found.update(build.methods.get(pair, {dropped.reason}))
    return ranked_counts({EVIDENCE.get(name, name): count for name, count in found.items()})


class _Dropped(NamedTuple):
    clip_id: str
    other: str | None
    reason: str


def _dropped(build: BuildContents, fate: str) -> Iterable[_Dropped]:
    return rows(build.fates.filter(pc.equal(build.fates["fate"], fate)), _Dropped)


def _pair_of(a: str, b: str) -> tuple[str, str]:
    """A pair as the tables have it: the smaller clip_id first."""
    return (a, b) if a < b else (b, a)


def _view(build: BuildContents, a: str, b: str, label: str) -> PairView:
    pair = _pair_of(a, b)
    relation = build.relations.get(pair, Relation(*pair))
    starts = {relation.a: max(0.0, relation.offset_s), relation.b: max(0.0, -relation.offset_s)}
    evidence = ", ".join(EVIDENCE.get(name, name) for name in sorted(build.methods.get(pair, set())))
    evidence = evidence or "connected through other clips"
    if relation.overlap_s:
        evidence += f": {relation.overlap_s:.1f} s in common, shifted by {abs(relation.offset_s):.2f} s"
    if relation.difference:
        evidence += f"; {difference_in_words(relation.difference)}"
    return PairView(label, evidence, build.view(a, starts[a]), build.view(b, starts[b]))
