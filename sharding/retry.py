"""Trying the clips of one error class again: a finished build becomes one that lacks only them.

Sound that is known is not decoded again: the former shards become packs, and what reached no shard was kept in
a pack of its own when the build was committed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.catalogue import Catalogue
from sharding.manifest import Manifest
from sharding.schema import CATALOGUE, FACTS
from sharding.storage import Storage

KEPT = "facts/kept.parquet"  # below OUT/.build: facts that are not asked for again
KNOWN = "known.parquet"  # matches between those clips
_INTENT = "retry.json"
_FACTS = "reopened/facts.parquet"


def unwritten_pack(generation: int) -> str:
    """The file below ``OUT/.build/packs`` with the sound that reached no shard."""
    return f"unwritten-{generation}.pack"


def unwritten(facts: pa.Table, written: set[str]) -> Iterator[dict[str, Any]]:
    """Windows of decoded clips that reached no shard, in the order in which their pack holds them."""
    for row in facts.select(["clip_id", "error", "windows"]).to_pylist():
        if row["error"] is None and row["clip_id"] not in written:
            yield from row["windows"]


def read_facts(work: Storage) -> pa.Table:
    """All facts of a build, batch after batch; ``work`` is the storage of ``OUT/.build``."""
    names = work.list("facts")
    return pa.concat_tables([work.read_table(name) for name in names]) if names else FACTS.empty_table()


def choose(out: Storage, error: str) -> set[str]:
    """The clips of a finished build that failed with ``error``; where there is none, says what else failed."""
    facts = read_facts(out.child(".build"))
    chosen = set(facts.filter(pc.equal(facts["error"], error))["clip_id"].to_pylist())
    if not chosen:
        there = Counter(value for value in facts["error"].to_pylist() if value)
        classes = ", ".join(f"{name} ({count})" for name, count in sorted(there.items())) or "none: all are well"
        print(f"  retry: no clip is {error}; what failed: {classes}", file=sys.stderr, flush=True)
    return chosen


def reopen(out: Storage, chosen: set[str], now: Catalogue) -> None:
    """Turn a finished build into one whose stages have only ``chosen`` to do; killed anywhere, it can be repeated.

    Args:
        out: the storage of OUT.
        chosen: clips that are tried again.
        now: the catalogue as it reads today; the rows of ``chosen`` are taken from it, all others stay.
    """
    work = out.child(".build")
    if not work.exists(_INTENT):
        manifest = Manifest.open(out.url)
        marker = json.loads(work.read("catalogue.json"))
        facts = _repointed(read_facts(work), manifest.table, marker["generation"], chosen)
        work.write_table(_FACTS, facts)
        for dataset in marker["datasets"]:
            former = out.read_table(f"catalogue/{dataset}.parquet")
            work.write_table(f"reopened/catalogue/{dataset}.parquet", _mixed(former, now.of(dataset), chosen))
        work.write_table("reopened/orphans.parquet", now.orphans)
        work.write(KNOWN, out.read("matches.parquet"))
        shards = [shard["name"] for shard in manifest.dataset["shards"]]
        intent = {"shards": shards, "datasets": marker["datasets"], "generation": marker["generation"] + 1}
        work.write(_INTENT, json.dumps(intent).encode())
    finish_reopening(out)


def finish_reopening(out: Storage) -> None:
    """Go on with a reopening that was interrupted after it was decided; where there is none, nothing happens."""
    work = out.child(".build")
    if not work.exists(_INTENT):
        return
    intent = json.loads(work.read(_INTENT))
    out.remove("dataset.json")
    for shard in intent["shards"]:
        out.move(f"shards/{shard}", f".build/packs/former/{shard}")
    for name in ("plan.json", "catalogue.json"):
        work.remove(name)
    for name in ("matches.parquet", "fates.parquet"):
        out.remove(name)
    for folder in ("plan", "manifest", ".build/records", ".build/facts"):
        out.remove_tree(folder)
    work.write(KEPT, work.read(_FACTS))
    for dataset in intent["datasets"]:
        out.write(f"catalogue/{dataset}.parquet", work.read(f"reopened/catalogue/{dataset}.parquet"))
    out.write("orphans.parquet", work.read("reopened/orphans.parquet"))
    marker = {"datasets": intent["datasets"], "generation": intent["generation"]}
    work.write("catalogue.json", json.dumps(marker).encode())
    work.remove(_INTENT)
    work.remove_tree("reopened")


def _repointed(facts: pa.Table, manifest: pa.Table, generation: int, chosen: set[str]) -> pa.Table:
    """Facts without the chosen clips; every window lies where its sound will be once shards are packs."""
    places = {
        (row["clip_id"], row["window"]): (f"former/{row['shard']}", row["audio_offset"])
        for row in manifest.select(["clip_id", "window", "shard", "audio_offset"]).to_pylist()
    }
    written = {clip_id for clip_id, _ in places}
    offset = 0
    rows = facts.to_pylist()
    for row in rows:
        if row["error"] is not None:
            continue
        for window in row["windows"]:
            if row["clip_id"] in written:
                window["pack"], window["offset"] = places[row["clip_id"], window["window"]]
            else:
                window["pack"], window["offset"] = unwritten_pack(generation), offset
                offset += window["bytes"]
    return pa.Table.from_pylist([row for row in rows if row["clip_id"] not in chosen], FACTS)


def _mixed(former: pa.Table, now: pa.Table, chosen: set[str]) -> pa.Table:
    """The former rows, those of the chosen clips as they read today."""
    fresh = {row["clip_id"]: row for row in now.to_pylist() if row["clip_id"] in chosen}
    return pa.Table.from_pylist([fresh.get(row["clip_id"], row) for row in former.to_pylist()], CATALOGUE)
