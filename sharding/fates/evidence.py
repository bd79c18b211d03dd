"""The tables of a build, indexed by clip, so that rules can be applied to one clip after another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from sharding.dedup.grouping import Relation, relations, same_within
from sharding.rows import Caption, Interval, rows
from sharding.sources.protected import is_protected

Value = TypeVar("Value", bound=Hashable)


class Clip(NamedTuple):
    """The cells of CATALOGUE on which fates depend.  Captions are left out, as they would need most of the memory.

    Attributes:
        kinds: the kinds of its captions: human, machine, label; empty if it has none.
    """

    dataset: str
    split: str
    problem: str | None
    interval: Interval | None
    kinds: frozenset[str]


class _ClipRow(NamedTuple):
    clip_id: str
    dataset: str
    split: str
    problem: str | None
    captions: list[Caption] | None
    interval: Interval | None


class FactRow(NamedTuple):
    """The columns of FACTS that fates depend on."""

    clip_id: str
    error: str | None
    duration_s: float | None
    bandwidth_hz: float | None


@dataclass(frozen=True)
class Evidence:
    """What is known about the clips of a build.

    Attributes:
        clips, facts: rows by clip_id; a clip that was never probed has no facts.
        durations: clip_id to seconds, of clips that were decoded.
        relations: what the matches say about each pair of clips, sorted by pair.
        relations_of: the relations of each clip.
        protected: clips of protected splits.
    """

    clips: dict[str, Clip]
    facts: dict[str, FactRow]
    durations: dict[str, float]
    relations: list[Relation]
    relations_of: dict[str, list[Relation]]
    protected: frozenset[str]

    def split(self, clip_id: str) -> tuple[str, str]:
        """(dataset, split) of a clip."""
        return self.clips[clip_id].dataset, self.clips[clip_id].split

    def has_human_caption(self, clip_id: str) -> bool:
        """Whether a person wrote one of the clip's captions."""
        return "human" in self.clips[clip_id].kinds

    def first_protected(self, clip_id: str, holds: Callable[[Relation], bool]) -> str | None:
        """The first protected clip, by clip_id, whose relation to the clip has a property; None if there is none."""
        others = (relation.other(clip_id) for relation in self.relations_of.get(clip_id, ()) if holds(relation))
        return min((other for other in others if other in self.protected), default=None)

    def same_interval(self, clip_id: str, share: float) -> list[str]:
        """Clips that overlap with this one by at least ``share`` of both, where each explains the other."""
        return [
            relation.other(clip_id)
            for relation in self.relations_of.get(clip_id, ())
            if same_within(relation, relation.a, self.durations, share)
            and same_within(relation, relation.b, self.durations, share)
        ]

    def excerpts(self, clip_id: str, share: float) -> list[str]:
        """Clips of which at least ``share`` lies inside this one, where each explains the other."""
        return [
            relation.other(clip_id)
            for relation in self.relations_of.get(clip_id, ())
            if same_within(relation, relation.other(clip_id), self.durations, share)
        ]


def gather(catalogue: pa.Table, facts: pa.Table, matches: pa.Table, protect: Collection[tuple[str, str]]) -> Evidence:
    """Index CATALOGUE, FACTS and MATCHES by clip; ``protect`` as ``parse_protect`` returns it."""
    shared: dict[Hashable, Any] = {}  # equal values of many clips are one object
    clips = {row.clip_id: _clip(row, shared) for row in rows(catalogue, _ClipRow)}
    known = {row.clip_id: row for row in rows(facts, FactRow)}
    found = [one for one in relations(matches) if one.a in clips and one.b in clips]
    relations_of: dict[str, list[Relation]] = defaultdict(list)
    for relation in found:
        relations_of[relation.a].append(relation)
        relations_of[relation.b].append(relation)
    return Evidence(
        clips=clips,
        facts=known,
        durations={row.clip_id: row.duration_s for row in known.values() if row.duration_s},
        relations=found,
        relations_of=dict(relations_of),
        protected=frozenset(
            clip_id for clip_id, clip in clips.items() if is_protected(clip.dataset, clip.split, protect)
        ),
    )


def _clip(row: _ClipRow, shared: dict[Hashable, Any]) -> Clip:
    def one(value: Value) -> Value:
        found: Value = shared.setdefault(value, value)
        return found

    kinds = frozenset(caption["kind"] for caption in row.captions or [])
    return Clip(one(row.dataset), one(row.split), one(row.problem), row.interval, one(kinds))
