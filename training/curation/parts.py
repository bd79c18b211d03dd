"""What runs beside the shards share: a table that is written batch by batch anywhere a runner works, and resumed."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import catalogue_name
from sharding.shards.manifest import Manifest, read_dataset
from training.curation.annotators import KnownClip
from training.data.sampling.mixture import select_rows
from training.data.sampling.order import SequentialOrder
from training.data.settings import DataSettings, MixtureItem

STARTED, COUNTS = "started.json", "counts.json"


class OfSplit(Protocol):
    """Work on the clips of a split whose results are written in parts."""

    @property
    def shards(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def batch(self) -> int: ...


def begin(storage: Storage, shards: str, identity: dict[str, Any], what: str) -> None:
    """Make the folder that of this work, on this build.

    Raises:
        InputError: it holds such work with another identity ("other annotations"), or anything else.
    """
    identity = identity | {"plan": read_dataset(Storage(shards))["plan"]}
    if storage.exists(STARTED):
        known, found = storage.read_json(STARTED), f"other {what}"
    else:
        known, found = {} if storage.list() else identity, "something else"
    if known != identity:
        raise InputError(f"the folder holds {found}", file=storage.url, remedy="name another folder for --out")
    storage.write(STARTED, json.dumps(identity).encode())


def carry_out(
    storage: Storage, task: Callable[[int], int], order: SequentialOrder, schema: pa.Schema, what: str, runner: Runner
) -> tuple[pa.Table, Counter[str]]:
    """Do what is missing of the steps, and give the rows and the counts of all of them.

    Args:
        storage: the folder.
        task: does a step: it writes the counts (`part_counts`), and then the rows (`part`), and returns its number.
        order: the clips, of which every step has a batch.
        schema: the schema of the rows.
        what: is done, for the progress.
        runner: where it is done.
    """
    steps, clips, size = order.steps_per_epoch, order.draws_per_epoch, order.batch_size
    sizes = [min(size, clips - step * size) for step in range(steps)]
    there = set(storage.list())
    missing = [step for step in range(steps) if part(step) not in there]
    progress = Progress(what, clips, "clips", runner.watch, done=clips - sum(sizes[step] for step in missing))
    for step in runner.map(task, missing):
        progress.add(sizes[step])
    progress.finish()
    parts = [storage.read_table(part(step)) for step in range(steps)]
    counts: Counter[str] = Counter()
    for step in range(steps):
        counts.update(storage.read_json(part_counts(step)))
    storage.write(COUNTS, json.dumps(counts).encode())
    return pa.concat_tables(parts) if parts else schema.empty_table(), counts


def part(step: int) -> str:
    """The file of a step's rows; where it is, the step is finished."""
    return f"part-{step:06d}.parquet"


def part_counts(step: int) -> str:
    """The file of a step's counts."""
    return f"part-{step:06d}.json"


def settings_of(work: OfSplit) -> DataSettings:
    """Captions as they were published."""
    return DataSettings(train=(MixtureItem(work.split),), lower=False, strip_punctuation=False)


@functools.lru_cache(maxsize=1)
def order_of(work: OfSplit) -> SequentialOrder:
    """The order in which the clips of the split are read, batch by batch."""
    return SequentialOrder(Manifest.open(work.shards).table, work.split, settings_of(work), work.batch)


@functools.lru_cache(maxsize=1)
def known_clips(work: OfSplit) -> dict[str, KnownClip]:
    """What is known of every clip of the split."""
    manifest = Manifest.open(work.shards)
    table = manifest.table.filter(select_rows(manifest.table, work.split)).select(["clip_id", "dataset", "captions"])
    keywords = _keywords(Storage(work.shards), set(table["dataset"].to_pylist()))
    found: dict[str, KnownClip] = {}
    for clip, captions in zip(table["clip_id"].to_pylist(), table["captions"].to_pylist(), strict=True):
        texts = [each["text"] for each in captions if each["kind"] != "label"]
        labels = [each["text"] for each in captions if each["kind"] == "label"]
        found[clip] = KnownClip(clip, texts, labels, keywords.get(clip) or [])
    return found


def _keywords(build: Storage, datasets: set[str]) -> dict[str, list[str]]:
    """The keywords of clips, from the catalogues of a build; a copy of shards and manifest alone has none."""
    found: dict[str, list[str]] = {}
    for dataset in sorted(datasets):
        if build.exists(name := catalogue_name(dataset)):
            table = build.read_table(name, ["clip_id", "keywords"])
            found |= zip(table["clip_id"].to_pylist(), table["keywords"].to_pylist(), strict=True)
    return found
