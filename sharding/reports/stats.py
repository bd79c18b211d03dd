"""What a build holds in figures: clips, lengths, sample rates, captions, licences, by dataset and split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.reports.facts import finished_facts
from sharding.shards.manifest import Manifest


def split_stats(manifest: Manifest, rates: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """``dataset/split`` to its figures: lengths in seconds, ``source_rates`` (Hz: clips), ``rates`` (Hz: samples).

    Args:
        rates: from `source_rates`.
    """
    table = manifest.table
    families = pc.binary_join_element_wise(table["dataset"], table["split"], "/")
    return {
        name: _describe(table.filter(pc.equal(families, name)), rates)
        for name in sorted(pc.unique(families).to_pylist())
    }


def dataset_stats(manifest: Manifest, rates: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Dataset to what ``plots.write_plots`` draws of it.

    Args:
        rates: from `source_rates`.
    """
    table = manifest.table
    found = {}
    for name in sorted(pc.unique(table["dataset"]).to_pylist()):
        rows = table.filter(pc.equal(table["dataset"], name))
        first = rows.filter(pc.equal(rows["window"], 0))
        found[name] = {
            "durations": list(_lengths(rows).values()),
            "source_rates": _rates(first, rates),
            "words": _words(first).tolist(),
            "licences": dict(Counter(licence or "not told" for licence in first["licence"].to_pylist())),
        }
    return found


def ranked_counts(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """The ``most`` largest counts, and the sum of the others."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    return ordered[:most] + ([(f"{len(ordered) - most} others", rest)] if rest else [])


def source_rates(manifest: Manifest) -> Mapping[str, int]:
    """The sample rate in Hz of each clip's source: from the build's facts, or where these are gone, from the shards."""
    facts = finished_facts(manifest.storage, ["clip_id", "source_rate"])
    if facts.num_rows:
        return dict(zip(facts["clip_id"].to_pylist(), facts["source_rate"].to_pylist(), strict=True))
    first = manifest.table.filter(pc.equal(manifest.table["window"], 0))
    names = ("clip_id", "shard", "json_offset", "json_bytes")
    return {
        clip_id: json.loads(manifest.storage.read(layout.shard_name(shard), offset, size))["source"]["rate"]
        for clip_id, shard, offset, size in zip(*(first[name].to_pylist() for name in names), strict=True)
    }


def _lengths(rows: pa.Table) -> dict[str, float]:
    """Seconds of each clip: from the beginning of its first window (it may be trimmed) to the end of its last."""
    ends = pc.add(rows["start_s"], rows["duration_s"])
    windows = pa.table({"clip_id": rows["clip_id"], "start": rows["start_s"], "end": ends})
    found = windows.group_by("clip_id").aggregate([("start", "min"), ("end", "max")])
    lengths = pc.subtract(found["end_max"], found["start_min"])
    return dict(sorted(zip(found["clip_id"].to_pylist(), lengths.to_pylist(), strict=True)))


def _words(first: pa.Table) -> np.ndarray:
    texts = pc.struct_field(pc.list_flatten(first["captions"]), "text")
    return np.array([len(text.split()) for text in texts.to_pylist()], np.int64)


def _rates(first: pa.Table, rates: Mapping[str, int]) -> dict[str, int]:
    counts = Counter(rates[clip_id] for clip_id in first["clip_id"].to_pylist())
    return {str(rate): count for rate, count in sorted(counts.items())}


def _describe(rows: pa.Table, rates: Mapping[str, int]) -> dict[str, Any]:
    durations = np.sort(list(_lengths(rows).values()))
    first = rows.filter(pc.equal(rows["window"], 0))
    kinds = pc.struct_field(pc.list_flatten(first["captions"]), "kind").to_pylist()
    words = _words(first)
    return {
        "clips": len(durations),
        "samples": rows.num_rows,
        "hours": float(durations.sum() / 3600),
        "shortest_s": float(durations[0]),
        "median_s": float(np.median(durations)),
        "longest_s": float(durations[-1]),
        "rates": {str(rate): count for rate, count in sorted(Counter(rows["rate"].to_pylist()).items())},
        "source_rates": _rates(first, rates),
        "captions": dict(sorted(Counter(kinds).items())),
        "median_words": int(np.median(words)) if len(words) else 0,
        "licences": dict(Counter(licence or "not told" for licence in first["licence"].to_pylist()).most_common()),
    }
