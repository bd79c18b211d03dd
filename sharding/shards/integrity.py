"""Finds every flipped byte and every cut of a build.

Every byte of a shard is either in a member, whose checksum the manifest holds, or can be computed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import CATALOGUE, DATASET, MANIFESTS, PLAN, SHARDS, Work, in_work, manifest_name, shard_name
from sharding.schema import sample_key
from sharding.shards.agreement import require_agreement
from sharding.shards.contents import file_entry, read_contents, unknown_files
from sharding.shards.manifest import Manifest, ShardRecord, parse_manifest, read_dataset
from sharding.shards.tar import END, header, padding

LEVELS = ("quick", "full", "decode")
_LISTED = tuple(f"{folder}/" for folder in (SHARDS, MANIFESTS, PLAN, CATALOGUE))  # dataset.json lists all of these


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        file: its name below OUT.
        sample: the key of the sample at fault; None if the damage is in no sample.
        what: the damage in words.
    """

    file: str
    sample: str | None
    what: str


def verify(url: str, level: str, runner: Runner) -> list[Damage]:
    """Compare a build with what ``dataset.json`` says of it.

    Args:
        url: the build.
        level: ``quick``: sizes, all tables, and whether these name the same clips; ``full``: also every byte;
            ``decode``: also decodes every sample.
        runner: where shards are read.

    Returns:
        all damage, sorted by file; empty if the build is as it was written.
    """
    storage = Storage(url)
    try:
        dataset = read_dataset(storage)
    except InputError as error:
        if not storage.exists(DATASET):
            raise  # there is no finished build that could be damaged
        return [Damage(DATASET, None, error.what)]
    sizes = storage.sizes("")
    found: list[Damage] = []
    for name, entry in sorted(dataset["tables"].items()):
        found += _check_file(storage, sizes, name, entry["bytes"], entry["sha256"])
    for shard in dataset["shards"]:
        name = manifest_name(shard["name"])
        found += _check_file(storage, sizes, name, shard["manifest_bytes"], shard["manifest_sha256"])
        found += _check_size(sizes, shard_name(shard["name"]), shard["bytes"])
    expected = {shard_name(shard["name"]) for shard in dataset["shards"]} | set(dataset["tables"])
    expected |= {manifest_name(shard["name"]) for shard in dataset["shards"]}
    found += [
        Damage(name, None, "dataset.json does not know it")
        for name in sizes
        if name.startswith(_LISTED) and name not in expected
    ]
    found += _check_work(storage, sizes, level)
    if level != "quick":
        check = functools.partial(check_shard, url=url, decode=level == "decode")
        present = [shard for shard in dataset["shards"] if shard_name(shard["name"]) in sizes]
        progress = Progress("verify", len(dataset["shards"]), "shards", runner.watch)
        missing = len(dataset["shards"]) - len(present)
        progress.add(missing, {"missing": missing} if missing else None)
        for damage in runner.map(check, present):
            found += damage
            progress.add(1, {"damaged": 1} if damage else None)
        progress.finish()
    if not found:
        found += _check_agreement(storage)
    return sorted(set(found), key=lambda damage: (damage.file, damage.sample or "", damage.what))


def _check_work(storage: Storage, sizes: dict[str, int], level: str) -> list[Damage]:
    """Damage of the work folder, which later commands go on with; a copy of a build may lack it."""
    try:
        files = read_contents(storage)
    except InputError as error:
        return [Damage(in_work(Work.CONTENTS), None, error.what)]
    found: list[Damage] = []
    for name, entry in sorted((files or {}).items()):
        wrong = _check_size(sizes, name, entry["bytes"])
        if not wrong and level != "quick" and file_entry(storage, name) != entry:
            wrong = [Damage(name, None, "other contents than were written")]
        found += wrong
    unknown = [] if files is None else unknown_files(sizes, files)
    return found + [Damage(name, None, "contents.json does not know it") for name in unknown]


def _check_agreement(storage: Storage) -> list[Damage]:
    """Values that no build writes, and clips that one table has and another lacks, in files with right checksums."""
    try:
        require_agreement(Manifest.open(storage.url))
    except InputError as error:
        row = "" if error.row is None else f"row {error.row}: "
        return [Damage(str(error.file).removeprefix(storage.name("")), None, row + error.what)]
    return []


def _check_size(sizes: dict[str, int], name: str, size: int) -> list[Damage]:
    if name not in sizes:
        return [Damage(name, None, "missing")]
    if sizes[name] != size:
        return [Damage(name, None, f"{sizes[name]} bytes instead of {size}")]
    return []


