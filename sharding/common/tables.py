"""CSV and JSON tables, read strictly: a defect is an InputError that names file, row, value and remedy."""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from sharding.common.errors import InputError

_BLOCK = 4 << 20  # bytes of JSON read at a time
_LONGEST_ITEM = 64 << 20  # characters; a longer item is a defect, not an item
_SPACE = re.compile(r"[ \t\r\n]*")
LONGEST_S = 1e9  # 31 years: no recording is longer, and no time in it is larger
_LONGEST_CELL = 1 << 17  # characters of a CSV cell: the limit of the csv module
FETCH_AGAIN = "download the file again; it is damaged"


def decode(data: bytes, file: str, encoding: str = "utf-8") -> str:
    """The text of a table, without a byte-order mark.

    Raises:
        InputError: the bytes are not in that encoding; names the line.
    """
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise InputError(
            "not a plain text table (it holds zero bytes, as UTF-16 does)",
            file=file, row=line, remedy=f"save it as {encoding.upper()}",
        )  # fmt: skip
    try:
        return data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not {encoding.upper()} text",
            file=file,
            row=data[: error.start].count(b"\n") + 1,
            value=data[error.start : error.start + 8],
            remedy=f"use the file as published, or convert it to {encoding.upper()}",
        ) from error


def csv_rows(
    text: str,
    file: str,
    required: Sequence[str],
    delimiter: str = ",",
    lines: Sequence[int] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line on which the row begins, the row by column) for each row that is not blank.

    Args:
        text: the whole table, header first.
        file: its name in errors.
        required: columns without which the table is refused.
        delimiter: between cells.
        lines: the line number of each line, where lines were joined before.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            row = _numbered(line, lines)
            remedy = "close the quotation mark, or " + FETCH_AGAIN
            if "field limit" in str(error) or "field larger" in str(error):
                remedy = (
                    f"shorten it to {_LONGEST_CELL:,} characters; if none is so long, a quotation mark is not closed"
                )
            raise InputError(f"not a CSV row ({error})", file=file, row=row, remedy=remedy) from error
        row, line = _numbered(line, lines), reader.line_num + 1
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            check_columns(header, required, file)
            continue
        if len(cells) != len(header):
            short = len(cells) < len(header)
            raise InputError(
                f"the row has {len(cells)} cells, the header {len(header)}",
                file=file,
                row=row,
                value=delimiter.join(cells)[:80],
                remedy=FETCH_AGAIN if short else f"put cells that hold {delimiter!r} in quotation marks",
            )
        yield row, dict(zip(header, cells, strict=True))
    if header is None:
        raise InputError("the table is empty", file=file, remedy=FETCH_AGAIN)


def _numbered(line: int, lines: Sequence[int] | None) -> int:
    """The line of the file; the csv module also ends lines at carriage returns, so it may count more than there are."""
    return lines[min(line, len(lines)) - 1] if lines else line


def check_columns(header: Sequence[str], required: Sequence[str], file: str) -> None:
    """Refuse a table that lacks a column, or has one twice."""
    lacking = [name for name in required if name not in header]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        what = f"the table has the column {twice[0]} twice"
        remedy = "leave one of them, or give them different names"
    elif lacking:
        what = f"the table lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
        names = ", ".join(required)
        remedy = f"name the columns in the first row: {names} must be there; a published dataset's table stays as it is"
        other = next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), None)
        if other is not None:
            remedy = f"put a comma between the cells, not {other!r}: save the table as CSV with commas"
    else:
        return
    raise InputError(what, file=file, row=1, value=",".join(header)[:120], remedy=remedy)


def json_items(stream: BinaryIO, file: str, key: str = "data") -> Iterator[tuple[int, Any]]:
    """(1-based number, item) of a JSON list, or of the list under ``key`` of a JSON object, one after another.

    The file is read in blocks, so a table of hundreds of megabytes needs the memory of one block.

    Raises:
        InputError: the file is cut off, not JSON, or has no such list.
    """
    text = _JsonText(stream, file)
    if text.peek() == "[":
        yield from text.items()
        return
    text.expect("{")
    found = False
    while text.peek() != "}":
        name = text.value()
        text.expect(":")
        if name == key:
            if text.peek() != "[":
                raise text.error(f"{key!r} is not a list")
            found = True
            yield from text.items()
        else:
            text.value()
        if text.peek() != "}":
            text.expect(",")
    if not found:
        raise InputError(f"the file holds no list {key!r}", file=file, remedy="use the published file")


def check_encodable(value: Any, file: str, row: int | None) -> None:
    """Refuse texts that hold half a surrogate pair, which JSON can spell and UTF-8 cannot encode.

    Raises:
        InputError: it names the file and the row.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        what = "the row holds half of a character (an unpaired surrogate)"
        raise InputError(
            what, file=file, row=row or None, value=json.dumps(value)[:120], remedy="correct the table"
        ) from error


class _JsonText:
    """A JSON file of which one block at a time is in memory; values are taken from its front.

    (The library ijson reads as much, but its errors name neither item nor value, and it replaces halves of surrogate
    pairs, which are reported here.)
    """

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self.stream, self.file = stream, file
        self.text, self.at, self.row, self.ended = "", 0, 0, False
        self.bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self.json = json.JSONDecoder()

    def error(self, what: str) -> InputError:
        return InputError(
            what, file=self.file, row=self.row or None, value=self.text[self.at : self.at + 60], remedy=FETCH_AGAIN
        )

    def more(self) -> bool:
        """Read another block; False at the end of the file."""
        if self.ended:
            return False
        block = self.stream.read(_BLOCK)
        self.ended = not block
        try:
            self.text = self.text[self.at :] + self.bytes.decode(block, final=self.ended)
        except UnicodeDecodeError as error:
            raise InputError(
                "not UTF-8 text", file=self.file, row=self.row or None, remedy="use the file as published"
            ) from error
        self.at = 0
        return True

    def peek(self) -> str:
        """The next character that is not a space; '' at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def expect(self, char: str) -> None:
        if self.peek() != char:
            raise self.error("the JSON is cut off" if self.peek() == "" else f"not JSON: {char!r} expected")
        self.at += 1

    def value(self) -> Any:
        """The next whole value."""
        self.peek()
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if len(self.text) - self.at > _LONGEST_ITEM:
                    raise self.error(f"not JSON ({error.msg})") from error
                if not self.more():
                    raise self.error(f"the JSON is cut off or broken ({error.msg})") from error
                continue
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
                raise self.error(f"not JSON ({error})") from error
            if end == len(self.text) and self.more():
                continue  # a number may go on in the next block
            if "\\u" in self.text[self.at : end]:
                check_encodable(value, self.file, self.row)
            self.at = end
            return value

    def items(self) -> Iterator[tuple[int, Any]]:
        """The items of the list that begins here."""
        self.expect("[")
        while self.peek() != "]":
            self.row += 1
            yield self.row, self.value()
            if self.peek() != "]":
                self.expect(",")
        self.at += 1
        self.row = 0


def keywords(cell: str) -> tuple[str, ...]:
    """Words separated by ``;``, or the words of a list that was written out as text (``"['Nature']"``)."""
    if cell.startswith("["):
        try:
            return tuple(str(word) for word in ast.literal_eval(cell))
        except (ValueError, SyntaxError, TypeError):
            return (cell,)
    return tuple(word for word in cell.split(";") if word.strip())


def seconds(cell: str | float | None) -> float | None:
    """A number of seconds; None if the cell holds none, or more than ``LONGEST_S``."""
    try:
        number = float(cell) if cell is not None else math.nan
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < LONGEST_S else None
