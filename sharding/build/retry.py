"""``build --retry CLASS``: a finished build is reopened for the clips that failed with one error class."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build.reopening import reopen
from sharding.build.state import Marker
from sharding.catalogue.table import Catalogue
from sharding.checks import read_checked
from sharding.common.storage import Storage
from sharding.layout import Work, catalogue_name, work_of
from sharding.reports.facts import finished_facts
from sharding.rows import column, optional_column
from sharding.schema import CATALOGUE, MATCHES


def clips_that_failed(out: Storage, error: str) -> set[str]:
    """The clips of a finished build that failed with ``error``.  If there are none, print which errors there are."""
    facts = finished_facts(out, ["clip_id", "error"])
    chosen = set(column(facts.filter(pc.equal(facts["error"], error)), "clip_id", str))
    if not chosen:
        counts = Counter(value for value in optional_column(facts, "error", str) if value)
        classes = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) or "nothing"
        print(f"  retry: no clip failed with {error}; what failed: {classes}", file=sys.stderr, flush=True)
    return chosen


def clips_without_audio(out: Storage) -> set[str]:
    """The clips of a finished build whose audio file was not there."""
    facts = finished_facts(out, ["clip_id", "error"])
    return set(column(facts.filter(pc.equal(facts["error"], "missing")), "clip_id", str))


def retry_is_under_way(out: Storage, error: str) -> bool:
    """Whether a finished build is the result of a retry of this class that was killed before it had tidied up."""
    work = work_of(out)
    return work.exists(Work.KNOWN_MATCHES) and Marker.read(work).retry == error


def reopen_for_retry(out: Storage, error: str, chosen: set[str], now: Catalogue) -> None:
    """Reopen a finished build for ``chosen`` alone; the catalogue rows of all other clips stay as they are.

    Args:
        out: the storage of OUT.
        error: the error class with which the clips failed.
        chosen: the clips that are tried again.
        now: the catalogue as the published tables read now.
    """
    ids = pa.array(sorted(chosen), pa.string())
    facts = finished_facts(out)
    kept = facts.filter(pc.invert(pc.is_in(facts["clip_id"], ids)))
    today = {row["clip_id"]: row for row in now.table.filter(pc.is_in(now.table["clip_id"], ids)).to_pylist()}
    parts = [_with_rows_of_today(read_checked(out, catalogue_name(dataset), CATALOGUE), today) for dataset in now.notes]
    catalogue = Catalogue(pa.concat_tables(parts), now.orphans, now.notes)
    settings = work_of(out).read_json(Work.SETTINGS)
    reopen(out, kept, read_checked(out, layout.MATCHES, MATCHES), catalogue, settings, error)


def _with_rows_of_today(former: pa.Table, today: Mapping[str, dict[str, Any]]) -> pa.Table:
    """The former rows, in their order; the rows in ``today`` replace those of the same clips."""
    former = former.cast(CATALOGUE)  # Parquet names the items of lists differently
    wanted = pc.is_in(former["clip_id"], pa.array(sorted(today), pa.string()))
    if not pc.any(wanted, min_count=0).as_py():
        return former
    rows = former.to_pylist()
    return pa.Table.from_pylist([today.get(row["clip_id"], row) for row in rows], CATALOGUE)
