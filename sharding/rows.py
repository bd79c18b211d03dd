"""Typed access to Arrow tables: whole rows as named tuples, single columns as lists.

A row type is a ``NamedTuple`` whose fields are columns.  It may name any subset of a table's columns in any order, and
only these are read, so a function that needs two columns declares a row type of two fields in its own module.  The row
types below cover whole tables of ``sharding.schema``.  Values inside a column (captions, windows, an interval) are
dictionaries, as Arrow gives them; the ``TypedDict`` classes name their keys.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError

_BATCH = 8192  # rows that are turned into Python objects at once
Row = TypeVar("Row", bound=tuple[Any, ...])
Value = TypeVar("Value", str, int, float, bool, bytes)


class Caption(TypedDict):
    """A value of CAPTION."""

    text: str
    kind: str
    onset: float | None
    offset: float | None
    source: str | None


class Interval(TypedDict):
    """A value of INTERVAL."""

    start: float | None
    end: float | None


class Difference(TypedDict):
    """A value of DIFFERENCE."""

    clip_id: str
    start_s: float
    duration_s: float
    low_hz: float
    high_hz: float
    above_db: float


class Window(TypedDict):
    """A value of WINDOW."""

    window: int
    start_s: float
    duration_s: float
    pack: str
    offset: int
    bytes: int
    sha256: str


class CatalogueRow(NamedTuple):
    """A row of CATALOGUE."""

    clip_id: str
    dataset: str
    part: str
    split: str
    path: str | None
    problem: str | None
    captions: list[Caption]
    identity: str | None
    interval: Interval | None
    licence: str | None
    uploader: str | None
    title: str | None
    keywords: list[str]
    published_duration_s: float | None
    notes: list[str]


class FactsRow(NamedTuple):
    """A row of FACTS; where ``error`` is set, what describes the sound is None."""

    clip_id: str
    error: str | None
    detail: str | None
    source_bytes: int | None
    source_sha256: str | None
    codec: str | None
    source_rate: int | None
    source_channels: int | None
    duration_s: float | None
    pcm_sha256: str | None
    peak: float | None
    rms: float | None
    bandwidth_hz: float | None
    copied: bool | None
    ext: str | None
    windows: list[Window]


class MatchRow(NamedTuple):
    """A row of MATCHES."""

    a: str
    b: str
    method: str
    offset_s: float | None
    overlap_s: float | None
    score: float | None
    outcome: str
    difference: Difference | None


class FateRow(NamedTuple):
    """A row of FATES."""

    clip_id: str
    fate: str
    reason: str
    other: str | None
    group: str
    kin: str
    keys: list[str]


class ManifestRow(NamedTuple):
    """A row of MANIFEST."""

    key: str
    clip_id: str
    window: int
    windows: int
    dataset: str
    split: str
    shard: str
    index: int  # type: ignore[assignment]  # in place of tuple.index, which no row needs
    audio: str
    audio_offset: int
    audio_bytes: int
    audio_sha256: str
    audio_xxh3: int | None
    json_offset: int
    json_bytes: int
    json_sha256: str
    rate: int
    start_s: float
    duration_s: float
    captions: list[Caption]
    group: str
    kin: str
    identity: str | None
    licence: str | None


def rows(table: pa.Table, row: type[Row]) -> Iterator[Row]:
    """Every row of a table, in order, with the columns that the row type names.

    Raises:
        InputError: a cell is empty whose field does not allow None; names column and row.
        TypeError: the table lacks a column, or has it with another type.
    """
    fields = _fields(row)
    for name, field in fields.items():
        if name not in table.column_names or not _agrees(field.kind, table.schema.field(name).type):
            raise TypeError(f"{row.__name__}.{name} is no column of the table, or has another type there")
        if not field.optional:
            _refuse_empty(table[name], name)
    make: Any = row
    for batch in table.select(list(fields)).to_batches(max_chunksize=_BATCH):
        yield from map(make._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def column(table: pa.Table, name: str, kind: type[Value]) -> list[Value]:
    """The values of a column in which no cell is empty; ``kind`` is the Python type of its values.

    Raises:
        InputError: a cell is empty; names column and row.
        TypeError: the column has another type.
    """
    values = optional_column(table, name, kind)
    _refuse_empty(table[name], name)
    return [value for value in values if value is not None]


def optional_column(table: pa.Table, name: str, kind: type[Value]) -> list[Value | None]:
    """The values of a column, None if a cell is empty.

    Raises:
        TypeError: the column has another type.
    """
    if not _agrees(kind, table.schema.field(name).type):
        raise TypeError(f"column {name} is of type {table.schema.field(name).type}, not {kind.__name__}")
    values: list[Value | None] = table[name].to_pylist()
    return values


def to_table(records: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """A table of rows whose fields are the columns of ``schema``, in its order."""
    columns = list(zip(*records, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema)


class _Field(NamedTuple):
    kind: Any  # the annotation without None
    optional: bool


@cache
def _fields(row: type[tuple[Any, ...]]) -> dict[str, _Field]:
    """The fields of a row type by name."""
    found = {}
    for name, hint in get_type_hints(row).items():
        choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kinds = [choice for choice in choices if choice is not types.NoneType]
        if len(kinds) != 1:
            raise TypeError(f"{row.__name__}.{name} must be one type, or one type and None")
        found[name] = _Field(kinds[0], len(choices) > 1)
    return found


def _agrees(kind: Any, arrow: pa.DataType) -> bool:
    """Whether the values of an Arrow type are Python values of ``kind``."""
    if get_origin(kind) is list:
        return pa.types.is_list(arrow) and _agrees(get_args(kind)[0], arrow.value_type)
    if kind in _SCALARS:
        return any(test(arrow) for test in _SCALARS[kind])
    return pa.types.is_struct(arrow) and list(get_type_hints(kind)) == [field.name for field in arrow]


_SCALARS: dict[Any, tuple[Any, ...]] = {
    str: (pa.types.is_string, pa.types.is_large_string),
    bytes: (pa.types.is_binary, pa.types.is_large_binary),
    bool: (pa.types.is_boolean,),
    int: (pa.types.is_integer,),
    float: (pa.types.is_floating,),
}


def _refuse_empty(values: pa.ChunkedArray, name: str) -> None:
    if values.null_count:
        empty = pc.index(pc.is_null(values), True).as_py()
        raise InputError(f"the column {name!r} has an empty cell", row=empty + 1, remedy="run `earshot verify`")
