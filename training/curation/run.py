"""Annotates the clips of a split, batch by batch, anywhere a runner works; what a killed run has written is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from training.curation.annotations import ANNOTATIONS, TABLE, Annotation, filtered, to_table
from training.curation.annotators import Annotator, Model, Rules
from training.curation.audioverse import read_audioverse
from training.curation.parts import COUNTS, begin, carry_out, known_clips, order_of, part, part_counts, settings_of
from training.data.builder import BatchBuilder, BatchRequest
from training.data.samples import SampleReader
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.evaluation.split import clips_of


@dataclass(frozen=True)
class Work:
    """The clips to annotate and the annotator: all that a worker needs.

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
    storage = Storage(work.out)
    _begin(work, storage)
    table, counts = carry_out(storage, _Annotate(work), order_of(work), ANNOTATIONS, "annotate", runner)
    storage.write_table(TABLE, table)
    return _told(table, counts, storage)


def _told(table: pa.Table, counts: Counter[str], storage: Storage) -> dict[str, Any]:
    """A summary of what was written: clips, clips with tags, and what was left out."""
    tagged = sum(bool(tags) for tags in table["tags"].to_pylist())
    return {"clips": len(table), "tagged": tagged, "removed": dict(counts), "out": storage.name(TABLE)}


def convert(work: Work, file: Path) -> dict[str, Any]:
    """Write the annotations of a published file as ANNOTATIONS, filtered as those of an annotator are."""
    found, unknown = read_audioverse(file, clips_of(order_of(work)))
    kept, counts = _filtered(found)
    if not found:
        remedy = "name the split of the build that the file is about"
        raise InputError(f"none of {unknown} items is of a clip of {work.split}", file=file, remedy=remedy)
    storage = Storage(work.out)
    _begin(work, storage)
    storage.write(COUNTS, json.dumps(counts).encode())
    table = to_table(kept)
    storage.write_table(TABLE, table)
    return _told(table, counts, storage) | {"unknown": unknown}


def _begin(work: Work, storage: Storage) -> None:
    identity = {key: value for key, value in asdict(work).items() if key not in ("shards", "out")}
    begin(storage, work.shards, identity, "annotations")


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
        draws = order_of(work).batch(0, step)
        known = known_clips(work)
        clips = [known[clip] for clip in draws.clip_ids]
        features = frames = None
        if annotator.hears is not None:
            audio = AudioInput.of(annotator.hears)
            reader = SampleReader(Storage(work.shards), audio.rate, audio.max_s)
            extractor = FeatureExtractor(audio, MaskingSettings(), train=False)
            batch = BatchBuilder(reader, extractor, settings_of(work), None).build(BatchRequest(draws, None)).unpack()
            features, frames = batch.features, batch.frames
        kept, counts = _filtered(annotator.annotate(clips, features, frames))
        storage.write(part_counts(step), json.dumps(counts).encode())
        storage.write_table(part(step), to_table(kept))  # last: it says that the part is finished
        return step


def _filtered(annotations: Iterable[Annotation]) -> tuple[list[Annotation], Counter[str]]:
    """Annotations without what is not worth keeping, and how often each reason occurred in all of them."""
    kept, counts = [], Counter[str]()
    for annotation in annotations:
        one, reasons = filtered(annotation)
        kept.append(one)
        counts.update(reasons)
    return kept, counts
