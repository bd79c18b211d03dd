"""What a build's inputs are like, beside what became of each clip: ``OUT/overview.json``.

Remarks on the datasets, audio that is missing, what exclusion lists would have missed, and captions that
training and protected splits have in common.  All of it is reported and decides nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.catalogue.shared_captions import shared_captions
from sharding.catalogue.table import part_counts
from sharding.common.storage import Storage
from sharding.layout import OVERVIEW
from sharding.settings import BuildSettings
from sharding.sources.exclusion import list_report, listed, read_exclusion_list
from sharding.sources.protected import NEVER_LISTED

EXAMPLES = 40  # of anything that is listed


def overview(catalogue: pa.Table, notes: Mapping[str, Sequence[str]], settings: BuildSettings) -> dict[str, Any]:
    """Plain JSON about a catalogue.

    ``notes`` (dataset: remarks), ``parts`` (clips, captions, audio, missing, hours, published counts, of each part),
    ``lists`` (what each exclusion list lacks, split by split), ``listed`` (list: clips that it names) and
    ``shared_captions`` (``captions``, ``training`` and ``protected`` clips, and ``examples``).
    """
    lists = [read_exclusion_list(str(path)) for path in settings.exclude]
    shared = shared_captions(catalogue, settings.fates.protect)
    report = [
        {**row, "missed_ids": row["missed_ids"][:EXAMPLES]}
        for row in list_report(catalogue, lists, catalogue["dataset"].unique().to_pylist())
        if _worth_telling(row, settings)
    ]
    return {
        "notes": {dataset: list(remarks) for dataset, remarks in sorted(notes.items())},
        "parts": part_counts(catalogue),
        "lists": report,
        "listed": dict(Counter(listed(catalogue, lists).values())),
        "shared_captions": {
            "captions": shared.num_rows,
            "training": len(pc.unique(pc.list_flatten(shared["training"]))),
            "protected": len(pc.unique(pc.list_flatten(shared["protected"]))),
            "examples": _examples(shared),
        },
    }


def _worth_telling(row: dict[str, Any], settings: BuildSettings) -> bool:
    """A list is judged by the splits that must not leak, and by the datasets that such lists are made for."""
    return row["dataset"] in NEVER_LISTED or (row["dataset"], row["part"]) in settings.fates.protect


def _examples(shared: pa.Table) -> list[dict[str, Any]]:
    """Those that most clips have, each with a clip of either side."""
    counts = pc.add(pc.list_value_length(shared["training"]), pc.list_value_length(shared["protected"]))
    order = pc.sort_indices(
        pa.table({"count": counts, "caption": shared["caption"]}),
        [("count", "descending"), ("caption", "ascending")],
    )
    return [
        {
            "caption": row["caption"],
            "training": len(row["training"]),
            "protected": len(row["protected"]),
            "training_clip": row["training"][0],
            "protected_clip": row["protected"][0],
        }
        for row in shared.take(order[:EXAMPLES]).to_pylist()
    ]


def read_overview(storage: Storage) -> dict[str, Any]:
    """``overview.json`` of a build; InputError where it is damaged."""
    return storage.read_json(OVERVIEW)


def overview_bytes(about: dict[str, Any]) -> bytes:
    """``overview.json`` as it is written."""
    return json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False).encode()
