"""Typed access to the rows of tables."""

from typing import Any, NamedTuple, get_type_hints

import pyarrow as pa
import pytest

from sharding.common.errors import InputError
from sharding.rows import (
    Caption,
    CatalogueRow,
    FactsRow,
    FateRow,
    Interval,
    ManifestRow,
    MatchRow,
    Window,
    column,
    optional_column,
    rows,
    to_table,
)
from sharding.schema import CAPTION, CATALOGUE, FACTS, FATES, INTERVAL, MANIFEST, MATCHES, WINDOW

TABLES = [(CatalogueRow, CATALOGUE), (FactsRow, FACTS), (FateRow, FATES), (ManifestRow, MANIFEST), (MatchRow, MATCHES)]
MATCH = MatchRow("a/1", "b/2", "waveform", 0.5, 3.0, 0.9, "same", None)
UNKNOWN = MatchRow("a/1", "c/3", "identity", None, None, None, "undecided", None)


@pytest.mark.parametrize(("row", "schema"), TABLES)
def test_a_row_type_has_the_columns_of_its_table(row: Any, schema: pa.Schema) -> None:
    assert list(row._fields) == schema.names
    assert list(rows(schema.empty_table(), row)) == []  # a TypeError would say which type differs


@pytest.mark.parametrize(("value", "struct"), [(Caption, CAPTION), (Interval, INTERVAL), (Window, WINDOW)])
def test_a_value_type_has_the_fields_of_its_struct(value: Any, struct: pa.StructType) -> None:
    assert list(get_type_hints(value)) == [field.name for field in struct]


def test_rows_come_back_as_they_were_put_in() -> None:
    assert list(rows(to_table([MATCH, UNKNOWN], MATCHES), MatchRow)) == [MATCH, UNKNOWN]
    assert to_table([], MATCHES).equals(MATCHES.empty_table())


def test_rows_of_a_table_in_several_chunks_keep_their_order() -> None:
    table = pa.concat_tables([to_table([MATCH], MATCHES), to_table([UNKNOWN] * 9000, MATCHES)])
    assert list(rows(table, MatchRow)) == [MATCH] + [UNKNOWN] * 9000


def test_a_row_type_may_name_some_columns_in_its_own_order() -> None:
    class Pair(NamedTuple):
        outcome: str
        a: str

    assert list(rows(to_table([MATCH], MATCHES), Pair)) == [("same", "a/1")]


def test_an_empty_cell_where_a_value_is_needed_is_named() -> None:
    class Overlap(NamedTuple):
        overlap_s: float

    table = to_table([MATCH, UNKNOWN], MATCHES)
    with pytest.raises(InputError, match=r"'overlap_s' has an empty cell") as caught:
        list(rows(table, Overlap))
    assert caught.value.row == 2
    with pytest.raises(InputError, match=r"'overlap_s' has an empty cell"):
        column(table, "overlap_s", float)
    assert optional_column(table, "overlap_s", float) == [3.0, None]
    assert column(table, "a", str) == ["a/1", "a/1"]


def test_a_column_of_another_type_is_refused() -> None:
    class Wrong(NamedTuple):
        a: int

    class Absent(NamedTuple):
        size: int

    table = to_table([MATCH], MATCHES)
    for row in (Wrong, Absent):
        with pytest.raises(TypeError, match=r"\.(a|size) is no column"):
            list(rows(table, row))
    with pytest.raises(TypeError, match="column a is of type string, not int"):
        column(table, "a", int)
