"""CSV and JSON tables: what is refused, and how the message helps."""

from __future__ import annotations

import io

import pytest

from sharding.common.errors import InputError
from sharding.common.tables import csv_rows, decode, json_items, keywords, seconds


def refused_csv(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        list(csv_rows(text, "t.csv", ("a", "b")))
    assert caught.value.file == "t.csv" and caught.value.remedy
    return caught.value


def test_rows_name_the_line_on_which_they_begin() -> None:
    text = 'a,b\n1,"two\nlines"\n\n3,4\n'
    assert list(csv_rows(text, "t.csv", ("a",))) == [(2, {"a": "1", "b": "two\nlines"}), (5, {"a": "3", "b": "4"})]


@pytest.mark.parametrize(
    ("text", "what", "row"),
    [
        ("", "empty", None),
        ("a,c\n1,2\n", "lacks the column b", 1),
        ("a,b,b\n1,2,3\n", "column b twice", 1),
        ("a,b\n1\n", "1 cells, the header 2", 2),
        ("a,b\n1,2,3\n", "3 cells, the header 2", 2),
        ('a,b\n1,"open\n', "not a CSV row", 2),
        ("a,b\n1," + "x" * 131_073 + "\n", "field limit", 2),
    ],
)
def test_a_defect_of_a_csv_names_its_row(text: str, what: str, row: int) -> None:
    error = refused_csv(text)
    assert what in str(error) and error.row == row


def test_a_caption_that_is_too_long_for_a_cell_says_what_to_do() -> None:
    assert "131,072 characters" in str(refused_csv("a,b\n1," + "x" * 131_073 + "\n").remedy)


def test_text_in_another_encoding_names_the_line() -> None:
    assert decode("\ufeffé".encode(), "t.csv") == "é"
    with pytest.raises(InputError, match="not UTF-8") as caught:
        decode(b"a\n\xe9\n", "t.csv")
    assert caught.value.row == 2
    with pytest.raises(InputError, match="zero bytes"):
        decode("a,b".encode("utf-16"), "t.csv")


@pytest.mark.parametrize(
    "text", ['[1, {"a": 2}]', '{"n": 3, "data": [1, {"a": 2}], "m": []}', '\ufeff [ 1 ,{"a":2} ] ']
)
def test_items_of_a_list_or_of_the_list_under_a_key(text: str) -> None:
    assert list(json_items(io.BytesIO(text.encode()), "t.json")) == [(1, 1), (2, {"a": 2})]


@pytest.mark.parametrize(
    ("text", "what", "row"),
    [
        ('{"data": [1, 2', "cut off", 2),
        ('{"data": [1, nope]}', "broken", 2),
        ('{"data": {}}', "not a list", None),
        ('{"other": []}', "no list 'data'", None),
        ('{"data": [' + "[" * 100_000, "not JSON", 1),
        ("[" + "1" * 5000 + "]", "not JSON", 1),
        ("", "cut off", None),
    ],
)
def test_a_defect_of_a_json_table_names_its_item(text: str, what: str, row: int | None) -> None:
    with pytest.raises(InputError) as caught:
        list(json_items(io.BytesIO(text.encode()), "t.json"))
    assert what in str(caught.value) and caught.value.row == row and caught.value.file == "t.json"


def test_cells() -> None:
    assert keywords("rain; roof;;") == ("rain", " roof") and keywords("['Nature', 'Rain']") == ("Nature", "Rain")
    assert keywords("[not a list") == ("[not a list",)
    assert seconds("1.5") == 1.5 and seconds(-2) == -2.0
    assert [seconds(cell) for cell in ("", "nan", "inf", "1e10", "1e999", "soon", None, "9" * 5000)] == [None] * 8


def test_carriage_returns_alone_do_not_lose_count_of_joined_lines() -> None:
    (row, cells) = next(csv_rows("\r\ra,b\n1,2\n", "table.csv", ("a", "b"), lines=[1, 2]))
    assert (row, cells) == (2, {"a": "1", "b": "2"})
