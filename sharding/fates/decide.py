"""What becomes of each clip: a pure function of catalogue, facts and matches.

The rules are those of docs/DEDUPLICATION.md, in its order; the first rule that holds decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from sharding.audio import ERROR_CLASSES
from sharding.common.errors import InputError
from sharding.dedup.grouping import groups_and_kin
from sharding.fates.evidence import Evidence, gather
from sharding.fates.leaks import find_leak, parts_without_leaks
from sharding.fates.trimming import WindowPart
from sharding.rows import rows, to_table
from sharding.schema import FATES
from sharding.sources.protected import DEFAULT_KEEP, parse_protect

_RULES = {
    "not_probed": "Its audio was never read, so nothing is known about it.",
    "protected": "It belongs to a protected split, and such clips are always written.",
    "listed": "An exclusion list names the clip or the recording that it comes from.",
    "shares_sound_with_protected": "It has sound in common with a protected clip; the waveforms prove it.",
    "shares_interval_with_protected": "Its published id and interval say that it overlaps a protected clip.",
    "shares_source_with_protected": "It comes from an unknown part of the recording that a protected clip comes from.",
    "no_caption": "It has no caption.",
    "same_interval": "It is the same interval of the same recording as another clip, which is written and takes over "
    "its captions.  Neither clip holds sound that the other one lacks.",
    "contains_captioned_excerpt": "A written clip with human captions is an excerpt of it.  No person wrote its own "
    "captions, and they describe more than that excerpt.",
    "trimmed": "It has sound in common with a protected clip; only its longest stretch without that sound is written.",
    "kept": "No other rule applies to it.",
}
LEAKS = ("withhold", "trim")  # what is done with training clips that leak
REASONS = ERROR_CLASSES | _RULES  # a failed clip's reason is its error class


@dataclass(frozen=True)
class FateSettings:
    """The policy of a build; how clips are compared is decided elsewhere.

    Attributes:
        protect: (dataset, split) whose clips no training clip may share sound with.
        withhold_unknown_part: whether a clip from an unknown part of a protected clip's original leaks.
        keep: (dataset, split) whose clips are never dropped as duplicates.
        keep_containers: whether to keep long recordings that contain an excerpt with human captions.
        same_interval: share of both clips that an overlap must cover to make them duplicates.
        common: a clip that shares a part with more clips than this shares a common element with them.
        leaks: one of LEAKS.
    """

    protect: frozenset[tuple[str, str]] = parse_protect()
    withhold_unknown_part: bool = True
    keep: frozenset[tuple[str, str]] = DEFAULT_KEEP
    keep_containers: bool = False
    same_interval: float = 0.95
    common: int = 50
    leaks: str = "withhold"

    def __post_init__(self) -> None:
        if self.leaks not in LEAKS:
            raise InputError("no such way to treat leaks", value=self.leaks, remedy=f"choose one of {', '.join(LEAKS)}")


class Verdict(NamedTuple):
    """The fate of one clip, its reason (a name of REASONS), and the clip that the reason refers to."""

    fate: str
    reason: str
    other: str | None = None


class _FixedFate(NamedTuple):
    clip_id: str
    fate: str
    reason: str
    other: str | None


def decide(
    catalogue: pa.Table,
    facts: pa.Table,
    matches: pa.Table,
    listed: Collection[str] = (),
    settings: FateSettings | None = None,
    fixed: pa.Table | None = None,
) -> pa.Table:
    """One FATES row for each row of the catalogue, sorted by clip_id; ``keys`` are empty.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS.
        matches: MATCHES, in any order.
        listed: clip_ids that an exclusion list names.
        settings: the policy.
        fixed: FATES that were decided before and do not change.  New clips can become duplicates of their written
            clips, never the other way round.  Groups and kin are computed anew for all clips.
    """
    settings = settings or FateSettings()
    evidence = gather(catalogue, facts, matches, settings.protect)
    trimmable = _trimmed_parts(evidence, catalogue, facts, matches, settings)
    judge = _Judge(evidence, settings, frozenset(listed), frozenset(trimmable))
    before = {} if fixed is None else {row.clip_id: Verdict(*row[1:]) for row in rows(fixed, _FixedFate)}
    group, kin = groups_and_kin(catalogue, evidence.relations, evidence.durations, settings.common)
    found = sorted(judge.verdicts(before).items())
    empty: list[str] = []
    return to_table(((clip_id, *verdict, group[clip_id], kin[clip_id], empty) for clip_id, verdict in found), FATES)


def trimmed_parts(
    catalogue: pa.Table, facts: pa.Table, matches: pa.Table, settings: FateSettings
) -> dict[str, list[WindowPart]]:
    """What is written of each clip that ``decide`` may trim: parts of its windows, in order.

    Which clips these are does not depend on the other rules.  Arguments as of ``decide``.
    """
    evidence = gather(catalogue, facts, matches, settings.protect)
    return _trimmed_parts(evidence, catalogue, facts, matches, settings)


def _trimmed_parts(
    evidence: Evidence, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, settings: FateSettings
) -> dict[str, list[WindowPart]]:
    if settings.leaks != "trim":
        return {}
    return parts_without_leaks(evidence, catalogue, facts, matches, settings.withhold_unknown_part)


@dataclass(frozen=True)
class _Judge:
    """Applies the rules to the clips of a build.

    Attributes:
        evidence, settings: see there.
        listed: clips that an exclusion list names.
        trimmable: leaking clips that are trimmed and not withheld.
    """

    evidence: Evidence
    settings: FateSettings
    listed: frozenset[str]
    trimmable: frozenset[str]

    def verdicts(self, fixed: Mapping[str, Verdict]) -> dict[str, Verdict]:
        """The verdict of every clip; ``fixed`` verdicts do not change."""
        decided = dict(fixed)
        for clip_id in sorted(self.evidence.clips):
            if clip_id not in fixed and (verdict := self._rules_1_to_5(clip_id)):
                decided[clip_id] = verdict
        candidates = sorted(
            (clip_id for clip_id in self.evidence.clips if clip_id not in decided), key=self._preference
        )
        kept = {clip_id for clip_id, verdict in fixed.items() if verdict.reason in ("kept", "trimmed")}
        for clip_id in candidates:
            if keeper := self._rule_6(clip_id, kept):
                decided[clip_id] = Verdict("duplicate", "same_interval", keeper)
            else:
                kept.add(clip_id)
        for clip_id in sorted(kept.difference(fixed)):
            decided[clip_id] = self._rules_7_and_8(clip_id, kept)
        # If A is a duplicate of B under rule 6, and B of C under rule 7, then A is a duplicate of C like B.
        for clip_id in candidates:
            verdict = decided[clip_id]
            if verdict.reason == "same_interval" and verdict.other:
                keeper_verdict = decided[verdict.other]
                if keeper_verdict.reason == "contains_captioned_excerpt":
                    decided[clip_id] = keeper_verdict
        return decided

    def _rules_1_to_5(self, clip_id: str) -> Verdict | None:
        """The rules that look at one clip and its relations to protected clips."""
        evidence, clip, fact = self.evidence, self.evidence.clips[clip_id], self.evidence.facts.get(clip_id)
        if fact is None:
            return Verdict("failed", clip.problem or "not_probed")
        if fact.error:
            return Verdict("failed", fact.error)
        if clip_id in evidence.protected:
            overlapping = evidence.first_protected(clip_id, lambda relation: relation.by_waveform == "same")
            return Verdict("written", "protected", overlapping)
        if clip_id in self.listed:
            return Verdict("withheld", "listed")
        leak = find_leak(evidence, clip_id, self.settings.withhold_unknown_part)
        if leak is not None and clip_id not in self.trimmable:
            return Verdict("withheld", leak.reason, leak.protected)
        if not clip.kinds:
            return Verdict("filtered", "no_caption")
        return None

    def _rule_6(self, clip_id: str, kept: Collection[str]) -> str | None:
        """The kept clip of the same interval of which this clip is a duplicate."""
        if self._is_never_dropped(clip_id):
            return None
        equal = self.evidence.same_interval(clip_id, self.settings.same_interval)
        return min((other for other in equal if other in kept), key=self._preference, default=None)

    def _rules_7_and_8(self, clip_id: str, kept: Collection[str]) -> Verdict:
        """Drop a recording that contains a kept clip with human captions; write everything else."""
        excerpt = self._captioned_excerpt(clip_id, kept)
        if excerpt and not self.settings.keep_containers and not self._is_never_dropped(clip_id):
            return Verdict("duplicate", "contains_captioned_excerpt", excerpt)
        leak = find_leak(self.evidence, clip_id, self.settings.withhold_unknown_part)
        return Verdict("written", "kept") if leak is None else Verdict("written", "trimmed", leak.protected)

    def _captioned_excerpt(self, clip_id: str, kept: Collection[str]) -> str | None:
        """A kept clip with human captions inside this clip, which has none."""
        if self.evidence.has_human_caption(clip_id):
            return None
        inside = self.evidence.excerpts(clip_id, self.settings.same_interval)
        return min((c for c in inside if c in kept and self.evidence.has_human_caption(c)), default=None)

    def _is_never_dropped(self, clip_id: str) -> bool:
        return self.evidence.split(clip_id) in self.settings.keep

    def _preference(self, clip_id: str) -> tuple[bool, bool, bool, float, float, str]:
        """A sort key: of clips of one interval, the one with the smallest key is written.

        Clips of kept splits come first, then human captions, then machine captions, then duration, then bandwidth.
        """
        fact, kinds = self.evidence.facts[clip_id], self.evidence.clips[clip_id].kinds
        return (
            not self._is_never_dropped(clip_id),
            "human" not in kinds,
            "machine" not in kinds,
            -round(fact.duration_s or 0.0, 1),
            -(fact.bandwidth_hz or 0.0),
            clip_id,
        )
