"""Every clip of every dataset before any decision."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from sharding.errors import InputError
from sharding.schema import CATALOGUE
from sharding.sources import SOURCES, generic
from sharding.sources.base import ORPHANS, SourceTables
from sharding.storage import Storage

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
                found[dataset] = source.read(Storage(roots[dataset]))
        for name in sorted(generic_roots):
            found[name] = generic.read(Storage(generic_roots[name]), name)
    return Catalogue(
        pa.concat_tables([tables.catalogue for tables in found.values()] or [CATALOGUE.empty_table()]),
        pa.concat_tables([tables.orphans for tables in found.values()] or [ORPHANS.empty_table()]),
        {dataset: tables.notes for dataset, tables in found.items()},
    )


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
