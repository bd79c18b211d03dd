"""The facts of a build: one row for each probed clip."""

from __future__ import annotations

import pyarrow as pa

from sharding.common.storage import Storage
from sharding.layout import SETTLED
from sharding.schema import FACTS


def read_facts(work: Storage, columns: list[str] = FACTS.names) -> pa.Table:
    """All facts of a build (or some ``columns``), batch after batch; ``work`` is the storage of ``OUT/.build``."""
    tables = [work.read_table(name, columns) for name in work.list("facts")]
    return pa.concat_tables(tables or [FACTS.empty_table().select(columns)])


def finished_facts(out: Storage, columns: list[str] = FACTS.names) -> pa.Table:
    """All facts, or some ``columns``; a finished build's as its ending would have left them, wherever it was killed."""
    work = out.child(".build")
    if out.exists("dataset.json") and work.exists(SETTLED):
        return work.read_table(SETTLED, columns)
    return read_facts(work, columns)
