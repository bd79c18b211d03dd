"""Every clip of every dataset before any decision."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.rows import rows
from sharding.schema import CATALOGUE
from sharding.sources import DATASETS, generic
from sharding.sources.base import ORPHANS, DatasetTables

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@dataclass(frozen=True)
class Catalogue:
    """The catalogue of a build.

    Attributes:
        table: CATALOGUE of all datasets: published ones in the order of the registry, then users' own by name.
        orphans: ORPHANS, audio files that belong to no row.
        notes: dataset to remarks about it as a whole.
    """

    table: pa.Table
    orphans: pa.Table
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, dataset: str) -> pa.Table:
        """The rows of one dataset."""
        return self.table.filter(pc.equal(self.table["dataset"], dataset))


def build_catalogue(
    roots: Mapping[str, str],
    generic_roots: Mapping[str, str] | None = None,
    follow_links: bool = False,
    split_seed: int | None = None,
) -> Catalogue:
    """Read the tables of all datasets and find their audio, without opening any.

    Args:
        roots: published dataset (a name of ``sharding.sources.DATASETS``) to its folder, local or remote.
        generic_roots: name of a user's own dataset to its folder (see ``sharding.sources.generic``).
        follow_links: whether links that lead out of a dataset's folder are followed; else such audio is out_of_root.
        split_seed: by which users' own datasets without splits are split at random; None: they are one split.

    Raises:
        InputError: a folder or table is missing or broken; names the file, the row, and what to do.
    """
    generic_roots = generic_roots or {}
    _check_names(roots, generic_roots)
    found: dict[str, DatasetTables] = {}
    with _without_garbage_collection():
        for name, dataset in DATASETS.items():
            if name in roots:
                found[name] = _read(dataset.read, Storage(roots[name], follow_links))
        for name in sorted(generic_roots):
            read = functools.partial(generic.read, name=name, split_seed=split_seed)
            found[name] = _read(read, Storage(generic_roots[name], follow_links))
    table = pa.concat_tables([tables.catalogue for tables in found.values()] or [CATALOGUE.empty_table()])
    check_shard_names(table)
    return Catalogue(
        table,
        pa.concat_tables([tables.orphans for tables in found.values()] or [ORPHANS.empty_table()]),
        {name: tables.notes for name, tables in found.items()},
    )


def _read(read: Callable[[Storage], DatasetTables], root: Storage) -> DatasetTables:
    """A dataset's tables; a failure of its storage becomes an InputError that names the folder."""
    try:
        return read(root)
    except OSError as error:
        remedy = "repair the storage, then run the same command again; it continues"
        raise InputError(f"reading failed: {error}", file=root.url, remedy=remedy) from error


class _Split(NamedTuple):
    dataset: str
    split: str


def check_shard_names(table: pa.Table) -> None:
    """Refuse two splits whose shards would have one name, such as ``a-b/c`` and ``a/b-c``."""
    owners: dict[str, str] = {}
    for dataset, split in rows(table.group_by(["dataset", "split"]).aggregate([]), _Split):
        name = f"{dataset}/{split}"
        other = owners.setdefault(f"{dataset}-{split}", name)
        if other != name:
            raise InputError(
                f"shards of {min(name, other)} and {max(name, other)} would have one name",
                remedy="give one of the datasets or splits another name",
            )


def check_protected(table: pa.Table, own: Iterable[str], protected: Iterable[tuple[str, str]]) -> None:
    """Refuse a protected split that a user's own dataset does not have, because it would protect nothing.

    Args:
        table: CATALOGUE.
        own: names of users' own datasets.
        protected: (dataset, split) that are to be protected.
    """
    for dataset, split in sorted(protected):
        if dataset in own:
            splits = sorted(table.filter(pc.equal(table["dataset"], dataset))["split"].unique().to_pylist())
            if split not in splits:
                raise InputError(
                    f"{dataset} has no such split to protect",
                    value=f"{dataset}/{split}",
                    remedy=f"name one of its splits: {', '.join(f'{dataset}/{each}' for each in splits)}",
                )


class PartCounts(TypedDict):
    """What the catalogue has of one part of a dataset, beside the counts that were published (None: not known)."""

    dataset: str
    part: str
    clips: int
    captions: int
    audio: int  # clips whose audio file was found
    missing: int
    out_of_root: int
    ids: int  # clips with an identity
    noted: int  # clips with a remark
    hours: float | None  # of sound, by the decoded durations, or before decoding by the published ones; None: not known
    published_clips: int | None
    published_captions: int | None


def part_counts(table: pa.Table, facts: pa.Table | None = None) -> list[PartCounts]:
    """Counts of every part of every dataset of a CATALOGUE; ``facts`` are FACTS, or None before anything is decoded."""
    seconds = table["published_duration_s"]
    if facts is not None:
        seconds = facts["duration_s"].take(pc.index_in(table["clip_id"], facts["clip_id"].combine_chunks()))
    flat = pa.table(
        {
            "dataset": table["dataset"],
            "part": table["part"],
            "captions": pc.fill_null(pc.list_value_length(table["captions"]), 0),
            "audio": pc.cast(pc.is_valid(table["path"]), pa.int64()),
            "missing": pc.cast(pc.fill_null(pc.equal(table["problem"], "missing"), False), pa.int64()),
            "out_of_root": pc.cast(pc.fill_null(pc.equal(table["problem"], "out_of_root"), False), pa.int64()),
            "ids": pc.cast(pc.is_valid(table["identity"]), pa.int64()),
            "noted": pc.cast(pc.greater(pc.list_value_length(table["notes"]), 0), pa.int64()),
            "seconds": seconds,
        }
    )
    unless_unknown = pc.ScalarAggregateOptions(min_count=1)  # the sum is null where no value is known
    sums = flat.group_by(["dataset", "part"], use_threads=False).aggregate(
        [([], "count_all"), *((name, "sum", unless_unknown) for name in flat.column_names[2:])]
    )
    parts: list[PartCounts] = []
    for row in sums.to_pylist():
        dataset = DATASETS.get(row["dataset"])
        published = dataset.published.get(row["part"]) if dataset else None
        parts.append(
            {
                "dataset": row["dataset"], "part": row["part"], "clips": row["count_all"],
                "captions": row["captions_sum"], "audio": row["audio_sum"], "missing": row["missing_sum"],
                "out_of_root": row["out_of_root_sum"], "ids": row["ids_sum"], "noted": row["noted_sum"],
                "hours": None if row["seconds_sum"] is None else round(row["seconds_sum"] / 3600, 4),
                "published_clips": published[0] if published else None,
                "published_captions": published[1] if published else None,
            }
        )  # fmt: skip
    return parts


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles: among millions of small objects it would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_names(roots: Mapping[str, str], generic_roots: Mapping[str, str]) -> None:
    for dataset in roots:
        if dataset not in DATASETS:
            raise InputError(
                "not a published dataset",
                value=dataset,
                remedy=f"one of {', '.join(DATASETS)}, or --source NAME=FOLDER",
            )
    for name in generic_roots:
        if name in DATASETS:
            raise InputError("the name belongs to a published dataset", value=name, remedy="choose another name")
        if not _NAME.fullmatch(name):
            raise InputError(
                "not a name for a dataset", value=name, remedy="use at most 80 letters, digits, '_' and '-'"
            )
