"""Opens a finished build: ``dataset.json`` says that it is finished, the manifest says where every sample lies."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from typing import Any, NoReturn, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.checks import SHA256, SHARD, conform, parse_checked, read_checksummed
from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.layout import (
    CATALOGUE,
    DATASET,
    DIFFERENCES,
    FATES,
    MATCHES,
    ORPHANS,
    OVERVIEW,
    PLAN,
    SHARDS,
    Work,
    manifest_name,
    shard_name,
    work_of,
)
from sharding.rows import ManifestRow
from sharding.schema import MANIFEST, READABLE_FORMATS
from sharding.shards.tar import BLOCK

_TABLES = (FATES, MATCHES, ORPHANS, OVERVIEW, DIFFERENCES)
_TABLE = rf"({CATALOGUE}|{PLAN})/[A-Za-z0-9_+=-]+\.parquet"


class FileEntry(TypedDict):
    """What ``dataset.json`` says of a file."""

    bytes: int
    sha256: str


class ShardRecord(TypedDict):
    """What ``dataset.json`` says of a shard and its manifest."""

    name: str  # file name below OUT/shards
    bytes: int
    sha256: str
    samples: int
    manifest_bytes: int
    manifest_sha256: str


class SplitProtection(TypedDict):
    """How many clips of one protected split could be compared with training clips.

    Attributes:
        dataset, split: the split.
        clips: in the catalogue; 0 if the split, or its whole dataset, is not part of the build.
        compared: clips whose audio could be read.
        not_compared: error class (see ``sharding.audio.ERROR_CLASSES``) to the number of other clips.
    """

    dataset: str
    split: str
    clips: int
    compared: int
    not_compared: dict[str, int]


class FatesSettings(TypedDict):
    """What ``dataset.json`` says of the settings by which fates were decided, as far as later commands read it."""

    protect: list[list[str]]  # a dataset and a split each; see ``sharding.sources.protected.parse_protect``


class ShardSettings(TypedDict):
    """What ``dataset.json`` says of the settings of the plan."""

    shard_bytes: int


class SettingsRecord(TypedDict):
    """What later commands read of the settings in ``dataset.json``, which has more of them."""

    fates: FatesSettings
    plan: ShardSettings


class _Protection(TypedDict, total=False):
    protection: list[SplitProtection]  # lacking in builds of former versions


class DatasetHead(_Protection):
    """What ``dataset.json`` says of the build as a whole."""

    format: int
    plan: str  # the plan's hash
    settings: SettingsRecord
    versions: dict[str, str]
    cpu: str
    datasets: dict[str, int]  # clips of each dataset
    fates: dict[str, int]  # clips of each fate
    reasons: dict[str, int]  # clips of each fate/reason


class Dataset(DatasetHead):
    """``dataset.json``, all but its checksum."""

    tables: dict[str, FileEntry]  # file name below OUT, of every table
    shards: list[ShardRecord]


def read_dataset(storage: Storage) -> Dataset:
    """``dataset.json``, checked against its own checksum.

    Raises:
        InputError: there is none, it is damaged, or another version of Earshot wrote it.
    """
    file = storage.name(DATASET)
    if not storage.exists(DATASET):
        raise _no_build(storage)
    dataset = read_checksummed(storage, DATASET)
    if dataset.get("format") not in READABLE_FORMATS:
        readable = " and ".join(map(str, READABLE_FORMATS))
        raise InputError(
            f"the shards have format {dataset.get('format')}, and this version of Earshot reads {readable}",
            file=file,
            remedy="the CHANGELOG says under SHARD FORMAT what changed",
        )
    return _checked(conform(dataset, Dataset, file), file)


def _no_build(storage: Storage) -> InputError:
    """Says why there is no finished build in a folder, and what to do."""
    work = work_of(storage)
    if storage.local is not None and not storage.local.is_dir():
        what, remedy = "there is no such folder", "give the folder that `earshot build` wrote"
    elif work.exists(Work.SETTINGS) or work.exists(Work.RESHARD):
        command = "reshard" if work.exists(Work.RESHARD) else "build"
        what, remedy = "dataset.json is missing", f"run `earshot {command}` to its end; it continues where it stopped"
    else:
        what = "this is not the folder of a build"
        remedy = (
            "give the folder that `earshot build` wrote (its --out); from a folder of sounds, "
            "`earshot build --source mine=FOLDER --out OUT` makes one"
        )
    return InputError(f"no finished build here: {what}", file=storage.url, remedy=remedy)


def _checked(dataset: Dataset, file: str) -> Dataset:
    """Refuses names, sizes and checksums that no build writes: a checksum of its own proves nothing about a file."""

    def refuse(what: str, value: object) -> NoReturn:
        raise InputError(f"not what Earshot writes: {what}", file=file, value=value, remedy=MEND)

    for split in dataset["settings"]["fates"]["protect"]:
        if len(split) != 2:
            refuse("a protected split", split)
    names = [shard["name"] for shard in dataset["shards"]]
    for name, count in Counter(names).items():
        if count > 1 or not re.fullmatch(SHARD, name):
            refuse("a shard's name", name)
    for name in dataset["tables"]:
        if name not in _TABLES and not re.fullmatch(_TABLE, name):
            refuse("a table's name", name)
    for shard in dataset["shards"]:
        if min(shard["bytes"], shard["manifest_bytes"]) < 1 or shard["samples"] < 1:
            refuse("the size of a shard or manifest", shard["name"])
    hashes = [digest for shard in dataset["shards"] for digest in (shard["sha256"], shard["manifest_sha256"])]
    for digest in [*hashes, *(entry["sha256"] for entry in dataset["tables"].values())]:
        if not re.fullmatch(SHA256, digest):
            refuse("a SHA-256", digest)
    return dataset


@dataclass(frozen=True)
class Manifest:
    """A finished build.

    Attributes:
        storage: its folder.
        dataset: ``dataset.json``.
        table: MANIFEST, one row a sample, shard after shard in the order of ``dataset["shards"]``.
    """

    storage: Storage
    dataset: Dataset
    table: pa.Table

    @staticmethod
    def open(url: str | PathLike[str]) -> Manifest:
        """Open the build at ``url``.

        Sizes of all shards and checksums of all manifests are compared with ``dataset.json``.

        Raises:
            InputError: no build, or one that disagrees with ``dataset.json``; names the file.
        """
        storage = Storage(url)
        dataset = read_dataset(storage)
        sizes = storage.sizes(SHARDS)
        tables = []
        for shard in dataset["shards"]:
            file = shard_name(shard["name"])
            if sizes.get(file) != shard["bytes"]:
                found = "missing" if file not in sizes else f"{sizes[file]} bytes"
                raise InputError(
                    f"dataset.json says {shard['bytes']} bytes",
                    file=storage.name(file),
                    value=found,
                    remedy=MEND,
                )
            tables.append(_read_manifest(storage, shard))
        table = pa.concat_tables(tables) if tables else MANIFEST.empty_table()
        return Manifest(storage, dataset, table)

    def sample_json(self, sample: ManifestRow) -> dict[str, Any]:
        """The JSON of a sample.

        Raises:
            InputError: it is damaged; names the shard and the sample.
        """
        shard = shard_name(sample.shard)
        text = self.storage.read(shard, sample.json_offset, sample.json_bytes)
        try:
            if hashlib.sha256(text).hexdigest() == sample.json_sha256:
                return dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            pass
        raise InputError(f"the JSON of {sample.key} is damaged", file=self.storage.name(shard), remedy=MEND)

    def catalogue(self) -> list[str]:
        """The catalogue's files, below ``storage``."""
        return [name for name in self.dataset["tables"] if name.startswith(f"{CATALOGUE}/")]


