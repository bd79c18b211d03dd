"""Reading the facts of a build: one row of FACTS for each probed clip."""

from __future__ import annotations

import pyarrow as pa

from sharding.checks import read_checked
from sharding.common.storage import Storage
from sharding.layout import DATASET, Work, work_of
from sharding.schema import FACTS


def read_facts(work: Storage, columns: list[str] = FACTS.names) -> pa.Table:
    """The facts that a build has so far, or some ``columns`` of them; ``work`` is the storage of ``OUT/.build``."""
    tables = [read_checked(work, name, FACTS, columns) for name in work.list(Work.FACTS)]
    return pa.concat_tables(tables or [FACTS.empty_table().select(columns)])


def finished_facts(out: Storage, columns: list[str] = FACTS.names) -> pa.Table:
    """The facts of a build, or some ``columns`` of them.

    Those of a finished build are the same wherever the builder was killed while it tidied up.
    """
    work = work_of(out)
    if out.exists(DATASET) and work.exists(Work.FINAL_FACTS):
        return read_checked(work, Work.FINAL_FACTS, FACTS, columns)
    return read_facts(work, columns)
