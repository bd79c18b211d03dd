"""What a model was trained on, from the build that it was trained on: clips, hours, captions and licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from training.data.sampling.mixture import select_rows
from training.data.settings import DataSettings

UNKNOWN = "unknown"  # the licence of a clip whose dataset names none


@dataclass(frozen=True)
class Source:
    """One split that training drew from.

    Attributes:
        name: dataset/split.
        clips: how many of its clips have a caption of the kinds that training read.
        hours: their sound.
        captions: kinds of captions that training read.
        licences: how many of the clips have each licence, most first.
    """

    name: str
    clips: int
    hours: float
    captions: tuple[str, ...]
    licences: dict[str, int]


def training_sources(manifest: Any, data: DataSettings, plan: str | None) -> list[Source]:
    """The splits of a build that a recipe's mixture names.

    Args:
        manifest: the manifest of the build.
        data: the data section of the recipe.
        plan: the plan of the build that the model was trained on.

    Raises:
        InputError: the build is another one.
    """
    found = manifest.dataset.get("plan")
    if plan is not None and found != plan:
        raise InputError(
            "the model was trained on another build",
            file=manifest.storage.url,
            value=f"plan {str(found)[:12]}, the model's {plan[:12]}",
            remedy="name the build that training read",
        )
    return [
        _source(manifest.table, split, captions)
        for item in data.train
        for split, captions in _splits(manifest.table, item.split, tuple(item.captions))
    ]


def _splits(table: pa.Table, name: str, captions: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """The splits of an item, which may name a whole dataset."""
    rows = table.filter(pa.array(select_rows(table, name)))
    pairs = sorted(set(zip(rows["dataset"].to_pylist(), rows["split"].to_pylist(), strict=True)))
    return [(f"{dataset}/{split}", captions) for dataset, split in pairs]


def _source(table: pa.Table, name: str, captions: tuple[str, ...]) -> Source:
    rows = table.filter(pa.array(select_rows(table, name)))
    clips: dict[str, str] = {}
    seconds = 0.0
    for clip, written, licence, duration_s in zip(
        *(rows[column].to_pylist() for column in ("clip_id", "captions", "licence", "duration_s")), strict=True
    ):
        if any(caption["kind"] in captions for caption in written):
            clips[clip] = licence or UNKNOWN
            seconds += duration_s
    licences = dict(Counter(clips.values()).most_common())
    return Source(name, len(clips), round(seconds / 3600, 3), captions, licences)


def as_annotation(sources: Sequence[Source]) -> list[Any]:
    """The value of ``training_datasets`` in a model card."""
    return [
        {
            "name": source.name,
            "clips": source.clips,
            "hours": source.hours,
            "captions": list(source.captions),
            "licences": source.licences,
        }
        for source in sources
    ]