def _check_file(storage: Storage, sizes: dict[str, int], name: str, size: int, sha256: str) -> list[Damage]:
    wrong = _check_size(sizes, name, size)
    if not wrong and hashlib.sha256(storage.read(name)).hexdigest() != sha256:
        wrong = [Damage(name, None, "other contents than were written")]
    return wrong


def check_shard(shard: ShardRecord, url: str, decode: bool) -> list[Damage]:
    """All damage of one shard; names the sample for every byte."""
    try:
        return _damage(Storage(url), shard_name(shard["name"]), shard, decode)
    except OSError as error:
        return [Damage(shard_name(shard["name"]), None, f"cannot be read: {error}")]


def _damage(storage: Storage, name: str, shard: ShardRecord, decode: bool) -> list[Damage]:
    try:
        contents = storage.read(manifest_name(shard["name"]))
    except FileNotFoundError:
        contents = b""
    if hashlib.sha256(contents).hexdigest() != shard["manifest_sha256"]:
        return _check_whole(storage, name, shard)  # only the manifest says where each sample begins
    try:
        table = parse_manifest(contents, shard, storage.name(manifest_name(shard["name"])))
    except InputError as error:
        row = "" if error.row is None else f"row {error.row}: "
        return [Damage(manifest_name(shard["name"]), None, row + error.what)]
    rows = table.to_pylist()
    found = _misnamed(manifest_name(shard["name"]), rows)
    digest = hashlib.sha256()
    with storage.open(name) as file:
        for row in rows:
            for part, size, what in _parts(row):
                data = file.read(size)
                digest.update(data)
                if len(data) < size:
                    found.append(Damage(name, row["key"], f"{what}: the file ends inside"))
                    return found
                good = data == part if isinstance(part, bytes) else hashlib.sha256(data).hexdigest() == part[0]
                if not good:
                    found.append(Damage(name, row["key"], f"{what}: other contents than were written"))
                elif decode and what == "sound":
                    found += _check_sound(name, row, data)
        rest = file.read(len(END) + 1)
        digest.update(rest)
    if rest != END:
        found.append(Damage(name, None, "the end of the archive: other contents than were written"))
    if not found and digest.hexdigest() != shard["sha256"]:
        found.append(Damage(name, None, "other contents than dataset.json says"))
    return found


def _misnamed(name: str, rows: list[dict[str, Any]]) -> list[Damage]:
    """Samples whose key is not made from their clip and window."""
    return [
        Damage(name, row["key"], f"the key is not that of window {row['window']} of {row['clip_id']}")
        for row in rows
        if row["key"] != sample_key(row["clip_id"], row["window"], row["windows"])
    ]


def _check_whole(storage: Storage, name: str, shard: ShardRecord) -> list[Damage]:
    digest = hashlib.sha256()
    with storage.open(name) as file:
        while data := file.read(8 << 20):
            digest.update(data)
    if digest.hexdigest() == shard["sha256"]:
        return []
    return [Damage(name, None, "other contents than dataset.json says")]


def _parts(row: dict[str, Any]) -> Iterator[tuple[bytes | tuple[str], int, str]]:
    """(the bytes themselves or their SHA-256, their number, their name) of all that a sample occupies in a shard."""
    for member, size, sha256, what in (
        (row["audio"], row["audio_bytes"], row["audio_sha256"], "sound"),
        (f"{row['key']}.json", row["json_bytes"], row["json_sha256"], "JSON"),
    ):
        head, tail = header(member, size), padding(size)
        yield head, len(head), f"header of the {what}"
        yield (sha256,), size, what
        yield tail, len(tail), f"padding after the {what}"


def _check_sound(name: str, row: dict[str, Any], data: bytes) -> list[Damage]:
    try:
        samples, rate = decode_segment(data, 0.0, row["duration_s"] + 1.0)
    except (AudioError, InputError) as error:
        return [Damage(name, row["key"], f"sound: does not decode ({error})")]
    # The duration of copied sound was measured after resampling, so it is right to a sample of the slower rate.
    if abs(len(samples) - row["duration_s"] * rate) > max(1.0, rate / row["rate"]) + 0.5:
        seconds = len(samples) / rate
        return [Damage(name, row["key"], f"sound: {seconds:.3f} s instead of {row['duration_s']:.3f} s")]
    return []
