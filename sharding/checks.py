"""Checks what is read from a build, because a file may be damaged, or made by somebody else.

JSON is compared with typed dictionaries.  Tables are compared with their schemas, and their values with what a build
can write: no empty cell where a value is needed, no number that is not finite, no negative size, no foreign name.
What passes can be used without further care; what does not is an ``InputError`` that names file, row and value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.schema import CATALOGUE, DIFFERENCE, DIFFERENCES, FACTS, FATES, INPUTS, MANIFEST, MATCHES, TASK, WINDOW

Shape = TypeVar("Shape")

SHA256 = r"[0-9a-f]{64}"
FATE_NAMES = ("written", "duplicate", "withheld", "filtered", "failed")
OUTCOMES = ("same", "different", "undecided")
KEY = r"[A-Za-z0-9_~+=-]+(@[0-9]{5,})?"
SHARD = r"[A-Za-z0-9_+=-]+-[0-9]{6,}\.tar"
_PACK = rf"[A-Za-z0-9-]+\.pack|(former/)?{SHARD}"
# Columns whose cells may be empty, by the table's columns
_OPTIONAL: Mapping[tuple[str, ...], Sequence[str]] = {
    tuple(CATALOGUE.names): ("path", "problem", "captions", "identity", "interval", "licence", "uploader", "title",
                             "keywords", "published_duration_s", "notes"),
    tuple(FACTS.names): [name for name in FACTS.names if name not in ("clip_id", "windows")],
    tuple(INPUTS.names): ("bytes",),
    tuple(MATCHES.names): ("offset_s", "overlap_s", "score", "difference"),
    tuple(FATES.names): ("other",),
    tuple(DIFFERENCES.names): ("other", "anew_other"),
    tuple(MANIFEST.names): ("audio_xxh3", "identity", "licence"),
    tuple(TASK.names): ("audio_xxh3", "identity", "licence", "json", "pack_json_offset"),
}  # fmt: skip
_LATER = ("audio_xxh3", "difference", "bytes")  # columns that tables of former formats lack; they are read as empty
_OPTIONAL_IN_CAPTIONS = ("onset", "offset", "source")


class Rule(NamedTuple):
    """A rule that every value of a column must satisfy.

    Attributes:
        holds: a column to booleans; null where a cell is empty.
        expected: the rule in words.
    """

    holds: Callable[[pa.Array], pa.Array]
    expected: str


def pattern(expression: str) -> Rule:
    """Text that the whole expression matches."""
    anchored = f"^(?:{expression})$"
    return Rule(lambda values: pc.match_substring_regex(values, anchored), f"text like {expression}")


def one_of(names: Sequence[str]) -> Rule:
    """A rule: the value is one of ``names``."""
    return Rule(lambda values: pc.is_in(values, pa.array(names)), f"one of {', '.join(names)}")


def between(least: float, most: float) -> Rule:
    """A number in a range; NaN is in none."""
    return Rule(
        lambda values: pc.and_(pc.greater_equal(values, least), pc.less_equal(values, most)),
        f"a number from {least:g} to {most:g}",
    )


_SIZE = between(0, 2**62)
_SECONDS = between(0.0, 1e9)
_SIGNED_SECONDS = between(-1e9, 1e9)
# A column has the same meaning in every table.
_RULES: Mapping[str, Rule] = {
    "key": pattern(KEY),
    "shard": pattern(SHARD),
    "pack": pattern(_PACK),
    "fate": one_of(FATE_NAMES),
    "outcome": one_of(OUTCOMES),
    "ext": pattern(r"[a-z0-9]{1,8}"),
    "rate": between(1, 10_000_000),
    "score": between(-1e9, 1e9),
    **dict.fromkeys(("audio_sha256", "json_sha256", "sha256", "source_sha256", "pcm_sha256"), pattern(SHA256)),
    **dict.fromkeys(("window", "windows", "index", "offset_bytes", "bytes", "source_bytes"), _SIZE),
    **dict.fromkeys(("audio_offset", "audio_bytes", "json_offset", "json_bytes", "pack_offset"), _SIZE),
    **dict.fromkeys(("start_s", "duration_s"), _SECONDS),
    **dict.fromkeys(("onset", "offset", "offset_s", "overlap_s"), _SIGNED_SECONDS),
    **dict.fromkeys(("low_hz", "high_hz"), between(0, 1e6)),
    "above_db": between(-1e3, 1e3),
}


def read_checked(storage: Storage, name: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a build, or some of its columns.

    Raises:
        InputError: it is damaged, has other columns than ``schema``, or a value that no build writes.
    """
    return check_table(storage.read_table(name, columns), schema, storage.name(name), columns)


def parse_checked(contents: bytes, schema: pa.Schema, file: str) -> pa.Table:
    """The same for a table whose bytes are read already."""
    try:
        table = pq.read_table(pa.BufferReader(contents))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"damaged: {error}", file=file, remedy=MEND) from error
    return check_table(table, schema, file)


