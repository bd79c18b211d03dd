"""Every clip of every dataset before any decision."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.schema import CATALOGUE
from sharding.sources import SOURCES, generic
from sharding.sources.base import ORPHANS, SourceTables

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Catalogue:
    """The catalogue of a build.

    Attributes:
        table: CATALOGUE of all datasets, in the order of the registry, then generic sources by name.
        orphans: ORPHANS, audio files that belong to no row.
        notes: dataset to remarks about it as a whole.
    """

    table: pa.Table
    orphans: pa.Table
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, dataset: str) -> pa.Table:
        """The rows of one dataset."""
        return self.table.filter(pc.equal(self.table["dataset"], dataset))


def build_catalogue(roots: Mapping[str, str], generic_roots: Mapping[str, str] | None = None) -> Catalogue:
    """Read the tables of all datasets and find their audio, without opening any.

    Args:
        roots: published dataset (a name of ``sharding.sources.SOURCES``) to its folder, local or remote.
        generic_roots: name of a user's own dataset to its folder (see ``sharding.sources.generic``).

    Raises:
        InputError: a folder or table is missing or broken; names the file, the row, and what to do.
    """
    generic_roots = generic_roots or {}
    _check_names(roots, generic_roots)
    found: dict[str, SourceTables] = {}
    with _no_collection():
        for dataset, source in SOURCES.items():
            if dataset in roots:
                found[dataset] = _read(source.read, roots[dataset])
        for name in sorted(generic_roots):
            found[name] = _read(functools.partial(generic.read, name=name), generic_roots[name])
    table = pa.concat_tables([tables.catalogue for tables in found.values()] or [CATALOGUE.empty_table()])
    check_families(table)
    return Catalogue(
        table,
        pa.concat_tables([tables.orphans for tables in found.values()] or [ORPHANS.empty_table()]),
        {dataset: tables.notes for dataset, tables in found.items()},
    )


def _read(read: Callable[[Storage], SourceTables], root: str) -> SourceTables:
    """A dataset's tables; where its storage fails, the error says which."""
    try:
        return read(Storage(root))
    except OSError as error:
        remedy = "once that is mended, the same command goes on"
        raise InputError(f"reading failed: {error}", file=root, remedy=remedy) from error


def check_families(table: pa.Table) -> None:
    """Refuse datasets and splits whose shards would have one name: ``a-b`` with ``c``, and ``a`` with ``b-c``."""
    owners: dict[str, str] = {}
    for row in table.select(["dataset", "split"]).group_by(["dataset", "split"]).aggregate([]).to_pylist():
        name = f"{row['dataset']}/{row['split']}"
        other = owners.setdefault(f"{row['dataset']}-{row['split']}", name)
        if other != name:
            raise InputError(
                f"shards of {min(name, other)} and {max(name, other)} would have one name",
                remedy="give one of the datasets or splits another name",
            )


def check_protected(table: pa.Table, own: Iterable[str], protected: Iterable[tuple[str, str]]) -> None:
    """Refuse a protected split that one's own sources do not have: it would protect nothing, in silence."""
    for dataset, split in sorted(protected):
        if dataset in own:
            splits = sorted(table.filter(pc.equal(table["dataset"], dataset))["split"].unique().to_pylist())
            if split not in splits:
                raise InputError(
                    f"{dataset} has no such split to protect",
                    value=f"{dataset}/{split}",
                    remedy=f"it has {', '.join(splits)}",
                )


def part_counts(table: pa.Table) -> list[dict[str, Any]]:
    """One dict a part: clips, captions, audio, missing, out_of_root, ids, hours, published clips and captions."""
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
            "seconds": pc.fill_null(table["published_duration_s"], 0.0),
        }
    )
    names = flat.column_names[2:]
    sums = flat.group_by(["dataset", "part"], use_threads=False).aggregate(
        [([], "count_all"), *((name, "sum") for name in names)]
    )
    parts = []
    for row in sums.to_pylist():
        source = SOURCES.get(row["dataset"])
        published = source.published.get(row["part"]) if source else None
        parts.append(
            {
                "dataset": row["dataset"], "part": row["part"], "clips": row["count_all"],
                **{name: row[f"{name}_sum"] for name in names if name != "seconds"},
                "hours": round(row["seconds_sum"] / 3600, 2),
                "published_clips": published[0] if published else None,
                "published_captions": published[1] if published else None,
            }
        )  # fmt: skip
    return parts


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small objects without cycles: looking through them for cycles is a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_names(roots: Mapping[str, str], generic_roots: Mapping[str, str]) -> None:
    for dataset in roots:
        if dataset not in SOURCES:
            raise InputError(
                "not a published dataset", value=dataset, remedy=f"one of {', '.join(SOURCES)}, or --source NAME=FOLDER"
            )
    for name in generic_roots:
        if name in SOURCES:
            raise InputError("the name belongs to a published dataset", value=name, remedy="choose another name")
        if not _NAME.fullmatch(name):
            raise InputError("not a name for a dataset", value=name, remedy="use letters, digits, '_' and '-'")
