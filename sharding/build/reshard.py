"""The same samples in shards of another size: members are copied, nothing is decoded.

The result has the bytes of a build with that size, and every command treats it like such a build.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build.claim import Claim, claim
from sharding.build.finish import decoded_windows, shard_locations, with_locations, write_dataset
from sharding.build.inputs import noted_inputs
from sharding.build.state import settings_bytes
from sharding.common.errors import MEND, InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import Work, in_work, pack_name, plan_name, work_of
from sharding.reports.facts import finished_facts
from sharding.schema import MANIFEST, sample_key
from sharding.shards.agreement import require_agreement
from sharding.shards.contents import file_entry, require_whole, store_contents
from sharding.shards.manifest import Dataset, Manifest, SettingsRecord
from sharding.shards.plan import PlanSettings, lay_out
from sharding.shards.write import store_plan, write_shards

_MARKER = in_work(Work.RESHARD)
_CHUNK = 8192  # samples that are Python objects at once


def reshard(source_url: str, out_url: str, shard_bytes: int, runner: Runner) -> dict[str, Any]:
    """Copy the finished build at ``source_url`` into shards of ``shard_bytes`` at ``out_url``, or go on with that.

    Returns:
        ``out, plan, shards, samples, bytes``, and ``from`` (the shards that there were).

    Raises:
        InputError: no finished build, or one that is damaged or whose tables disagree; OUT holds something else.
    """
    PlanSettings(shard_bytes)
    source, out = Manifest.open(source_url), Storage(out_url)
    if out.url == source.storage.url:
        raise InputError("shards cannot be written over those that are read", file=out.url, remedy="name another --out")
    require_agreement(source)
    with claim(out) as held:
        _begin_or_resume(out, {"plan": source.dataset["plan"], "shard_bytes": shard_bytes})
        if not out.exists(layout.DATASET):
            _write(source, out, shard_bytes, runner, held)
        out.sweep()
        for folder in (Work.TASKS, Work.RECORDS):
            out.remove_tree(in_work(folder))
        store_contents(out)
    written = Manifest.open(out_url).dataset
    return {
        "out": out.url,
        "plan": written["plan"],
        "from": len(source.dataset["shards"]),
        "shards": len(written["shards"]),
        "samples": sum(shard["samples"] for shard in written["shards"]),
        "bytes": sum(shard["bytes"] for shard in written["shards"]),
    }


def _begin_or_resume(out: Storage, wanted: dict[str, Any]) -> None:
    """Make sure that OUT is empty, or holds this resharded build, finished or not."""
    contents = json.dumps(wanted, sort_keys=True).encode()
    if out.exists(_MARKER):
        out.sweep()
        if out.read(_MARKER) != contents:
            raise InputError(
                "another build was copied to this folder, or this build with another size of shards",
                file=out.url,
                remedy="choose an empty --out",
            )
        return
    if any(name != in_work(Work.LOCK) for name in out.sizes("")):
        raise InputError("the folder holds other files", file=out.url, remedy="choose an empty --out")
    out.write(_MARKER, contents)


def _write(source: Manifest, out: Storage, shard_bytes: int, runner: Runner, held: Claim) -> None:
    work = work_of(out)
    if not work.exists(Work.PLAN):
        about, _ = store_plan(_plan(source, shard_bytes), out)
        work.write(Work.PLAN, json.dumps(about).encode())
    plan = work.read_json(Work.PLAN)
    records = write_shards(
        plan["shards"],
        out,
        lambda function, items: held.guarded(runner.map(function, items)),
        functools.partial(Progress, watch=runner.watch),
        source.storage.child(layout.SHARDS),
    )
    _copy_rest(source, out, plan["shards"], shard_bytes)
    copied = [name for name in source.dataset["tables"] if not name.startswith(f"{layout.PLAN}/")]
    tables = {name: file_entry(out, name) for name in [*copied, *map(plan_name, plan["shards"])]}
    settings: SettingsRecord = {**source.dataset["settings"], "plan": {"shard_bytes": shard_bytes}}
    dataset: Dataset = {**source.dataset, "plan": plan["hash"], "settings": settings}
    write_dataset(out, dataset, tables, records)


def _plan(source: Manifest, shard_bytes: int) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows): the samples of each dataset and split in their order."""
    stems = pc.replace_substring_regex(source.table["shard"], r"-\d+\.tar$", "")
    for stem in sorted(pc.unique(stems).to_pylist()):
        rows = source.table.filter(pc.equal(stems, stem)).sort_by([("shard", "ascending"), ("index", "ascending")])
        yield from lay_out(stem, _samples(rows), shard_bytes)


def _samples(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.select(MANIFEST.names).to_batches(max_chunksize=_CHUNK):
        for row in batch.to_pylist():
            if row["key"] != sample_key(row["clip_id"], row["window"], row["windows"]):
                what = f"the key is not that of window {row['window']} of {row['clip_id']}"
                raise InputError(what, file=row["shard"], value=row["key"], remedy=MEND)
            location = {
                "pack": row["shard"],
                "pack_offset": row["audio_offset"],
                "pack_json_offset": row["json_offset"],
            }
            yield row | location | {"json": None}


def _copy_rest(source: Manifest, out: Storage, shards: list[str], shard_bytes: int) -> None:
    """Copy the tables, and the files from which a later retry, append or new plan continues, if the source has them."""
    storage = source.storage
    for name, entry in source.dataset["tables"].items():
        if not name.startswith(f"{layout.PLAN}/"):
            out.write(name, storage.read(name))
            if file_entry(out, name) != entry:
                raise InputError("damaged: not what dataset.json says", file=storage.name(name), remedy=MEND)
    if not storage.exists(in_work(Work.SETTINGS)):
        return
    require_whole(storage)
    facts = finished_facts(storage)
    locations = shard_locations(out, shards)
    packs: dict[str, None] = {}
    for clip_id, windows in decoded_windows(facts):
        for window in windows:
            packs[window["pack"]] = None
            locations.setdefault((clip_id, window["window"]), (window["pack"], window["offset"]))
    old = work_of(storage).child(Work.PACKS)
    for pack in filter(old.exists, packs):
        with out.writer(in_work(pack_name(pack))) as file, old.open(pack) as contents:
            while data := contents.read(8 << 20):
                file.write(data)
    out.write_table(in_work(Work.KEPT_FACTS), with_locations(facts, locations))
    for name in storage.list(in_work(Work.FINGERPRINTS)):
        out.write(name, storage.read(name))
    out.write_table(in_work(Work.INPUTS), noted_inputs(work_of(storage)))
    out.write(in_work(Work.MARKER), storage.read(in_work(Work.MARKER)))
    settings = storage.read_json(in_work(Work.SETTINGS))
    settings["plan"]["shard_bytes"] = shard_bytes
    out.write(in_work(Work.SETTINGS), settings_bytes(settings))
