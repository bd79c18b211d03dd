"""The same samples in shards of another size: members are copied, nothing is decoded.

What comes out is what a build with that size would have been, down to the byte, and can be gone on with like it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.build.claim import Claim, claim
from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest, dataset_bytes
from sharding.shards.plan import PlanSettings, lay_out
from sharding.common.progress import Progress
from sharding.layout import KEPT
from sharding.reports.facts import finished_facts
from sharding.build.reopening import settings_bytes
from sharding.common.runners import Runner
from sharding.schema import MANIFEST
from sharding.build.stages import decoded_windows, shard_places, table_entry, with_places
from sharding.common.storage import Storage
from sharding.layout import plan_name
from sharding.shards.write import store_plan, write_shards

_MARKER = ".build/reshard.json"
_CHUNK = 8192  # samples that are Python objects at once


def reshard(source_url: str, out_url: str, shard_bytes: int, runner: Runner) -> dict[str, Any]:
    """Copy the finished build at ``source_url`` into shards of ``shard_bytes`` at ``out_url``, or go on with that.

    Returns:
        ``out, plan, shards, samples, bytes``, and ``from`` (the shards that there were).

    Raises:
        InputError: no finished build, or one that is damaged; OUT holds something else.
    """
    PlanSettings(shard_bytes)
    source, out = Manifest.open(source_url), Storage(out_url)
    if out.url == source.storage.url:
        raise InputError("shards cannot be written over those that are read", file=out.url, remedy="another --out")
    with claim(out) as held:
        _settle(out, {"plan": source.dataset["plan"], "shard_bytes": shard_bytes})
        if not out.exists("dataset.json"):
            _write(source, out, shard_bytes, runner, held)
        out.sweep()
        for folder in ("tasks", "records"):
            out.remove_tree(f".build/{folder}")
    written = Manifest.open(out_url).dataset
    return {
        "out": out.url,
        "plan": written["plan"],
        "from": len(source.dataset["shards"]),
        "shards": len(written["shards"]),
        "samples": sum(shard["samples"] for shard in written["shards"]),
        "bytes": sum(shard["bytes"] for shard in written["shards"]),
    }


def _settle(out: Storage, wanted: dict[str, Any]) -> None:
    contents = json.dumps(wanted, sort_keys=True).encode()
    if out.exists(_MARKER):
        out.sweep()
        if out.read(_MARKER) != contents:
            raise InputError(
                "another build was resharded here, or to another size", file=out.url, remedy="choose an empty --out"
            )
        return
    if any(name != ".build/lock" for name in out.sizes("")):
        raise InputError("holds other files", file=out.url, remedy="choose an empty --out")
    out.write(_MARKER, contents)


def _write(source: Manifest, out: Storage, shard_bytes: int, runner: Runner, held: Claim) -> None:
    work = out.child(".build")
    if not work.exists("plan.json"):
        about, _ = store_plan(_plan(source, shard_bytes), out)
        work.write("plan.json", json.dumps(about).encode())
    plan = work.read_json("plan.json")
    records = write_shards(
        plan["shards"],
        out,
        lambda function, items: held.guarded(runner.map(function, items)),
        functools.partial(Progress, watch=runner.watch),
        source.storage.child("shards"),
    )
    _copy_rest(source, out, plan["shards"], shard_bytes)
    copied = [name for name in source.dataset["tables"] if not name.startswith("plan/")]
    tables = {name: table_entry(out, name) for name in [*copied, *map(plan_name, plan["shards"])]}
    settings = source.dataset["settings"]
    settings = settings | {"plan": settings["plan"] | {"shard_bytes": shard_bytes}}
    dataset = source.dataset | {"plan": plan["hash"], "settings": settings, "tables": tables, "shards": records}
    out.write("dataset.json", dataset_bytes(dataset))


def _plan(source: Manifest, shard_bytes: int) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows): the samples of each family in the order in which they stand."""
    stems = pc.replace_substring_regex(source.table["shard"], r"-\d+\.tar$", "")
    for family in sorted(pc.unique(stems).to_pylist()):
        rows = source.table.filter(pc.equal(stems, family)).sort_by([("shard", "ascending"), ("index", "ascending")])
        yield from lay_out(family, _samples(rows), shard_bytes)


def _samples(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.select(MANIFEST.names).to_batches(max_chunksize=_CHUNK):
        for row in batch.to_pylist():
            places = {"pack": row["shard"], "pack_offset": row["audio_offset"], "pack_json_offset": row["json_offset"]}
            yield row | places | {"json": None}


def _copy_rest(source: Manifest, out: Storage, shards: list[str], shard_bytes: int) -> None:
    """The tables; and what a later retry, append or plan goes on with, where the source has that."""
    storage = source.storage
    for name in source.dataset["tables"]:
        if not name.startswith("plan/"):
            out.write(name, storage.read(name))
    if not storage.exists(".build/settings.json"):
        return
    facts = finished_facts(storage)
    places = shard_places(out, shards)
    packs: dict[str, None] = {}
    for clip_id, windows in decoded_windows(facts):
        for window in windows:
            packs[window["pack"]] = None
            places.setdefault((clip_id, window["window"]), (window["pack"], window["offset"]))
    old = storage.child(".build/packs")
    for pack in filter(old.exists, packs):
        with out.writer(f".build/packs/{pack}") as file, old.open(pack) as contents:
            while data := contents.read(8 << 20):
                file.write(data)
    out.write_table(f".build/{KEPT}", with_places(facts, places))
    for name in storage.list(".build/fingerprints"):
        out.write(name, storage.read(name))
    out.write(".build/catalogue.json", storage.read(".build/catalogue.json"))
    settings = storage.read_json(".build/settings.json")
    settings["plan"]["shard_bytes"] = shard_bytes
    out.write(".build/settings.json", settings_bytes(settings))
