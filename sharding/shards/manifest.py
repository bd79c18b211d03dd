"""Opens a finished build: ``dataset.json`` says that it is finished, the manifest says where every sample lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypedDict, cast

import pyarrow as pa
import pyarrow.parquet as pq

from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.layout import CATALOGUE, DATASET, SHARDS, manifest_name, shard_name
from sharding.schema import FORMAT_VERSION, MANIFEST


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


class DatasetHead(TypedDict):
    """What ``dataset.json`` says of the build as a whole."""

    format: int
    plan: str  # the plan's hash
    settings: dict[str, Any]
    versions: dict[str, str]
    cpu: str
    datasets: dict[str, int]  # clips of each dataset
    fates: dict[str, int]  # clips of each fate
    reasons: dict[str, int]  # clips of each fate/reason


class Dataset(DatasetHead):
    """``dataset.json``, all but its checksum."""

    tables: dict[str, FileEntry]  # file name below OUT, of every table
    shards: list[ShardRecord]


def dataset_bytes(dataset: Mapping[str, object]) -> bytes:
    """``dataset.json`` as it is written: sorted, and with a SHA-256 of all the rest as its ``checksum``."""
    rest = {name: value for name, value in dataset.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return json.dumps(rest | {"checksum": checksum}, indent=1, sort_keys=True, ensure_ascii=False).encode()


def read_dataset(storage: Storage) -> Dataset:
    """``dataset.json``, checked against its own checksum.

    Raises:
        InputError: there is none, it is damaged, or another version of Earshot wrote it.
    """
    file = storage.name(DATASET)
    if not storage.exists(DATASET):
        raise InputError(
            "no finished build here: dataset.json is missing",
            file=storage.url,
            remedy="run `python -m sharding build` to its end; it goes on where it was",
        )
    try:
        contents = storage.read(DATASET)
        dataset = json.loads(contents)
        # The bytes are compared, so that a change of white space counts as damage too.
        whole = isinstance(dataset, dict) and contents == dataset_bytes(dataset)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise InputError("damaged: it does not match its own checksum", file=file, remedy=MEND)
    if dataset["format"] != FORMAT_VERSION:
        raise InputError(
            f"written in shard format {dataset['format']}; this Earshot reads {FORMAT_VERSION}",
            file=file,
            remedy="the CHANGELOG says under SHARD FORMAT what changed",
        )
    return cast(Dataset, dataset)


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
    return pq.read_table(pa.BufferReader(contents)).cast(MANIFEST)
