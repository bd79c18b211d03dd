"""A description of a build's inputs: ``OUT/overview.json``.

It has remarks on the datasets, counts of missing audio, what the exclusion lists lack, and captions that occur in both
training and protected splits.  All of this is only reported; nothing is decided by it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from sharding.catalogue.shared_captions import shared_captions
from sharding.catalogue.table import PartCounts, part_counts
from sharding.checks import conform
from sharding.common.storage import Storage
from sharding.layout import OVERVIEW
from sharding.settings import BuildSettings
from sharding.sources.exclusion import UNLISTED, ListReport, list_report, listed, read_exclusion_list
from sharding.sources.protected import is_protected

EXAMPLES = 40  # entries of each list in overview.json


class SharedCaption(TypedDict):
    """A caption of training and protected clips: how many clips of each have it, and one of each."""

    caption: str
    training: int
    protected: int
    training_clip: str
    protected_clip: str


class SharedCaptions(TypedDict):
    """How many captions occur in training and in protected clips, in how many clips of each, and examples."""

    captions: int
    training: int
    protected: int
    examples: list[SharedCaption]


class Overview(TypedDict):
    """``overview.json``.

    Attributes:
        notes: dataset to remarks.
        parts: counts of each part.
        lists: what each exclusion list lacks, for each part.
        listed: exclusion list to the number of clips that it names.
        shared_captions: captions that occur in both training and protected splits.
    """

    notes: dict[str, list[str]]
    parts: list[PartCounts]
    lists: list[ListReport]
    listed: dict[str, int]
    shared_captions: SharedCaptions


def overview(
    catalogue: pa.Table, facts: pa.Table, notes: Mapping[str, Sequence[str]], settings: BuildSettings
) -> Overview:
    """The contents of ``overview.json``.

    Args:
        catalogue: CATALOGUE of all clips.
        facts: FACTS of all clips.
        notes: remarks about each dataset.
        settings: the settings of the build.
    """
    lists = [read_exclusion_list(str(path)) for path in settings.exclude]
    shared = shared_captions(catalogue, settings.fates.protect)
    report: list[ListReport] = [
        {**row, "missed_ids": row["missed_ids"][:EXAMPLES]}
        for row in list_report(catalogue, lists, catalogue["dataset"].unique().to_pylist())
        if _relevant(row, settings)
    ]
    return {
        "notes": {dataset: list(remarks) for dataset, remarks in sorted(notes.items())},
        "parts": part_counts(catalogue, facts),
        "lists": report,
        "listed": dict(Counter(listed(catalogue, lists).values())),
        "shared_captions": {
            "captions": shared.num_rows,
            "training": len(pc.unique(pc.list_flatten(shared["training"]))),
            "protected": len(pc.unique(pc.list_flatten(shared["protected"]))),
            "examples": _examples(shared),
        },
    }


def _relevant(row: ListReport, settings: BuildSettings) -> bool:
    """Whether a list should name the ids of a part: a protected split, or a dataset that such lists are made for."""
    return row["dataset"] in UNLISTED or is_protected(row["dataset"], row["part"], settings.fates.protect)


def _examples(shared: pa.Table) -> list[SharedCaption]:
    """The captions that most clips have."""
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


def read_overview(storage: Storage) -> Overview:
    """``overview.json`` of a build.

    Raises:
        InputError: it is damaged, or not what a build writes.
    """
    return conform(storage.read_json(OVERVIEW), Overview, storage.name(OVERVIEW))


def overview_bytes(about: Overview) -> bytes:
    """``overview.json`` as it is written."""
    return json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False).encode()
