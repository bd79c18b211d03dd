"""Leaks: training clips that hold sound of protected clips, and what is left of them outside that sound."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.dedup.grouping import Relation
from sharding.dedup.spans import Span, outside
from sharding.fates.evidence import Evidence
from sharding.fates.trimming import WindowPart, captions_within, cut_windows, extent, longest, protected_spans
from sharding.rows import Caption, Window, rows


class Leak(NamedTuple):
    """The reason (of ``REASONS``) why a training clip must not be written unchanged, and the protected clip."""

    reason: str
    protected: str


def find_leak(evidence: Evidence, clip_id: str, unknown_part_leaks: bool) -> Leak | None:
    """Whether a clip leaks into a protected split, judged from its direct relations to protected clips.

    Verified sound decides first, then published ids with intervals.  Sound that is undecided is no leak.

    Args:
        evidence: the evidence of the build.
        clip_id: an unprotected clip.
        unknown_part_leaks: whether a clip from an unknown part of a protected clip's original is a leak.
    """

    def ids_overlap(relation: Relation) -> bool:
        overlaps = relation.by_identity == "undecided" and relation.identity_overlap_s > 0
        return relation.by_identity == "same" or overlaps

    if other := evidence.first_protected(clip_id, lambda relation: relation.by_waveform == "same"):
        return Leak("shares_sound_with_protected", other)
    if other := evidence.first_protected(clip_id, ids_overlap):
        return Leak("shares_interval_with_protected", other)
    other = evidence.first_protected(clip_id, lambda relation: relation.by_identity == "undecided")
    if other and unknown_part_leaks:
        return Leak("shares_source_with_protected", other)
    return None


class _Decoded(NamedTuple):
    """The facts about a clip that decisions about leaks need."""

    clip_id: str
    error: str | None
    windows: list[Window] | None


class _Captions(NamedTuple):
    """The captions of a clip."""

    clip_id: str
    captions: list[Caption] | None


def parts_without_leaks(
    evidence: Evidence, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, unknown_part_leaks: bool
) -> dict[str, list[WindowPart]]:
    """For each leaking clip that can be trimmed: the longest stretch outside all protected sound.

    A clip is left out if nothing long enough remains, if no caption describes what remains, or if nothing has to be
    cut away, because then the published ids do not agree with where the sound was found.

    Args:
        evidence: the evidence of the build.
        catalogue: CATALOGUE.
        facts: FACTS.
        matches: MATCHES.
        unknown_part_leaks: as for ``find_leak``.
    """
    spans_of = protected_spans(
        matches, evidence.protected, evidence.durations, _intervals(evidence), unknown_part_leaks
    )
    names = pa.array(sorted(spans_of), pa.string())
    leaking = facts.filter(pc.is_in(facts["clip_id"], names))
    captions_of = dict(rows(catalogue.filter(pc.is_in(catalogue["clip_id"], names)), _Captions))
    found = {}
    for clip_id, error, windows in rows(leaking, _Decoded):
        if error or windows is None or find_leak(evidence, clip_id, unknown_part_leaks) is None:
            continue
        spans = [span for spans in spans_of[clip_id].values() for span in spans]
        stretch = longest(outside(evidence.durations[clip_id], spans))
        left = [] if stretch is None else cut_windows(windows, stretch)
        if not left or (len(left) == len(windows) and all(part.whole for part in left)):
            continue
        if captions_within(captions_of[clip_id] or [], *extent([(part.start_s, part.duration_s) for part in left])):
            found[clip_id] = left
    return found


def _intervals(evidence: Evidence) -> dict[str, Span]:
    """The known intervals of the originals, in seconds; an interval without an end is endless."""
    found = {}
    for clip_id, clip in evidence.clips.items():
        if clip.interval and (start := clip.interval["start"]) is not None:
            end = clip.interval["end"]
            found[clip_id] = (start, math.inf if end is None else end)
    return found
