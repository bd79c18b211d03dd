"""Going on with what a folder holds: nothing, a build of these settings, or one that is turned into another.

A build is *reopened* where some of its clips are tried again (``build --retry``) or where it is planned anew
(``build --new-plan``).  Sound that is known is not decoded again: where the former build was finished, its shards
become packs, and what reached no shard was kept in a pack of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.catalogue.table import Catalogue
from sharding.common.errors import InputError
from sharding.common.storage import Entry, Storage
from sharding.layout import Work, catalogue_name, pack_name, work_of
from sharding.reports.facts import finished_facts
from sharding.schema import CATALOGUE
from sharding.shards.manifest import Manifest

_CLOCKS_S = 300.0  # by which the clocks of two storages may differ
_INTENT = "reopen.json"


def settle(out: Storage, settings: dict[str, Any], new_plan: bool, sources: Callable[[], Catalogue]) -> None:
    """Make sure that OUT is empty, or holds a build of these settings, finished or not.

    Args:
        out: the storage of OUT.
        settings: ``BuildSettings.as_dict()``.
        new_plan: a build of other settings, or of inputs that have changed since, or one that was appended to (whose
            old fates no new clip changed), makes way; what its probe found stays where that still holds.
        sources: reads the catalogue as it is today.

    Raises:
        InputError: other settings, unless ``new_plan`` allows them; or no build's files.
    """
    work = work_of(out)
    work.sweep()
    if not work.exists(Work.SETTINGS):
        if any(not layout.is_work(name) for name in out.sizes("")):
            what = "holds files that no build wrote"
            if out.exists(layout.DATASET):
                what = "is a finished build without its .build folder: it can be read, but not gone on with"
            raise InputError(what, file=out.url, remedy="choose an empty --out")
        _begin(out, settings)
        return
    out.sweep()
    finish_reopening(out)
    former = work.read_json(Work.SETTINGS)
    if not former or not (work.exists(Work.MARKER) or out.exists(layout.DATASET)):
        _begin(out, settings)  # nothing was built: its datasets could not be read, or a build was being removed
        return
    found = sorted(differences(former, settings))
    if found and not new_plan:
        raise InputError(
            "there is a build with other settings here:\n    " + "\n    ".join(found),
            file=out.url,
            remedy="use those settings, another --out, or --new-plan to decide anew (known sound is kept)",
        )
    if not new_plan or not (found or out.exists(layout.DATASET)):
        return
    now = sources()  # what cannot be read is refused before anything is removed
    if former["probe"] != settings["probe"] or not work.exists(Work.MARKER):
        _begin(out, settings)
        return
    facts = finished_facts(out)
    kept = _unchanged(facts, out, former, settings, now.table)
    if found or out.exists(layout.DIFFERENCES) or _inputs_changed(out, facts, kept, now):
        _replan(out, former, settings, now, kept)


def settings_bytes(settings: dict[str, Any]) -> bytes:
    """``OUT/.build/settings.json`` as it is written."""
    return json.dumps(settings, indent=1, sort_keys=True).encode()


def differences(former: Any, now: Any, place: str = "") -> Iterator[str]:
    """One line for every setting that is not the same, e.g. ``plan.shard_bytes: 1000 there, 2000 now``."""
    if isinstance(former, dict) and isinstance(now, dict):
        for name in sorted(set(former) | set(now)):
            yield from differences(former.get(name), now.get(name), f"{place}.{name}" if place else name)
    elif former != now:
        yield f"{place}: {former!r} there, {now!r} now"


def _begin(out: Storage, settings: dict[str, Any]) -> None:
    """Remove what is there of a build, and leave nothing but the settings of another one."""
    work = work_of(out)
    work.write(Work.SETTINGS, settings_bytes({}))  # killed from here on, the former build is not gone on with
    _forget_stages(out)
    for folder in (Work.FINGERPRINTS, Work.PACKS, Work.REOPENED):
        out.remove_tree(layout.in_work(folder))
    work.write(Work.SETTINGS, settings_bytes(settings))


def _forget_stages(out: Storage) -> None:
    """Remove what stages wrote, all but sound; what tells that a stage or a shard is through goes first."""
    work = work_of(out)
    out.remove(layout.DATASET)
    for name in (Work.PLAN, Work.MARKER, Work.FINAL_FACTS, Work.KNOWN_MATCHES):
        work.remove(name)
    for name in (layout.MATCHES, layout.FATES, layout.ORPHANS, layout.OVERVIEW, layout.DIFFERENCES):
        out.remove(name)
    for folder in (Work.RECORDS, Work.TASKS, Work.FACTS, Work.ADDITION):
        work.remove_tree(folder)
    for folder in (layout.SHARDS, layout.PLAN, layout.MANIFESTS, layout.CATALOGUE, layout.REPORT):
        out.remove_tree(folder)


def _inputs_changed(out: Storage, facts: pa.Table, kept: pa.Table, now: Catalogue) -> bool:
    """Whether tables or recordings are not those any more of which the finished build at ``out`` was made."""
    for dataset in now.notes:
        former = out.read_table(catalogue_name(dataset)).cast(CATALOGUE)
        if not now.of(dataset).cast(CATALOGUE).equals(former):
            return True
    return kept.num_rows < facts["error"].null_count


def _replan(out: Storage, former: dict[str, Any], settings: dict[str, Any], now: Catalogue, kept: pa.Table) -> None:
    """Turn a build, finished or not, into an unfinished one of other settings that keeps what the probe found."""
    # hubs of common sounds are chosen by what is protected, and all places of a leak are sought where it is trimmed:
    # evidence of other settings may be other evidence
    same_rules = all(former["fates"].get(name) == settings["fates"].get(name) for name in ("protect", "leaks"))
    known = out.read_table(layout.MATCHES) if same_rules and out.exists(layout.MATCHES) else None
    reopen(out, kept, known, now, settings)


def _unchanged(
    facts: pa.Table, out: Storage, former: dict[str, Any], settings: dict[str, Any], now: pa.Table
) -> pa.Table:
    """Facts of clips that lie where they lay, whose bytes are the same, and that decoded well."""
    roots = {**settings["roots"], **settings["sources"]}
    stayed = {name for name, root in {**former["roots"], **former["sources"]}.items() if roots.get(name) == root}
    marker = work_of(out).read_json(Work.MARKER)
    paths: dict[str, str | None] = {}
    for dataset in stayed & set(marker["datasets"]):
        table = out.read_table(catalogue_name(dataset), ["clip_id", "path"])
        paths.update(zip(table["clip_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    places = {dataset: Storage(roots[dataset]) for dataset in stayed}
    entries = {dataset: place.entries() for dataset, place in places.items()}
    unchanged = set()
    columns = ("clip_id", "source_bytes", "source_sha256")
    known = {row[0]: row[1:] for row in zip(*(facts[name].to_pylist() for name in columns), strict=True)}
    since = work_of(out).entries()[Work.MARKER].changed - _CLOCKS_S
    for clip_id, dataset, path in zip(*(now[name].to_pylist() for name in ("clip_id", "dataset", "path")), strict=True):
        if path is None or clip_id not in known or paths.get(clip_id) != path:
            continue
        size, sha256 = known[clip_id]
        entry = _entry(places[dataset], entries[dataset], path)
        if entry.size == size and (entry.changed < since or sha256 == _sha256(places[dataset], path)):
            unchanged.add(clip_id)
    well = facts.filter(pc.is_null(facts["error"]))
    return well.filter(pc.is_in(well["clip_id"], pa.array(sorted(unchanged), pa.string())))


def _sha256(root: Storage, path: str) -> str:
    digest = hashlib.sha256()
    with root.open(path) as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _entry(root: Storage, entries: dict[str, Entry], path: str) -> Entry:
    """Of a file, or of a member of an archive; of the size -1 where there is none."""
    absent = Entry(-1, math.inf)
    archive = root.archive(path)
    if archive is None:
        return entries.get(path, absent)
    try:
        return Entry(root.size(path), entries[archive].changed)
    except (OSError, KeyError):
        return absent


def reopen(
    out: Storage,
    kept: pa.Table,
    known: pa.Table | None,
    now: Catalogue,
    settings: dict[str, Any],
    retry: str | None = None,
) -> None:
    """Turn a build into one whose stages have only to do what ``kept`` lacks; killed anywhere, it can be repeated.

    Args:
        out: the storage of OUT.
        kept: facts that stay.
        known: matches between their clips that stay; None: they are compared again.
        now: the catalogue that the build goes on with.
        settings: the settings that it goes on with.
        retry: the error class for whose sake this is done.
    """
    work = work_of(out)
    shards: list[str] = []
    if out.exists(layout.DATASET):  # shards become packs: what is damaged is not taken apart
        shards = [shard["name"] for shard in Manifest.open(out.url).dataset["shards"]]
    work.remove_tree(Work.REOPENED)
    work.write_table(f"{Work.REOPENED}/facts.parquet", kept)
    for dataset in now.notes:
        work.write_table(f"{Work.REOPENED}/{catalogue_name(dataset)}", now.of(dataset))
    work.write_table(f"{Work.REOPENED}/{layout.ORPHANS}", now.orphans)
    if known is not None:
        work.write_table(f"{Work.REOPENED}/{Work.KNOWN_MATCHES}", known)
    generation = work.read_json(Work.MARKER)["generation"] + 1
    intent = {
        "shards": shards,
        "known": known is not None,
        "marker": catalogue_marker(now, generation, retry),
        "settings": settings,
    }
    work.write(_INTENT, json.dumps(intent).encode())
    finish_reopening(out)


def catalogue_marker(catalogue: Catalogue, generation: int, retry: str | None = None) -> dict[str, Any]:
    """What ``OUT/.build/catalogue.json`` says.

    ``generation`` counts the reopenings and names what they add; ``retry`` is the error class that is tried again.
    """
    notes = {dataset: list(notes) for dataset, notes in catalogue.notes.items()}
    return {"datasets": sorted(notes), "generation": generation, "notes": notes, "retry": retry}


def finish_reopening(out: Storage) -> None:
    """Go on with a reopening that was interrupted after it was decided; where there is none, nothing happens."""
    work = work_of(out)
    if not work.exists(_INTENT):
        return
    intent = work.read_json(_INTENT)
    out.remove(layout.DATASET)
    for shard in intent["shards"]:
        out.move(layout.shard_name(shard), layout.in_work(pack_name(f"{Work.FORMER_SHARDS}/{shard}")))
    _forget_stages(out)
    kept = work.read_table(f"{Work.REOPENED}/facts.parquet")
    work.write_table(Work.KEPT_FACTS, kept)
    if intent["known"]:
        work.write(Work.KNOWN_MATCHES, work.read(f"{Work.REOPENED}/{Work.KNOWN_MATCHES}"))
    _forget_fingerprints(work, kept["clip_id"])
    for dataset in intent["marker"]["datasets"]:
        out.write(catalogue_name(dataset), work.read(f"{Work.REOPENED}/{catalogue_name(dataset)}"))
    out.write(layout.ORPHANS, work.read(f"{Work.REOPENED}/{layout.ORPHANS}"))
    work.write(Work.SETTINGS, settings_bytes(intent["settings"]))
    work.write(Work.MARKER, json.dumps(intent["marker"]).encode())
    work.remove(_INTENT)
    work.remove_tree(Work.REOPENED)


def _forget_fingerprints(work: Storage, kept: pa.ChunkedArray) -> None:
    """Fingerprints of clips that are probed again, or are gone, must not stand beside new ones."""
    for name in work.list(Work.FINGERPRINTS):
        ids = work.read_table(name, ["clip_id"])["clip_id"]
        stays = pc.is_in(ids, pa.array(kept.to_pylist(), pa.string()))
        if pc.all(stays, min_count=0).as_py():
            continue
        if pc.any(stays, min_count=0).as_py():
            work.write_table(name, work.read_table(name).filter(stays))
        else:
            work.remove(name)
