"""Figures of a build: clips, durations, sample rates, captions and licences, by dataset and by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharding import layout
from sharding.checks import conform
from sharding.reports.facts import finished_facts
from sharding.rows import ManifestRow, column, optional_column, rows
from sharding.shards.agreement import require_samples_of
from sharding.shards.manifest import Manifest


@dataclass(frozen=True)
class SplitStats:
    """Figures of one split.

    Attributes:
        rates: samples by their rate in Hz.
        source_rates: clips by the rate of the published file in Hz.
        captions: captions by kind (human, machine, label).
        median_words: median number of words in a caption.
        licences: clips by licence, most frequent first.
    """

    clips: int
    samples: int
    hours: float
    shortest_s: float
    median_s: float
    longest_s: float
    rates: dict[str, int]
    source_rates: dict[str, int]
    captions: dict[str, int]
    median_words: int
    licences: dict[str, int]


@dataclass(frozen=True)
class DatasetStats:
    """The figures of one dataset that pictures show.

    Attributes:
        durations: seconds of each clip.
        source_rates: clips by the rate of the published file in Hz.
        words: number of words in each caption.
        licences: clips by licence.
    """

    durations: list[float]
    source_rates: dict[str, int]
    words: list[int]
    licences: dict[str, int]


def split_stats(manifest: Manifest, rates: Mapping[str, int]) -> dict[str, SplitStats]:
    """Figures by ``dataset/split``; ``rates`` comes from `source_rates`."""
    table = manifest.table
    names = pc.binary_join_element_wise(table["dataset"], table["split"], "/")
    return {
        name: _split_stats(table.filter(pc.equal(names, name)), rates) for name in sorted(pc.unique(names).to_pylist())
    }


def dataset_stats(manifest: Manifest, rates: Mapping[str, int]) -> dict[str, DatasetStats]:
    """Figures by dataset; ``rates`` comes from `source_rates`."""
    return {
        name: _dataset_stats(manifest.table.filter(pc.equal(manifest.table["dataset"], name)), rates)
        for name in sorted(set(column(manifest.table, "dataset", str)))
    }


def source_rates(manifest: Manifest) -> dict[str, int]:
    """The sample rate in Hz of each clip's published file.

    It is read from the build's facts, or from the samples in the shards where the facts were removed.

    Raises:
        InputError: the rate of a sample's clip is not known, or the JSON of a sample is damaged.
    """
    facts = finished_facts(manifest.storage, ["clip_id", "source_rate"])
    if facts.num_rows:
        measured = facts.filter(pc.is_valid(facts["source_rate"]))
        require_samples_of(measured["clip_id"], manifest, "the build's facts lack the rate of this clip")
        rates = zip(column(facts, "clip_id", str), optional_column(facts, "source_rate", int), strict=True)
        return {clip_id: rate for clip_id, rate in rates if rate is not None}
    first = manifest.table.filter(pc.equal(manifest.table["window"], 0))
    return {sample.clip_id: _rate_in_shard(manifest, sample) for sample in rows(first, ManifestRow)}


def ranked_counts(counts: Mapping[str, int], most: int = 10) -> list[tuple[str, int]]:
    """The ``most`` largest counts in falling order, and one row with the sum of the others."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    return ordered[:most] + ([(f"{len(ordered) - most} others", rest)] if rest else [])


def row_counts(table: pa.Table) -> dict[tuple[Any, ...], int]:
    """How often each row of a table occurs."""
    found = table.group_by(table.column_names).aggregate([([], "count_all")])
    values = (found[name].to_pylist() for name in table.column_names)
    return dict(zip(zip(*values, strict=True), column(found, "count_all", int), strict=True))


class _Source(TypedDict):
    rate: int


class _SampleSource(TypedDict):
    """The parts of the JSON of a sample that figures use."""

    source: _Source


class _Extent(NamedTuple):
    """When the first window of a clip starts and its last one ends."""

    clip_id: str
    start_min: float
    end_max: float


def _rate_in_shard(manifest: Manifest, sample: ManifestRow) -> int:
    file = manifest.storage.name(layout.shard_name(sample.shard))
    return conform(manifest.sample_json(sample), _SampleSource, file)["source"]["rate"]


def _split_stats(samples: pa.Table, rates: Mapping[str, int]) -> SplitStats:
    durations = np.sort(_durations(samples))
    first = samples.filter(pc.equal(samples["window"], 0))
    kinds = pc.struct_field(pc.list_flatten(first["captions"]), "kind").to_pylist()
    words = _words(first)
    return SplitStats(
        clips=len(durations),
        samples=samples.num_rows,
        hours=float(durations.sum() / 3600),
        shortest_s=float(durations[0]),
        median_s=float(np.median(durations)),
        longest_s=float(durations[-1]),
        rates=_by_rate(column(samples, "rate", int)),
        source_rates=_by_rate(rates[clip_id] for clip_id in column(first, "clip_id", str)),
        captions=dict(sorted(Counter(kinds).items())),
        median_words=int(np.median(words)) if words else 0,
        licences=dict(_licences(first).most_common()),
    )


def _dataset_stats(samples: pa.Table, rates: Mapping[str, int]) -> DatasetStats:
    first = samples.filter(pc.equal(samples["window"], 0))
    return DatasetStats(
        durations=_durations(samples).tolist(),
        source_rates=_by_rate(rates[clip_id] for clip_id in column(first, "clip_id", str)),
        words=_words(first),
        licences=dict(_licences(first)),
    )


def _durations(samples: pa.Table) -> NDArray[np.float64]:
    """Seconds of each clip, by clip_id: from the start of its first window to the end of its last.

    A trimmed clip does not start at 0.
    """
    ends = pc.add(samples["start_s"], samples["duration_s"])
    windows = pa.table({"clip_id": samples["clip_id"], "start": samples["start_s"], "end": ends})
    extents = windows.group_by("clip_id").aggregate([("start", "min"), ("end", "max")]).sort_by("clip_id")
    return np.array([extent.end_max - extent.start_min for extent in rows(extents, _Extent)], np.float64)


def _words(first: pa.Table) -> list[int]:
    """How many words each caption has."""
    texts: list[str] = pc.struct_field(pc.list_flatten(first["captions"]), "text").to_pylist()
    return [len(text.split()) for text in texts]


def _by_rate(rates: Iterable[int]) -> dict[str, int]:
    return {str(rate): count for rate, count in sorted(Counter(rates).items())}


def _licences(first: pa.Table) -> Counter[str]:
    return Counter(licence or "not stated" for licence in optional_column(first, "licence", str))
