"""The table of predictions that the DCASE challenge takes, written from scores and checked.

2025 (the baseline's ``predict.py``): a CSV whose first column ``index`` is the query and which has one column for each
audio file, by its name, with the similarity.  Before, a row was a query and the names of its ten best files.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sharding.common.errors import InputError
from training.evaluation.scores.files import ScoreFile

INDEX = "index"
LISTED = 10  # files of a query before 2025


def file_names(clips: Sequence[str], split: str, extension: str) -> list[str]:
    """The names of the clips' files, as their dataset publishes them; ``InputError`` where two are alike."""
    names = [clip.removeprefix(split + "/").rpartition("/")[2] + extension for clip in clips]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError("two clips have the same file name", value=twice)
    return names


def prediction_rows(scores: ScoreFile, names: Sequence[str]) -> Iterator[list[str]]:
    """The rows of a submission of 2025, the head first; each different query once, in the order of the scores."""
    yield [INDEX, *names]
    for query, row in _different_queries(scores):
        yield [query, *(repr(float(value)) for value in row)]


def ranked_rows(scores: ScoreFile, names: Sequence[str]) -> Iterator[list[str]]:
    """The rows of a submission before 2025; of equal scores, the earlier clip comes first."""
    yield ["caption", *(f"file_name_{place}" for place in range(1, LISTED + 1))]
    for query, row in _different_queries(scores):
        yield [query, *(names[item] for item in np.argsort(-row, kind="stable")[:LISTED])]


def _different_queries(scores: ScoreFile) -> Iterator[tuple[str, Any]]:
    """Each different query once, with its scores of all clips, in the order of the scores."""
    seen: set[str] = set()
    for first, block in scores.blocks():
        for number, row in enumerate(block):
            query = scores.questions.texts[first + number]
            if query not in seen:
                seen.add(query)
                yield query, row


def to_csv(rows: Iterator[list[str]]) -> str:
    """Rows as CSV, quoted where they must be."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def check_predictions(text: str, file: object, queries: Sequence[str], names: Sequence[str]) -> int:
    """Check a table of predictions against the rules of the 2025 challenge; returns its number of queries.

    Args:
        text: the CSV.
        file: named in errors.
        queries: those that it must have, each once.
        names: the audio files that it must have a column for.

    Raises:
        InputError: a query or a file is missing, unknown or there twice, or a value is not a finite number.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise InputError(f"not a CSV table ({error})", file=file) from error
    head = rows[0] if rows else []
    if not head or head[0] != INDEX:
        raise InputError(f"the first column is not called {INDEX}", file=file, row=1, value=head[:1])
    _same("audio files", head[1:], names, file)
    found = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise InputError(f"the row has {len(row)} cells, the head {len(head)}", file=file, row=number)
        for name, cell in zip(head[1:], row[1:], strict=True):
            if not _is_number(cell):
                raise InputError(f"the similarity to {name} is not a finite number", file=file, row=number, value=cell)
        found.append(row[0])
    _same("queries", found, list(dict.fromkeys(queries)), file)
    return len(found)


def _same(what: str, found: Sequence[str], wanted: Sequence[str], file: object) -> None:
    known, asked = set(found), set(wanted)
    for message, which in (("are missing", asked - known), ("are not asked for", known - asked)):
        if which:
            raise InputError(f"{len(which)} {what} {message}", file=file, value=min(which))
    if len(known) < len(found):
        twice = next(each for number, each in enumerate(found) if each in found[:number])
        raise InputError(f"{what} occur twice", file=file, value=twice)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
