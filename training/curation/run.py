"""Annotates the clips of a split, batch by batch, anywhere a runner works; what a killed run has written is kept."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import catalogue_name
from sharding.shards.manifest import Manifest
from training.curation.annotations import ANNOTATIONS, Annotation, filtered, to_table
from training.curation.annotators import Annotator, KnownClip, Model, Rules
from training.curation.audioverse import read_audioverse
from training.data.builder import BatchBuilder, BatchRequest
from training.data.features import AudioInput, FeatureExtractor
from training.data.mixture import select_rows
from training.data.order import SequentialOrder
from training.data.samples import SampleReader
from training.data.settings import DataSettings, MaskingSettings, MixtureItem
from training.evaluation.split import clips_of

STARTED, TABLE, COUNTS = "started.json", "annotations.parquet", "counts.json"


@dataclass(frozen=True)
class Work:
    """What is annotated, and by whom; a worker needs nothing else.

    Attributes:
        shards: the build.
        split: dataset/split, or a dataset.
        annotator: a model's source, "rules", or "audioverse" for a published file.
        out: the folder of the annotations.
        batch: clips that are annotated at once.
    """

    shards: str
    split: str
    annotator: str
    out: str
    batch: int

    def make_annotator(self) -> Annotator:
        """The annotator, loaded when it is first used."""
        return Rules() if self.annotator == "rules" else Model(self.annotator)


def annotate(work: Work, runner: Runner) -> dict[str, Any]:
    """Annotate every clip of the split, and write ANNOTATIONS with counts of what the filters took out.

    Raises:
        InputError: the folder holds annotations of other clips or by another annotator.
    """
    storage, steps = Storage(work.out), _order(work).steps_per_epoch
    _begin(work, storage)
    there = set(storage.list())
    missing = [step for step in range(steps) if _part(step) not in there]
    progress = Progress("annotate", steps, "batches", runner.watch, done=steps - len(missing))
    for _ in runner.map(_Annotate(work), missing):
        progress.add(1)
    progress.finish()
    parts = [storage.read_table(_part(step)) for step in range(steps)]
    counts: Counter[str] = Counter()
    for step in range(steps):
        counts.update(storage.read_json(_part_counts(step)))
    table = pa.concat_tables(parts) if parts else ANNOTATIONS.empty_table()
    storage.write(COUNTS, json.dumps(counts).encode())
    storage.write_table(TABLE, table)
    return {"clips": len(table), "removed": dict(counts), "out": storage.name(TABLE)}


def convert(work: Work, file: Path) -> dict[str, Any]:
    """Write the annotations of a published file as ANNOTATIONS, filtered as those of an annotator are."""
    found, unknown = read_audioverse(file, clips_of(_order(work)))
    kept, counts = _filtered(found)
    if not found:
        remedy = "name the split of the build that the file is about"
        raise InputError(f"none of {unknown} items is of a clip of {work.split}", file=file, remedy=remedy)
    storage = Storage(work.out)
    _begin(work, storage)
    storage.write(COUNTS, json.dumps(counts).encode())
    storage.write_table(TABLE, to_table(kept))
    return {"clips": len(kept), "removed": dict(counts), "unknown": unknown, "out": storage.name(TABLE)}


def _begin(work: Work, storage: Storage) -> None:
    """Make the folder that of these annotations; ``InputError`` where it holds others, or anything else."""
    identity = asdict(work) | {"plan": Manifest.open(work.shards).dataset["plan"]}
    identity = {key: value for key, value in identity.items() if key not in ("shards", "out")}
    if storage.exists(STARTED):
        known, what = storage.read_json(STARTED), "other annotations"
    else:
        known, what = {} if storage.list() else identity, "something else"
    if known != identity:
        raise InputError(f"the folder holds {what}", file=work.out, remedy="name another folder for --out")
    storage.write(STARTED, json.dumps(identity).encode())


@dataclass(frozen=True)
class _Annotate:
    work: Work

    @property
    def gpus(self) -> int:
        """GPUs that a task takes where there are any: a model runs on one."""
        return 0 if self.work.annotator == "rules" else 1

    def __call__(self, step: int) -> int:
        """Annotate one batch and write its part; returns its number."""
        work, storage = self.work, Storage(self.work.out)
        annotator = work.make_annotator()
        draws = _order(work).batch(0, step)
        known = _known(work)
        clips = [known[clip] for clip in draws.clip_ids]
        features = frames = None
        if annotator.hears is not None:
            audio = AudioInput.of(annotator.hears)
            reader = SampleReader(Storage(work.shards), audio.rate, audio.max_s)
            extractor = FeatureExtractor(audio, MaskingSettings(), train=False)
            batch = BatchBuilder(reader, extractor, _settings(work), None).build(BatchRequest(draws, None)).unpack()
            features, frames = batch.features, batch.frames
        kept, counts = _filtered(annotator.annotate(clips, features, frames))
        storage.write(_part_counts(step), json.dumps(counts).encode())
        storage.write_table(_part(step), to_table(kept))  # last: it says that the part is finished
        return step


def _filtered(annotations: Iterable[Annotation]) -> tuple[list[Annotation], Counter[str]]:
    """Annotations without what is not worth keeping, and how often each reason occurred in all of them."""
    kept, counts = [], Counter[str]()
    for annotation in annotations:
        one, reasons = filtered(annotation)
        kept.append(one)
        counts.update(reasons)
    return kept, counts


def _part(step: int) -> str:
    return f"part-{step:06d}.parquet"


def _part_counts(step: int) -> str:
    return f"part-{step:06d}.json"


def _settings(work: Work) -> DataSettings:
    return DataSettings(train=(MixtureItem(work.split),), lower=False, strip_punctuation=False)


@functools.lru_cache(maxsize=1)
def _order(work: Work) -> SequentialOrder:
    return SequentialOrder(Manifest.open(work.shards).table, work.split, _settings(work), work.batch)


@functools.lru_cache(maxsize=1)
def _known(work: Work) -> dict[str, KnownClip]:
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