def check_table(table: pa.Table, schema: pa.Schema, file: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table itself, with empty columns for those that its format did not have yet; see ``read_checked``."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    for name in set(_LATER) & set(wanted.names) - set(table.column_names):
        index = min(wanted.get_field_index(name), table.num_columns)
        table = table.add_column(index, wanted.field(name), pa.nulls(table.num_rows, wanted.field(name).type))
    found, expected = set(table.column_names), set(wanted.names)
    if found != expected:
        what = f"not this table: columns {sorted(expected - found)} are missing, {sorted(found - expected)} are unknown"
        raise InputError(what, file=file, remedy=MEND)
    for field in wanted:
        kind = table.schema.field(field.name).type
        if not _same_type(kind, field.type):
            what = f"not this table: column {field.name} has the type {kind} instead of {field.type}"
            raise InputError(what, file=file, remedy=MEND)
    optional = _OPTIONAL.get(tuple(schema.names), ())
    for field in wanted:
        _check_column(table[field.name], field, field.name not in optional, file)
    return table


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether two types are equal, whatever the items of lists are called: Parquet names them differently."""
    if pa.types.is_list(expected):
        return pa.types.is_list(found) and _same_type(found.value_type, expected.value_type)
    if pa.types.is_struct(expected):
        names = [field.name for field in expected]
        return (
            pa.types.is_struct(found)
            and [field.name for field in found] == names
            and all(_same_type(found.field(name).type, expected.field(name).type) for name in names)
        )
    return bool(found == expected)


def _check_column(values: pa.ChunkedArray, field: pa.Field, needed: bool, file: str) -> None:
    if needed and values.null_count:
        _refuse(pc.is_valid(values), values, f"{field.name} is empty", file)
    rule = _RULES.get(field.name)
    if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
        _check_structs(values, field, file)
    elif field.type == DIFFERENCE:
        for member in DIFFERENCE:
            _check_column(pc.struct_field(values.drop_null(), member.name), member, True, file)
    elif rule is not None and not pa.types.is_list(field.type):
        _refuse(pc.fill_null(rule.holds(values), True), values, f"{field.name} is not {rule.expected}", file)


def _check_structs(values: pa.ChunkedArray, field: pa.Field, file: str) -> None:
    """Captions and windows: every member of every item of the lists."""
    windows = field.type.value_type == WINDOW
    for chunk in values.chunks:
        items = chunk.flatten()
        if items.null_count:
            raise InputError(f"{field.name} has an empty item", file=file, remedy=MEND)
        for member in field.type.value_type:
            name = "offset_bytes" if windows and member.name == "offset" else member.name
            column = pa.chunked_array([items.field(member.name)])
            _check_column(
                column, pa.field(name, member.type), windows or member.name not in _OPTIONAL_IN_CAPTIONS, file
            )


def _refuse(holds: pa.ChunkedArray, values: pa.ChunkedArray, what: str, file: str) -> None:
    row = pc.index(holds, False).as_py()
    if row >= 0:
        raise InputError(what, file=file, row=row + 1, value=values[row].as_py(), remedy=MEND)


def checksummed_bytes(plain: Mapping[str, object]) -> bytes:
    """A JSON file with sorted keys and, as ``checksum``, the SHA-256 of all the rest."""
    rest = {name: value for name, value in plain.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return json.dumps(rest | {"checksum": checksum}, indent=1, sort_keys=True, ensure_ascii=False).encode()


def read_checksummed(storage: Storage, name: str) -> dict[str, Any]:
    """Read a JSON file that ``checksummed_bytes`` wrote.

    Raises:
        InputError: it does not match its checksum.
    """
    try:
        contents = storage.read(name)
        plain = json.loads(contents)
        # The bytes are compared, so that a change of white space counts as damage too.
        whole = isinstance(plain, dict) and contents == checksummed_bytes(plain)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise InputError("damaged: it does not match its own checksum", file=storage.name(name), remedy=MEND)
    return dict(plain)


def conform(value: Any, shape: type[Shape], file: str) -> Shape:
    """JSON that has the shape of a typed dictionary; keys that it does not name are allowed.

    Raises:
        InputError: a key is missing, or a value has another type; names the key.
    """
    if problem := _problem(value, shape, ""):
        raise InputError(f"not what Earshot writes: {problem}", file=file, remedy=MEND)
    return cast(Shape, value)


def _problem(value: Any, shape: Any, key: str) -> str | None:
    """What is wrong with a value, or None."""
    origin, inner = get_origin(shape), get_args(shape)
    if shape is Any:
        return None
    if origin is UnionType:
        return None if any(_problem(value, kind, key) is None for kind in inner) else f"{key} is {value!r:.60}"
    if is_typeddict(shape):
        if not isinstance(value, dict):
            return f"{key or 'the file'} is no object"
        hints = get_type_hints(shape)
        if missing := sorted(shape.__required_keys__ - set(value)):
            return f"{_below(key, missing[0])} is missing"
        there = [(name, kind) for name, kind in hints.items() if name in value]
        return next((p for name, kind in there if (p := _problem(value[name], kind, _below(key, name)))), None)
    if origin is dict:
        if not isinstance(value, dict):
            return f"{key} is no object"
        return next((p for name, one in value.items() if (p := _problem(one, inner[1], _below(key, name)))), None)
    if origin is list:
        if not isinstance(value, list):
            return f"{key} is no list"
        return next((p for n, one in enumerate(value) if (p := _problem(one, inner[0], f"{key}[{n}]"))), None)
    kind = NoneType if shape is None else shape
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return f"{key} is {value!r:.60}, not {kind.__name__}"
    return None


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
