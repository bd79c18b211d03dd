"""Trying the clips of one error class again: a finished build becomes one that lacks only them."""

from __future__ import annotations

import sys
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from sharding.build.reopening import reopen
from sharding.catalogue.table import Catalogue
from sharding.common.storage import Storage
from sharding.layout import MATCHES, Work, catalogue_name, work_of
from sharding.reports.facts import finished_facts
from sharding.schema import CATALOGUE


def choose(out: Storage, error: str) -> set[str]:
    """The clips of a finished build that failed with ``error``; where there is none, says what else failed."""
    facts = finished_facts(out)
    chosen = set(facts.filter(pc.equal(facts["error"], error))["clip_id"].to_pylist())
    if not chosen:
        there = Counter(value for value in facts["error"].to_pylist() if value)
        classes = ", ".join(f"{name} ({count})" for name, count in sorted(there.items())) or "none: all are well"
        print(f"  retry: no clip is {error}; what failed: {classes}", file=sys.stderr, flush=True)
    return chosen


def interrupted(out: Storage, error: str) -> bool:
    """Whether a finished build is one whose retry of this class was killed before all was in order."""
    work = work_of(out)
    return work.exists(Work.KNOWN_MATCHES) and work.read_json(Work.MARKER)["retry"] == error


def retry_clips(out: Storage, error: str, chosen: set[str], now: Catalogue) -> None:
    """Reopen a finished build for ``chosen`` alone: their catalogue rows as they read today, all others as they were.

    Args:
        out: the storage of OUT.
        error: their class.
        chosen: clips that are tried again.
        now: the catalogue as it reads today.
    """
    work = work_of(out)
    facts = finished_facts(out)
    kept = facts.filter(pc.invert(pc.is_in(facts["clip_id"], pa.array(sorted(chosen), pa.string()))))
    fresh = now.table.filter(pc.is_in(now.table["clip_id"], pa.array(sorted(chosen), pa.string()))).to_pylist()
    today = {row["clip_id"]: row for row in fresh}
    parts = [_mixed(out.read_table(catalogue_name(dataset)), today) for dataset in now.notes]
    mixed = Catalogue(pa.concat_tables(parts), now.orphans, now.notes)
    settings = work.read_json(Work.SETTINGS)
    reopen(out, kept, out.read_table(MATCHES), mixed, settings, error)


def _mixed(former: pa.Table, today: dict[str, dict]) -> pa.Table:
    """The former rows, and those of the chosen clips as they read today, in their places."""
    former = former.cast(CATALOGUE)  # Parquet calls the items of lists something else
    wanted = pc.is_in(former["clip_id"], pa.array(sorted(today), pa.string()))
    if not pc.any(wanted, min_count=0).as_py():
        return former
    rows = former.to_pylist()
    return pa.Table.from_pylist([today.get(row["clip_id"], row) for row in rows], CATALOGUE)
