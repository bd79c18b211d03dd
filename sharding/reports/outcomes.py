"""What became of the clips of a build: fates by split, reasons, trimmed clips, old fates that an append kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.audio import ERROR_CLASSES
from sharding.checks import FATE_NAMES, read_checked
from sharding.fates.decide import REASONS
from sharding.reports.contents import BuildContents
from sharding.reports.stats import row_counts
from sharding.rows import rows
from sharding.schema import DIFFERENCES
from sharding.sources.protected import is_protected

SHOWN_DIFFERENCES = 12


@dataclass(frozen=True)
class SplitOutcome:
    """The fates of the clips of one split; ``fates`` has a row (fate, clips) for each fate that occurs."""

    name: str
    total: int
    protected: bool
    fates: list[tuple[str, int]]


@dataclass(frozen=True)
class DropReason:
    """Why clips were not written: the reason's name and meaning, and one clip as an example."""

    fate: str
    reason: str
    sentence: str
    count: int
    example: str
    detail: str | None


@dataclass(frozen=True)
class TrimmedClip:
    """A clip of which only one stretch was written, because ``other`` is protected and shares the rest."""

    clip_id: str
    other: str
    times: str


class FateChange(NamedTuple):
    """A row of ``differences.parquet``: a clip keeps its fate, though a new build would decide otherwise."""

    clip_id: str
    fate: str
    reason: str
    anew_fate: str
    anew_reason: str
    anew_other: str | None


@dataclass(frozen=True)
class FateChanges:
    """How many old clips a new build would treat differently, and some of them."""

    count: int
    examples: list[FateChange]


def fate_counts(build: BuildContents) -> dict[str, int]:
    """How many clips have each fate."""
    counts = row_counts(build.fates.select(["fate"]))
    return {fate: counts.get((fate,), 0) for fate in FATE_NAMES}


def split_outcomes(build: BuildContents) -> list[SplitOutcome]:
    """The fates of the clips of every dataset and split."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    splits = build.catalogue.select(["clip_id", "dataset", "split"])
    joined = build.fates.select(["clip_id", "fate"]).join(splits, "clip_id")
    for (dataset, split, fate), count in row_counts(joined.select(["dataset", "split", "fate"])).items():
        counts[dataset, split][fate] += count
    protect = {(dataset, split) for dataset, split in build.dataset["settings"]["fates"]["protect"]}
    return [
        SplitOutcome(
            f"{dataset}/{split}",
            count.total(),
            is_protected(dataset, split, protect),
            [(fate, count[fate]) for fate in FATE_NAMES if count[fate]],
        )
        for (dataset, split), count in sorted(counts.items())
    ]


def drop_reasons(build: BuildContents) -> list[DropReason]:
    """Why clips were not written, by fate and falling count."""
    dropped = build.fates.filter(pc.not_equal(build.fates["fate"], "written"))
    groups = dropped.group_by(["fate", "reason"], use_threads=False)  # one thread, so that the first clip is the first
    counted = rows(groups.aggregate([([], "count_all"), ("clip_id", "first")]), _ReasonCount)
    return [
        DropReason(
            one.fate,
            one.reason,
            REASONS.get(one.reason, one.reason),
            one.count_all,
            one.clip_id_first,
            build.detail(one.clip_id_first) if one.reason in ERROR_CLASSES else None,
        )
        for one in sorted(counted, key=lambda one: (FATE_NAMES.index(one.fate), -one.count_all))
    ]


def trimmed_clips(build: BuildContents) -> list[TrimmedClip]:
    """Every clip that was trimmed, with the times in seconds between which it was written."""
    fates = build.fates.filter(pc.equal(build.fates["reason"], "trimmed"))
    protected = {one.clip_id: one.other for one in rows(fates, _TrimmedFate)}
    windows = build.samples.filter(pc.is_in(build.samples["clip_id"], pa.array(list(protected), pa.string())))
    times: dict[str, list[float]] = defaultdict(list)
    for window in rows(windows, _Times):
        times[window.clip_id] += [window.start_s, window.start_s + window.duration_s]
    return [
        TrimmedClip(clip_id, protected[clip_id], f"{min(both):.2f} to {max(both):.2f} s")
        for clip_id, both in sorted(times.items())
    ]


def differences(build: BuildContents) -> FateChanges | None:
    """Old clips that a build of all datasets would treat differently; None where nothing was appended."""
    if layout.DIFFERENCES not in build.dataset["tables"]:
        return None
    table = read_checked(build.storage, layout.DIFFERENCES, DIFFERENCES)
    return FateChanges(table.num_rows, list(rows(table.slice(0, SHOWN_DIFFERENCES), FateChange)))


class _ReasonCount(NamedTuple):
    fate: str
    reason: str
    count_all: int
    clip_id_first: str


class _TrimmedFate(NamedTuple):
    clip_id: str
    other: str


class _Times(NamedTuple):
    clip_id: str
    start_s: float
    duration_s: float
