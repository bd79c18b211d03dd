"""What becomes of each clip: a pure function of catalogue, facts and evidence.

The rules are applied in the order in which they are listed; the first that holds decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sharding.audio import ERROR_CLASSES
from sharding.common.errors import InputError
from sharding.dedup.grouping import Relation, covers, groups_and_kin, relations
from sharding.dedup.spans import Span, outside
from sharding.fates.trimming import Part, extent, longest, parts, shared_places, told_in
from sharding.schema import FATES
from sharding.sources.protected import parse_protect

_RULES = {
    "not_probed": "Its audio was never looked at, so nothing is known about it.",
    "protected": "It belongs to a protected split and is written whatever else holds.",
    "listed": "An exclusion list that was given names it or its source.",
    "shares_sound_with_protected": "It holds sound that a protected clip holds too; verified on the waveform.",
    "shares_interval_with_protected": "Its id and interval say that it overlaps a protected clip.",
    "shares_source_with_protected": "It comes from the source of a protected clip, from an unknown part of it.",
    "no_caption": "It has no caption.",
    "same_interval": "It covers the same sound as the clip that it yields to, which takes over its captions.",
    "contains_captioned_excerpt": "A clip with human captions is an excerpt of it; its own speak of more than that.",
    "trimmed": "It holds sound that a protected clip holds too, and is written without: its longest stretch outside.",
    "kept": "Nothing speaks against it.",
}
LEAKS = ("withhold", "trim")
REASONS = ERROR_CLASSES | _RULES  # a failed clip's reason is its error class


@dataclass(frozen=True)
class FateSettings:
    """Policy; detection is elsewhere."""

    protect: frozenset[tuple[str, str]] = parse_protect()  # (dataset, split)
    withhold_unknown_part: bool = True  # of a protected clip's source
    keep: frozenset[tuple[str, str]] = parse_protect("clotho/development")  # never duplicates of anything
    keep_containers: bool = False  # long files that contain a human-captioned excerpt
    same_interval: float = 0.95  # share of both clips that the overlap must cover
    common: int = 50  # partners with which a clip may share a part before that part is a common element
    leaks: str = "withhold"  # training clips that share sound with protected ones; or "trim" them (see trimming)

    def __post_init__(self) -> None:
        if self.leaks not in LEAKS:
            raise InputError("unknown way with leaks", value=self.leaks, remedy=f"choose one of {LEAKS}")


def decide(
    catalogue: pa.Table,
    facts: pa.Table,
    matches: pa.Table,
    listed: Collection[str] = (),
    settings: FateSettings | None = None,
    standing: pa.Table | None = None,
) -> pa.Table:
    """One FATES row for each row of the catalogue, sorted by clip_id; ``keys`` are empty.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS.
        matches: MATCHES; the order of rows does not matter.
        listed: clip_ids that an exclusion list names.
        settings: see FateSettings.
        standing: FATES that were decided before and stay as they are: other clips yield to theirs, never the
            other way round.  Group and kin are those of all.
    """
    settings = settings or FateSettings()
    court = _Court(catalogue, facts, matches, listed, settings)
    former = {} if standing is None else _verdicts_of(standing)
    group, kin = groups_and_kin(catalogue, court.relations, court.durations, settings.common)
    rows: list[dict] = [
        {
            "clip_id": clip_id, "fate": fate, "reason": reason, "other": other,
            "group": group[clip_id], "kin": kin[clip_id], "keys": [],
        }
        for clip_id, (fate, reason, other) in sorted(court.verdicts(former).items())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, FATES)


def stretches(catalogue: pa.Table, facts: pa.Table, matches: pa.Table, settings: FateSettings) -> dict[str, list[Part]]:
    """What is written of each clip that ``decide`` may call ``trimmed``: parts of its windows, in order.

    The same clips whatever else is decided of them.  Arguments as of ``decide``.
    """
    return _Court(catalogue, facts, matches, (), settings).stretches if settings.leaks == "trim" else {}


_Verdict = tuple[str, str, str | None]
_KEPT = (("written", "kept"), ("written", "trimmed"))


def _verdicts_of(fates: pa.Table) -> dict[str, _Verdict]:
    columns = (fates[name].to_pylist() for name in ("clip_id", "fate", "reason", "other"))
    return {clip_id: (fate, reason, other) for clip_id, fate, reason, other in zip(*columns, strict=True)}


class _Court:
    """The tables, indexed for judging one clip after another."""

    def __init__(
        self,
        catalogue: pa.Table,
        facts: pa.Table,
        matches: pa.Table,
        listed: Collection[str],
        settings: FateSettings,
    ) -> None:
        self.settings = settings
        self.clips = {row["clip_id"]: row for row in catalogue.to_pylist()}
        columns = ["clip_id", "error", "duration_s", "bandwidth_hz"]
        self.facts = {row["clip_id"]: row for row in facts.select(columns).to_pylist()}
        self.durations = {c: f["duration_s"] for c, f in self.facts.items() if f["duration_s"]}
        self.listed = frozenset(listed)
        self.relations = [r for r in relations(matches) if r.a in self.clips and r.b in self.clips]
        self.of: dict[str, list[Relation]] = defaultdict(list)
        for relation in self.relations:
            self.of[relation.a].append(relation)
            self.of[relation.b].append(relation)
        self.protected = {c for c, row in self.clips.items() if self._split(row) in settings.protect}
        self.stretches = self._stretches(facts, matches) if settings.leaks == "trim" else {}

    @staticmethod
    def _split(row: dict) -> tuple[str, str]:
        return row["dataset"], row["split"]

    def verdicts(self, standing: Mapping[str, _Verdict]) -> dict[str, _Verdict]:
        """(fate, reason, other) of every clip; those that stand already count as kept where they are written."""
        decided = dict(standing)
        for clip_id in sorted(self.clips):
            if clip_id not in standing:
                verdict = self._alone(clip_id)
                if verdict is not None:
                    decided[clip_id] = verdict
        kept = {clip_id for clip_id, verdict in standing.items() if verdict[:2] in _KEPT}
        open_clips = sorted((c for c in self.clips if c not in decided), key=self._preference)
        for clip_id in open_clips:
            keeper = None if self._never_yields(clip_id) else self._keeper(clip_id, kept)
            if keeper is None:
                kept.add(clip_id)
            else:
                decided[clip_id] = ("duplicate", "same_interval", keeper)
        for clip_id in sorted(kept - set(standing)):
            excerpt = self._captioned_excerpt(clip_id, kept)
            if excerpt is None or self.settings.keep_containers or self._never_yields(clip_id):
                decided[clip_id] = self._written(clip_id)
            else:
                decided[clip_id] = ("duplicate", "contains_captioned_excerpt", excerpt)
        for clip_id in open_clips:  # who yielded to a clip that makes way itself makes way with it
            _, reason, other = decided[clip_id]
            if reason == "same_interval" and other and decided[other][1] == "contains_captioned_excerpt":
                decided[clip_id] = decided[other]
        return decided

    def _alone(self, clip_id: str) -> _Verdict | None:
        """What can be said of a clip before it is weighed against other clips that may be written."""
        row, fact = self.clips[clip_id], self.facts.get(clip_id)
        if fact is None:
            return "failed", row["problem"] or "not_probed", None
        if fact["error"]:
            return "failed", fact["error"], None
        if clip_id in self.protected:
            return "written", "protected", self._first(clip_id, lambda r: r.by_waveform == "same")
        if clip_id in self.listed:
            return "withheld", "listed", None
        leak = self._leak(clip_id)
        if leak is not None and clip_id not in self.stretches:
            return "withheld", *leak
        if not row["captions"]:
            return "filtered", "no_caption", None
        return None

    def _written(self, clip_id: str) -> _Verdict:
        leak = self._leak(clip_id)
        return ("written", "kept", None) if leak is None else ("written", "trimmed", leak[1])

    def _stretches(self, facts: pa.Table, matches: pa.Table) -> dict[str, list[Part]]:
        """Of clips that leak, at known places only: the longest stretch outside, where it has a caption."""
        unknown = self.settings.withhold_unknown_part
        places = shared_places(matches, self.protected, self.durations, self._intervals(), unknown)
        chosen = facts.filter(pc.is_in(facts["clip_id"], pa.array(sorted(places), pa.string())))
        found = {}
        for row in chosen.select(["clip_id", "error", "windows"]).to_pylist():
            clip_id = row["clip_id"]
            if row["error"] or self._leak(clip_id) is None:
                continue
            spans = [span for of_one in places[clip_id].values() for span in of_one]
            stretch = longest(outside(self.durations[clip_id], spans))
            left = [] if stretch is None else parts(row["windows"], stretch)
            if not left or (len(left) == len(row["windows"]) and all(part.whole for part in left)):
                continue  # nothing is left, or all: then what ids tell is not where they tell it
            if told_in(self.clips[clip_id]["captions"] or [], *extent([part[1:3] for part in left])):
                found[clip_id] = left
        return found

    def _intervals(self) -> dict[str, Span]:
        known = ((clip_id, row["interval"]) for clip_id, row in self.clips.items() if row["interval"])
        return {c: (i["start"], math.inf if i["end"] is None else i["end"]) for c, i in known if i["start"] is not None}

    def _leak(self, clip_id: str) -> tuple[str, str] | None:
        heard = self._first(clip_id, lambda r: r.by_waveform == "same")
        if heard:
            return "shares_sound_with_protected", heard
        told = self._first(
            clip_id, lambda r: r.by_identity == "same" or (r.by_identity == "undecided" and r.identity_overlap_s > 0)
        )
        if told:
            return "shares_interval_with_protected", told
        unknown = self._first(clip_id, lambda r: r.by_identity == "undecided")
        if unknown and self.settings.withhold_unknown_part:
            return "shares_source_with_protected", unknown
        return None

    def _first(self, clip_id: str, holds: Callable[[Relation], bool]) -> str | None:
        others = (r.other(clip_id) for r in self.of[clip_id] if holds(r))
        return min((c for c in others if c in self.protected), default=None)

    def _kinds(self, clip_id: str) -> list[str]:
        return [caption["kind"] for caption in self.clips[clip_id]["captions"] or []]

    def _human(self, clip_id: str) -> bool:
        return "human" in self._kinds(clip_id)

    def _never_yields(self, clip_id: str) -> bool:
        return self._split(self.clips[clip_id]) in self.settings.keep

    def _preference(self, clip_id: str) -> tuple:
        """Sorts the clips that win first: kept splits, human captions, the fuller recording, bandwidth."""
        fact, kinds = self.facts[clip_id], self._kinds(clip_id)
        return (
            not self._never_yields(clip_id),
            not self._human(clip_id),
            "machine" not in kinds,
            -round(fact["duration_s"] or 0.0, 1),
            -(fact["bandwidth_hz"] or 0.0),
            clip_id,
        )

    def _keeper(self, clip_id: str, kept: set[str]) -> str | None:
        share = self.settings.same_interval
        equal = [
            r.other(clip_id)
            for r in self.of[clip_id]
            if covers(r, r.a, self.durations, share) and covers(r, r.b, self.durations, share)
        ]
        return min((c for c in equal if c in kept), key=self._preference, default=None)

    def _captioned_excerpt(self, clip_id: str, kept: set[str]) -> str | None:
        """A kept clip with human captions that lies inside this one, which has none."""
        if self._human(clip_id):
            return None
        share = self.settings.same_interval
        inside = (r.other(clip_id) for r in self.of[clip_id] if covers(r, r.other(clip_id), self.durations, share))
        return min((c for c in inside if c in kept and self._human(c)), default=None)