def _read_manifest(storage: Storage, shard: ShardRecord) -> pa.Table:
    name = manifest_name(shard["name"])
    try:
        contents = storage.read(name)
    except FileNotFoundError:
        raise InputError("missing", file=storage.name(name), remedy=MEND) from None
    if hashlib.sha256(contents).hexdigest() != shard["manifest_sha256"]:
        raise InputError("damaged: its checksum is not the one in dataset.json", file=storage.name(name), remedy=MEND)
    return parse_manifest(contents, shard, storage.name(name))


def parse_manifest(contents: bytes, shard: ShardRecord, file: str) -> pa.Table:
    """MANIFEST of a shard from the bytes of its file.

    Raises:
        InputError: it is no manifest of this shard; names ``file`` and the row.
    """
    table = parse_checked(contents, MANIFEST, file).select(MANIFEST.names).cast(MANIFEST)
    _check_rows(table, shard, file)
    return table


def _check_rows(table: pa.Table, shard: ShardRecord, file: str) -> None:
    """Refuses rows that do not lie in their shard one after the other, each under a name made from its key."""
    if table.num_rows != shard["samples"]:
        what = f"the table has {table.num_rows} rows, and dataset.json says {shard['samples']}"
        raise InputError(what, file=file, remedy=MEND)
    audio, size, text, text_size, index, window, windows = (
        table[name].to_numpy()
        for name in (
            *("audio_offset", "audio_bytes", "json_offset", "json_bytes"),
            *("index", "window", "windows"),
        )
    )
    ends = np.append(audio[1:], shard["bytes"])
    stems = pc.replace_substring_regex(table["audio"], r"\.[a-z0-9]{1,8}$", "")
    rules = {
        "the sample lies outside of its shard, or in another sample": (
            (audio >= BLOCK) & (size <= text - audio) & (text_size <= ends - text)
        ),
        "the sample is not numbered by its position": index == np.arange(len(index)),
        "the clip has no such window": window < windows,
        "the shard is another": pc.equal(table["shard"], shard["name"]).to_numpy(),
        "the name of the sound is not the key and a suffix": (
            pc.and_(pc.equal(stems, table["key"]), pc.not_equal(stems, table["audio"])).to_numpy()
        ),
    }
    for what, holds in rules.items():
        if not holds.all():
            row = int(np.argmin(holds))
            raise InputError(what, file=file, row=row + 1, value=table["key"][row].as_py(), remedy=MEND)
