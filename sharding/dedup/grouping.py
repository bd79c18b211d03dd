"""From rows of evidence to relations between clips: outcomes of pairs, groups, kin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.outcomes import OUTCOME_RANK
from sharding.rows import Difference, MatchRow, rows

EQUALITY_METHODS = ("source_bytes", "pcm")  # methods that find every sample equal
SOUND_METHODS = ("source_bytes", "pcm", "waveform")  # methods whose verdict rests on the sound itself


@dataclass(slots=True)
class Relation:
    """What the evidence says about two clips, a < b."""

    a: str
    b: str
    by_waveform: str = "different"  # outcome from the sound: same | different | undecided
    by_identity: str | None = None  # outcome from published ids; None: the ids say nothing
    identity_overlap_s: float = 0.0  # longest overlap of the published intervals
    offset_s: float = 0.0  # b's time 0 in a, of the longest verified overlap
    overlap_s: float = 0.0  # longest verified overlap
    explained: bool = False  # over the whole overlap, each clip explains all that the other one holds
    difference: Difference | None = None  # the strongest sound that only one of the two holds there

    def other(self, clip_id: str) -> str:
        """The clip at the other end."""
        return self.b if clip_id == self.a else self.a

    def time_in(self, clip_id: str) -> float:
        """Where the other clip's time 0 stands in this one, in seconds."""
        return self.offset_s if clip_id == self.a else -self.offset_s


def relations(matches: pa.Table) -> list[Relation]:
    """One Relation a pair of MATCHES, sorted by pair; rows in any order."""
    keys = {name: matches[name] for name in ("a", "b", "method", "offset_s", "outcome")}
    keys["offset_s"] = pc.fill_null(keys["offset_s"], 0.0)
    order = pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys])
    found: dict[tuple[str, str], Relation] = {}
    for row in rows(matches.take(order), MatchRow):
        relation = found.setdefault((row.a, row.b), Relation(row.a, row.b))
        if row.method == "identity":
            if relation.by_identity is None or OUTCOME_RANK[row.outcome] > OUTCOME_RANK[relation.by_identity]:
                relation.by_identity = row.outcome
            relation.identity_overlap_s = max(relation.identity_overlap_s, row.overlap_s or 0.0)
        elif row.method == "residual":
            relation.explained |= row.outcome == "same"
            relation.difference = row.difference
        elif row.method in SOUND_METHODS:
            relation.explained |= row.method in EQUALITY_METHODS and row.outcome == "same"
            if OUTCOME_RANK[row.outcome] > OUTCOME_RANK[relation.by_waveform]:
                relation.by_waveform = row.outcome
            if row.outcome == "same" and (row.overlap_s or 0.0) > relation.overlap_s:
                relation.overlap_s, relation.offset_s = row.overlap_s or 0.0, row.offset_s or 0.0
    return list(found.values())


def covers(relation: Relation, clip_id: str, durations: Mapping[str, float], share: float) -> bool:
    """Whether the verified overlap is at least ``share`` of the clip."""
    return relation.by_waveform == "same" and relation.overlap_s >= share * durations.get(clip_id, float("inf"))


def same_within(relation: Relation, clip_id: str, durations: Mapping[str, float], share: float) -> bool:
    """Whether the other clip covers this one, and neither of the two holds sound there that the other one lacks."""
    return relation.explained and covers(relation, clip_id, durations, share)


def common_elements(found: Iterable[Relation], durations: dict[str, float], limit: int) -> set[tuple[str, str]]:
    """Pairs that share no more than a common element: a part that is found in more than ``limit`` clips.

    One effect in thousands of recordings would otherwise join them all.  A pair is set aside where neither
    clip lies in the other and one of them has more than ``limit`` such partners.
    """
    partial = [
        r
        for r in found
        if r.by_waveform == "undecided"
        or (r.by_waveform == "same" and not any(covers(r, c, durations, 0.95) for c in (r.a, r.b)))
    ]
    degree = Counter(end for r in partial for end in (r.a, r.b))
    return {(r.a, r.b) for r in partial if max(degree[r.a], degree[r.b]) > limit}


def connected_components(clips: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The smallest member of each clip's connected component."""
    parent = {clip: clip for clip in clips}

    def root(clip: str) -> str:
        while parent[clip] != clip:
            parent[clip] = parent[parent[clip]]
            clip = parent[clip]
        return clip

    for a, b in edges:
        if a in parent and b in parent:
            first, second = sorted((root(a), root(b)))
            parent[second] = first
    return {clip: root(clip) for clip in parent}


def groups_and_kin(
    catalogue: pa.Table, found: list[Relation], durations: dict[str, float], limit: int
) -> tuple[dict[str, str], dict[str, str]]:
    """``group`` and ``kin`` of every clip of the catalogue."""
    clips = catalogue["clip_id"].to_pylist()
    aside = common_elements(found, durations, limit)
    linked = [r for r in found if (r.a, r.b) not in aside]
    same = [(r.a, r.b) for r in linked if r.by_waveform == "same"]
    wider = same + [(r.a, r.b) for r in linked if r.by_waveform == "undecided"]
    wider += [(r.a, r.b) for r in found if r.by_identity is not None]
    sources: dict[str, list[str]] = defaultdict(list)
    for clip, identity in zip(clips, catalogue["identity"].to_pylist(), strict=True):
        if identity:
            sources[identity.partition("@")[0]].append(clip)
    wider += [(members[0], member) for members in sources.values() for member in members[1:]]
    return connected_components(clips, same), connected_components(clips, wider)
