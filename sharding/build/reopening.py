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

from sharding.catalogue.table import Catalogue
from sharding.layout import catalogue_name
from sharding.common.errors import InputError
from sharding.common.listing import Entry
from sharding.shards.manifest import Manifest
from sharding.schema import CATALOGUE, FACTS
from sharding.common.storage import Storage
from sharding.layout import KEPT, SETTLED, KNOWN, FORMER, NEXT
from sharding.reports.facts import read_facts, finished_facts

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
    work = out.child(".build")
    work.sweep()
    if not work.exists("settings.json"):
        if any(not name.startswith(".build/") for name in out.sizes("")):
            what = "holds files that no build wrote"
            if out.exists("dataset.json"):
                what = "is a finished build without its .build folder: it can be read, but not gone on with"
            raise InputError(what, file=out.url, remedy="choose an empty --out")
        _begin(out, settings)
        return
    out.sweep()
    finish_reopening(out)
    former = work.read_json("settings.json")
    if not former or not (work.exists("catalogue.json") or out.exists("dataset.json")):
        _begin(out, settings)  # nothing was built: its datasets could not be read, or a build was being removed
        return
    found = sorted(differences(former, settings))
    if found and not new_plan:
        raise InputError(
            "there is a build with other settings here:\n    " + "\n    ".join(found),
            file=out.url,
            remedy="use those settings, another --out, or --new-plan to decide anew (known sound is kept)",
        )
    if not new_plan or not (found or out.exists("dataset.json")):
        return
    now = sources()  # what cannot be read is refused before anything is removed
    if former["probe"] != settings["probe"] or not work.exists("catalogue.json"):
        _begin(out, settings)
        return
    facts = finished_facts(out)
    kept = _unchanged(facts, out, former, settings, now.table)
    if found or out.exists("differences.parquet") or _inputs_changed(out, facts, kept, now):
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
    work = out.child(".build")
    work.write("settings.json", settings_bytes({}))  # killed from here on, the former build is not gone on with
    _forget_stages(out)
    for folder in ("fingerprints", "packs", NEXT):
        out.remove_tree(f".build/{folder}")
    work.write("settings.json", settings_bytes(settings))


def _forget_stages(out: Storage) -> None:
    """Remove what stages wrote, all but sound; what tells that a stage or a shard is through goes first."""
    work = out.child(".build")
    out.remove("dataset.json")
    for name in ("plan.json", "catalogue.json", SETTLED, KNOWN):
        work.remove(name)
    for name in ("matches.parquet", "fates.parquet", "orphans.parquet", "overview.json", "differences.parquet"):
        out.remove(name)
    for folder in ("records", "tasks", "facts", "append"):
        work.remove_tree(folder)
    for folder in ("shards", "plan", "manifest", "catalogue", "report"):
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
    known = out.read_table("matches.parquet") if same_rules and out.exists("matches.parquet") else None
    reopen(out, kept, known, now, settings)


def _unchanged(
    facts: pa.Table, out: Storage, former: dict[str, Any], settings: dict[str, Any], now: pa.Table
) -> pa.Table:
    """Facts of clips that lie where they lay, whose bytes are the same, and that decoded well."""
    roots = {**settings["roots"], **settings["sources"]}
    stayed = {name for name, root in {**former["roots"], **former["sources"]}.items() if roots.get(name) == root}
    marker = out.child(".build").read_json("catalogue.json")
    paths: dict[str, str | None] = {}
    for dataset in stayed & set(marker["datasets"]):
        table = out.read_table(catalogue_name(dataset), ["clip_id", "path"])
        paths.update(zip(table["clip_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    places = {dataset: Storage(roots[dataset]) for dataset in stayed}
    entries = {dataset: place.entries() for dataset, place in places.items()}
    unchanged = set()
    columns = ("clip_id", "source_bytes", "source_sha256")
    known = {row[0]: row[1:] for row in zip(*(facts[name].to_pylist() for name in columns), strict=True)}
    since = out.child(".build").entries()["catalogue.json"].changed - _CLOCKS_S
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
    work = out.child(".build")
    shards: list[str] = []
    if out.exists("dataset.json"):  # shards become packs: what is damaged is not taken apart
        shards = [shard["name"] for shard in Manifest.open(out.url).dataset["shards"]]
    work.remove_tree(NEXT)
    work.write_table(f"{NEXT}/facts.parquet", kept)
    for dataset in now.notes:
        work.write_table(f"{NEXT}/{catalogue_name(dataset)}", now.of(dataset))
    work.write_table(f"{NEXT}/orphans.parquet", now.orphans)
    if known is not None:
        work.write_table(f"{NEXT}/{KNOWN}", known)
    generation = work.read_json("catalogue.json")["generation"] + 1
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
    work = out.child(".build")
    if not work.exists(_INTENT):
        return
    intent = work.read_json(_INTENT)
    out.remove("dataset.json")
    for shard in intent["shards"]:
        out.move(f"shards/{shard}", f".build/packs/{FORMER}/{shard}")
    _forget_stages(out)
    kept = work.read_table(f"{NEXT}/facts.parquet")
    work.write_table(KEPT, kept)
    if intent["known"]:
        work.write(KNOWN, work.read(f"{NEXT}/{KNOWN}"))
    _forget_fingerprints(work, kept["clip_id"])
    for dataset in intent["marker"]["datasets"]:
        out.write(catalogue_name(dataset), work.read(f"{NEXT}/{catalogue_name(dataset)}"))
    out.write("orphans.parquet", work.read(f"{NEXT}/orphans.parquet"))
    work.write("settings.json", settings_bytes(intent["settings"]))
    work.write("catalogue.json", json.dumps(intent["marker"]).encode())
    work.remove(_INTENT)
    work.remove_tree(NEXT)


def _forget_fingerprints(work: Storage, kept: pa.ChunkedArray) -> None:
    """Fingerprints of clips that are probed again, or are gone, must not stand beside new ones."""
    for name in work.list("fingerprints"):
        ids = work.read_table(name, ["clip_id"])["clip_id"]
        stays = pc.is_in(ids, pa.array(kept.to_pylist(), pa.string()))
        if pc.all(stays, min_count=0).as_py():
            continue
        if pc.any(stays, min_count=0).as_py():
            work.write_table(name, work.read_table(name).filter(stays))
        else:
            work.remove(name)
