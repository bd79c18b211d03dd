"""What the shards of a build hold, and what the datasets list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.excerpts import player, spectrogram
from sharding.common.sizes import show_hours
from sharding.reports.contents import BuildContents, FirstSample, first_caption
from sharding.reports.stats import DatasetStats, dataset_stats, ranked_counts, row_counts, source_rates
from sharding.rows import rows
from sharding.shards.manifest import Dataset

SHOWN_SAMPLES = 6
SAMPLE_S = 12.0  # of each shown sample
Bars = list[tuple[str, int]]  # labels and counts


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins; values beyond the last edge are in the last bin, and ``beyond`` says whether there are any.

    ``edges`` is one longer than ``counts``.
    """

    counts: list[int]
    edges: list[float]
    beyond: bool


@dataclass(frozen=True)
class DatasetHolding:
    """The clips of one dataset in the shards."""

    name: str
    clips: int
    captions: int
    length: str  # of the sound
    durations: Histogram
    words: Histogram
    rates: Bars
    kinds: Bars
    licences: Bars


@dataclass(frozen=True)
class PartListing:
    """What one part of a dataset lists; ``lost`` clips have no audio, and ``share`` is their share of all."""

    name: str
    clips: int
    published_clips: int | None
    captions: int
    ids: int
    lost: int
    share: float


@dataclass(frozen=True)
class SampleView:
    """A written clip with its player and its picture."""

    clip_id: str
    caption: str
    seconds: float
    licence: str | None
    picture: str
    sound: str


def dataset_holdings(build: BuildContents) -> list[DatasetHolding]:
    """What the shards hold of each dataset."""
    stats = dataset_stats(build.manifest, source_rates(build.manifest))
    return [_holding(build, name, about) for name, about in stats.items()]


def part_listings(build: BuildContents) -> list[PartListing]:
    """What each part of each dataset lists, and how much of its audio is missing."""
    return [
        PartListing(
            f"{part['dataset']}/{part['part']}",
            part["clips"],
            part["published_clips"],
            part["captions"],
            part["ids"],
            lost := part["missing"] + part["out_of_root"],
            lost / part["clips"] if part["clips"] else 0.0,
        )
        for part in build.overview["parts"]
    ]


def note_counts(build: BuildContents) -> Bars:
    """How many clips each kind of note is about; the part of a note that differs from clip to clip is left out."""
    notes: Counter[str] = Counter()
    for (note,), count in row_counts(pa.table({"note": pc.list_flatten(build.catalogue["notes"])})).items():
        notes[note.partition(":")[0].partition(" (")[0]] += count
    return ranked_counts(notes)


def sample_views(build: BuildContents) -> list[SampleView]:
    """One clip of each split in turn, until there are enough."""
    names = pc.binary_join_element_wise(build.first["dataset"], build.first["split"], "/")
    positions = [
        pc.indices_nonzero(pc.equal(names, name))[:SHOWN_SAMPLES] for name in sorted(pc.unique(names).to_pylist())
    ]
    splits = [list(rows(build.first.take(some), FirstSample)) for some in positions]
    in_turn = [samples[turn] for turn in range(SHOWN_SAMPLES) for samples in splits if turn < len(samples)]
    views = (_sample_view(build, sample) for sample in in_turn[:SHOWN_SAMPLES])
    return [view for view in views if view is not None]


def sound_length(seconds: float) -> str:
    """How much sound there is: in hours, as corpora are described, and below two hours in minutes or seconds."""
    hours = seconds / 3600
    return show_hours(hours) if hours < 2 else f"{hours:,.1f} h"


def totals(build: BuildContents, fates: dict[str, int]) -> list[tuple[str, str]]:
    """The figures at the top of the page: value and label."""
    seconds = pc.sum(build.samples["duration_s"], min_count=0).as_py()
    shards = len(build.dataset["shards"])
    size = sum(shard["bytes"] for shard in build.dataset["shards"])
    shown = [
        (f"{fates['written']:,}", "clips written"),
        (f"{build.samples.num_rows:,}", "samples in the shards"),
        (sound_length(seconds), "of sound in the shards"),
        (f"{shards:,}", f"{'shard' if shards == 1 else 'shards'}, {size / 1e6:,.1f} MB"),
        (f"{fates['duplicate']:,}", "duplicates"),
        (f"{fates['withheld']:,}", "withheld"),
        (f"{fates['failed']:,}", "failed"),
    ]
    return [*shown, (f"{fates['filtered']:,}", "filtered")] if fates["filtered"] else shown


def settings_of(dataset: Dataset) -> list[tuple[str, str]]:
    """Settings and versions of a build as rows of name and value."""
    settings = [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(dataset["settings"].items())]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(dataset["versions"].items()))
    return [*settings, ("versions", versions), ("shard format", str(dataset["format"]))]


def histogram(values: Sequence[float], top: float, bins: int = 24) -> Histogram:
    """Counts of ``values`` in equal bins from 0 to ``top``."""
    counts, edges = np.histogram(np.minimum(values, top), bins=bins, range=(0, top))
    return Histogram(counts.tolist(), [round(edge, 1) for edge in edges.tolist()], any(value > top for value in values))


def _holding(build: BuildContents, name: str, about: DatasetStats) -> DatasetHolding:
    captions = build.first.filter(pc.equal(build.first["dataset"], name))["captions"]
    kinds = _caption_kinds(pc.list_flatten(captions))
    return DatasetHolding(
        name=name,
        clips=len(about.durations),
        captions=sum(kinds.values()),
        length=sound_length(sum(about.durations)),
        durations=histogram(about.durations, _axis_end(about.durations)),
        words=histogram(about.words, 30, 30),
        rates=ranked_counts({f"{int(rate) / 1000:g} kHz": count for rate, count in about.source_rates.items()}, 5),
        kinds=ranked_counts(kinds),
        licences=ranked_counts(about.licences, 5),
    )


def _axis_end(durations: Sequence[float]) -> float:
    """Where the axis of durations ends, in seconds: 99 % of the clips are shorter."""
    return float(max(10, 10 * np.ceil(np.percentile(durations, 99) / 10))) if durations else 10.0


def _caption_kinds(captions: pa.ChunkedArray) -> dict[str, int]:
    """Captions by how they came about."""
    fields = {name: pc.struct_field(captions, name) for name in ("kind", "onset", "source")}
    present = {name: fields[name].is_valid() for name in ("onset", "source")}
    return {
        f"{kind}{', with times' * has_times}{', from a duplicate' * from_duplicate}": count
        for (kind, has_times, from_duplicate), count in row_counts(
            pa.table({"kind": fields["kind"], **present})
        ).items()
    }


def _sample_view(build: BuildContents, sample: FirstSample) -> SampleView | None:
    sound = build.wave(sample.clip_id, SAMPLE_S, sample.start_s)
    if sound is None:
        return None
    return SampleView(
        sample.clip_id,
        first_caption(sample.captions),
        sample.duration_s,
        sample.licence,
        spectrogram(*sound),
        player(*sound),
    )
