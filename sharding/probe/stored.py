"""What the probe found about clips, as the two tables that a batch and its steps are kept as."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sharding.checks import read_checked
from sharding.common.storage import Storage
from sharding.probe.clip import ProbedClip
from sharding.rows import FactsRow, column, rows, to_table
from sharding.schema import FACTS, FINGERPRINTS


def store_clips(build: Storage, facts: str, fingerprints: str, clips: Sequence[ProbedClip]) -> None:
    """Write the FINGERPRINTS and then the FACTS of clips to these files; once the facts exist, all of it exists."""
    _write_fingerprints(build, fingerprints, clips)
    build.write_table(facts, to_table([clip.facts for clip in clips], FACTS))


def load_clips(build: Storage, facts: str, fingerprints: str) -> list[ProbedClip]:
    """The clips of which these files were written."""
    table = read_checked(build, fingerprints, FINGERPRINTS)
    values = zip(*(column(table, name, bytes) for name in ("codes", "flags")), strict=True)
    found = dict(zip(column(table, "clip_id", str), values, strict=True))
    return [ProbedClip(row, found.get(row.clip_id)) for row in rows(read_checked(build, facts, FACTS), FactsRow)]


def _write_fingerprints(build: Storage, path: str, clips: Sequence[ProbedClip]) -> None:
    """Write the FINGERPRINTS of clips that have one.

    The table goes straight to the file, without copies or statistics: the row of an 18-hour recording takes 27 MB.
    """
    found = [(clip.facts.clip_id, *clip.fingerprint) for clip in clips if clip.fingerprint is not None]
    columns = [pa.array([clip_id for clip_id, _, _ in found], pa.string())]
    columns += [_binary([codes for _, codes, _ in found]), _binary([flags for _, _, flags in found])]
    table = pa.Table.from_arrays(columns, schema=FINGERPRINTS)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with build.writer(path) as file, pq.ParquetWriter(file, FINGERPRINTS, **plain) as parquet:
        parquet.write_table(table)


def _binary(values: Sequence[bytes]) -> pa.LargeBinaryArray:
    """A column of these values; pyarrow's own conversion would copy them once more."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
