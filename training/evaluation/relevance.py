"""Relevance tables: which clips are relevant to a query, where a query has several."""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sharding.common.errors import InputError


def read_relevance(text: str, file: object = None) -> dict[str, list[str]]:
    """Parse the table of relevant clips of DCASE 2025 task 6: each query and the file names of its relevant clips.

    Args:
        text: CSV with the columns ``query`` and ``audio_filenames``; the latter is written as a Python list.
        file: named in errors.
    """
    rows = csv.DictReader(io.StringIO(text))
    if rows.fieldnames is None or not {"query", "audio_filenames"} <= set(rows.fieldnames):
        raise InputError(
            "a relevance table has the columns query and audio_filenames", file=file, value=rows.fieldnames
        )
    table: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 2):
        try:
            names = ast.literal_eval(row["audio_filenames"])
        except (ValueError, SyntaxError) as error:
            raise InputError(
                "audio_filenames is not a list", file=file, row=number, value=row["audio_filenames"]
            ) from error
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise InputError("audio_filenames must be a list of names", file=file, row=number, value=names)
        known = table.setdefault(row["query"], [])
        known.extend(name for name in names if name not in known)
    if not table:
        raise InputError("the relevance table has no query", file=file)
    return table


def relevance_matrix(
    queries: Sequence[str], table: Mapping[str, Sequence[str]], columns: Mapping[str, int], file: object = None
) -> npt.NDArray[np.bool_]:
    """``[queries, clips]``, True where ``table`` names the clip for the query.

    Args:
        queries: the rows.
        table: from `read_relevance`; a name may have an extension, such as ``rain.wav``, or none.
        columns: the column of each clip, by the clip's name without an extension.
        file: named in errors.

    Raises:
        InputError: the table names clips that ``columns`` lacks.
    """
    matrix = np.zeros((len(queries), len(columns)), dtype=bool)
    unknown: list[str] = []
    for row, query in enumerate(queries):
        for name in table[query]:
            clip = name if name in columns else name.rpartition(".")[0]
            if clip in columns:
                matrix[row, columns[clip]] = True
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
    return matrix
