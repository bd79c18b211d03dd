"""Relevance tables: which clips are relevant to a query, where a query has several."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from sharding.common.tables import csv_rows, decode
from training.evaluation.counting import Relevant

MOST_RELEVANT = 1e6  # a larger relevance is a slip, and sums of larger ones lose the small ones


def open_relevance(file: Path) -> dict[str, dict[str, float]]:
    """The table of a file; see `read_relevance`."""
    return read_relevance(_text_of(file), file)


def open_queries(file: Path) -> list[str]:
    """The queries of a CSV file with a column ``caption`` or ``query``."""
    found = []
    for number, row in csv_rows(_text_of(file), str(file), ()):
        column = next((name for name in ("caption", "query") if name in row), None)
        if column is None:
            raise InputError("a table of queries must have a column caption or query", file=file, value=list(row))
        if not row[column].strip():
            raise InputError("the query is empty", file=file, row=number)
        found.append(row[column])
    if not found:
        raise InputError("the table has no query", file=file)
    return found


def _text_of(file: Path) -> str:
    try:
        return decode(file.read_bytes(), str(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error


def read_relevance(text: str, file: object = None) -> dict[str, dict[str, float]]:
    """Parse a table of relevant clips, such as that of DCASE 2025 task 6.

    Args:
        text: CSV with the columns ``query`` and ``audio_filenames``, a Python list of file names, and perhaps
            ``relevances``, a list of as many numbers above 0: how relevant each clip is.  Without it, each is 1.
        file: named in errors.

    Returns:
        Each query, with the file names of its relevant clips and their relevance.
    """
    table: dict[str, dict[str, float]] = {}
    for number, row in csv_rows(text, str(file or "the relevance table"), ("query", "audio_filenames")):
        if not row["query"].strip():
            raise InputError("the query is empty", file=file, row=number)
        names = _list(row, "audio_filenames", str, file, number)
        grades = [1.0] * len(names)
        if row.get("relevances"):
            grades = _list(row, "relevances", (int, float), file, number)
        if len(grades) != len(names) or not all(0 < grade <= MOST_RELEVANT for grade in grades):
            raise InputError(
                f"relevances must be as many numbers above 0, up to {MOST_RELEVANT:g}, as there are file names",
                file=file,
                row=number,
                value=row.get("relevances"),
            )
        known = table.setdefault(row["query"], {})
        for name, grade in zip(names, grades, strict=True):
            known[name] = max(float(grade), known.get(name, 0.0))
    if not table:
        raise InputError("the relevance table has no query", file=file)
    return table


def _list(row: Mapping[str, str], column: str, kind: Any, file: object, number: int) -> list[Any]:
    """The list that is written in a cell, of values of one kind."""
    try:
        values = ast.literal_eval(row[column])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{column} is not a list", file=file, row=number, value=row[column]) from error
    if not isinstance(values, list) or not values or not all(isinstance(value, kind) for value in values):
        what = "names" if kind is str else "numbers"
        raise InputError(f"{column} must be a list of {what}", file=file, row=number, value=values)
    return values


def relevant_clips(
    queries: Sequence[str],
    table: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, int],
    file: object = None,
) -> Relevant:
    """Which clips ``table`` names for the queries, and how relevant they are.

    Args:
        queries: keys of the table; they are numbered from 0.
        table: from `read_relevance`; a name may have an extension, such as ``rain.wav``, or none.
        columns: the number of each clip, by the clip's name without an extension.
        file: named in errors.

    Raises:
        InputError: the table names clips that ``columns`` lacks.
    """
    query, item, gain = [], [], []
    unknown: list[str] = []
    for row, text in enumerate(queries):
        for name, relevance in table[text].items():
            clip = name if name in columns else name.rpartition(".")[0]
            if clip in columns:
                query.append(row)
                item.append(columns[clip])
                gain.append(relevance)
            elif name not in unknown:
                unknown.append(name)
    if unknown:
        clips = ", ".join(list(columns)[:3])
        raise InputError(
            f"{len(unknown)} clips of the relevance table are not in the split",
            file=file,
            value=", ".join(unknown[:3]),
            remedy=f"evaluate the split that the table is about; this one has clips such as {clips}",
        )
    return Relevant.of(query, item, gain)
