"""What comparing has found so far, kept in a folder, so that a killed build does not compare it again.

``candidates.parquet`` holds the result of the join, and each ``found-000000.parquet`` the results of further items, as
JSON.  They lie in a folder whose name is a digest of all that they depend on, so that other inputs or settings find
nothing there.  Files are written when a share of the work is done, not by the clock: a kill costs at most that share,
and what a build writes is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
import soxr

from sharding.checks import read_checked
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.dedup.candidates import CANDIDATE
from sharding.dedup.fingerprint import HOP_S, METHOD

FORMAT = 1  # raised where the files change, or where the same inputs lead to other findings
LEAST_S = 10.0  # of processor time, roughly, that one file holds
SHARE = 0.05  # of what was done before that one file holds
JOIN_H = 100.0  # hours of sound from which on the candidates are kept: joining them took about ten seconds

_CANDIDATES = pa.schema([("a", pa.uint32()), ("b", pa.uint32()), ("offset", pa.int32()), ("votes", pa.uint32())])
_FOUND = pa.schema([("item", pa.string()), ("found", pa.string())])


class Findings:
    """What is found, by the step and the item of work for which it was found.

    Args:
        folder: where it is kept, until the caller removes it; other digests are removed from it now.  None: nowhere.
        digest: names all that the findings depend on; see ``digest``.
    """

    def __init__(self, folder: Storage | None = None, digest: str = "") -> None:
        self._folder = None if folder is None else folder.child(digest)
        self._known: dict[str, str] = {}
        self._held: list[tuple[str, str]] = []
        self._held_s = self._done_s = 0.0
        self._files = 0
        if folder is not None and self._folder is not None:
            for other in {name.partition("/")[0] for name in folder.list()} - {digest}:
                folder.remove_tree(other)
            for name in self._folder.list():
                if name.startswith("found-"):
                    self._files = int(name[len("found-") :].partition(".")[0]) + 1
                    if (table := _whole_table(self._folder, name, _FOUND)) is not None:
                        self._known.update(zip(*(values.to_pylist() for values in table.columns), strict=True))

    def candidates(self, find: Callable[[], np.ndarray], hops: int) -> np.ndarray:
        """CANDIDATE rows: the kept ones, or those that ``find`` gives for so many ``hops``."""
        name = "candidates.parquet"
        if self._folder is None or hops * HOP_S < JOIN_H * 3600:
            return find()
        table = _whole_table(self._folder, name, _CANDIDATES) if self._folder.exists(name) else None
        if table is None:
            found = find()
            self._folder.write_table(name, pa.table([found[column] for column in _CANDIDATES.names], _CANDIDATES))
            return found
        found = np.empty(table.num_rows, CANDIDATE)
        for column in _CANDIDATES.names:
            found[column] = table[column].to_numpy()
        return found

    def known(self, step: str, item: Any) -> Any:
        """What was found for an item, as plain JSON; None where nothing is kept.  A second call gives None."""
        text = self._known.pop(_key(step, item), None) if self._known else None
        return None if text is None else json.loads(text)

    def keep(self, step: str, found: Iterable[tuple[Any, Any]], seconds: float) -> None:
        """Keep (item, plain JSON) that took so many seconds of processor time, roughly.

        A file is written once it holds a share of all that was found.
        """
        if self._folder is None:
            return
        self._held += ((_key(step, item), json.dumps(result)) for item, result in found)
        self._held_s += seconds
        if self._held_s >= max(LEAST_S, SHARE * self._done_s):
            columns = [pa.array(values, pa.string()) for values in zip(*self._held, strict=True)]
            self._folder.write_table(f"found-{self._files:06d}.parquet", pa.table(columns, _FOUND))
            self._files += 1
            self._done_s += self._held_s
            self._held, self._held_s = [], 0.0


def _whole_table(folder: Storage, name: str, schema: pa.Schema) -> pa.Table | None:
    """A table, or None where it is damaged: what it held is sought again."""
    try:
        return read_checked(folder, name, schema)
    except InputError:
        return None


def _key(step: str, item: Any) -> str:
    return hashlib.sha256(json.dumps([step, item]).encode()).hexdigest()[:32]


def digest(tables: Iterable[pa.Table], words: Iterable[str]) -> str:
    """A name for all values of some tables, for some words, and for the versions that findings depend on.

    Args:
        tables: their columns hold texts or numbers.
        words: settings and the like.
    """
    whole_digest = hashlib.sha256()
    versions = (np.__version__, scipy.__version__, soxr.__version__)
    whole_digest.update(json.dumps([FORMAT, METHOD, *versions, *words]).encode())
    for table in tables:
        whole = pa.table([_without_nulls(column) for column in table.columns], table.column_names).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as stream:
            stream.write_table(whole)
        whole_digest.update(sink.getvalue())
    return whole_digest.hexdigest()[:32]


def _without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values, with another one for null: what memory holds in place of a null is not defined."""
    return pc.fill_null(column, float("nan") if pa.types.is_floating(column.type) else "\0")
