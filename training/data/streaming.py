"""A plain webdataset pipeline over the same shards, for those who want no index.

For the same sample, seed and epoch it gives the same crop, caption, spectrogram and masks as ``training.data.Loader``.
Its order is approximate (the shards are permuted, then a buffer is shuffled), depends on ranks and workers, and
cannot be resumed.  It draws every window of a long clip, ignores weights, repeats and kin, and may give ranks
unequal numbers of batches.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import webdataset

from sharding.common.errors import InputError
from sharding.layout import SHARDS
from sharding.schema import MANIFEST, parse_key, sample_key
from training.data.batch import Batch
from training.data.builder import BatchBuilder, BatchRequest
from training.data.samples import SampleReader
from training.data.sampling.draws import SAMPLE_COLUMNS, ClipChoice, ManifestRows, draw_samples
from training.data.sampling.hashing import permutation
from training.data.settings import DataSettings, MixtureItem
from training.data.sound.features import AudioInput, FeatureExtractor

STREAM = 0x53545245  # purpose of a hash: the order of shards
_SHARD_NAME = re.compile(r"(?:^|/)([^/]+)-(?:\d+|\{\d+\.\.\d+\})\.tar$")  # <dataset>-<split>-<number>.tar
_SCHEMA = pa.schema([MANIFEST.field(name) for name in SAMPLE_COLUMNS])


def stream(
    urls: Sequence[str],
    settings: DataSettings,
    audio: AudioInput,
    tokenizer: Any,
    epoch: int = 0,
    seed: int = 0,
    buffer: int = 1000,
    train: bool = True,
) -> webdataset.DataPipeline:
    """One epoch's batches of ``settings.batch_size`` clips, split over nodes and workers by shard.

    Wrap it in ``torch.utils.data.DataLoader(..., batch_size=None)`` for workers.

    Args:
        urls: the shards, in any form that webdataset reads.
        settings: the recipe's data section.
        audio: the input that the audio encoder takes.
        tokenizer: a transformers tokenizer.
        epoch, seed: they decide what is drawn, as in the loader.
        buffer: samples in the shuffle buffer; 0: the samples come in the order of the shards.
        train: whether to draw filter edges, masks and augmentation.

    Raises:
        InputError: there are no shards, or none of the shards holds a split of the mixture; also, while the only
            worker reads, that there is nothing to draw, or less than one batch.
    """
    if not urls:
        raise InputError("there are no shards to stream", remedy="give the URLs of the tars")
    _check_splits(urls, settings.train)
    shards = [urls[number] for number in permutation(len(urls), STREAM, seed, epoch)] if buffer else list(urls)
    reader = SampleReader(TarMembers({}), audio.rate, audio.max_s)
    builder = BatchBuilder(reader, FeatureExtractor(audio, settings.masking, train), settings, tokenizer)
    return webdataset.DataPipeline(
        webdataset.SimpleShardList(shards),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        *([webdataset.shuffle(buffer, rng=random.Random(f"{seed} {epoch}"))] if buffer else []),
        BatchStream(builder, seed, epoch),
    )


@dataclass(frozen=True)
class TarMembers:
    """A storage of tar members in memory."""

    data: Mapping[str, bytes]

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        return self.data[path.removeprefix(f"{SHARDS}/")]


@dataclass(frozen=True)
class BatchStream:
    """Turns tar samples into batches."""

    builder: BatchBuilder
    seed: int
    epoch: int

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[Batch]:
        collected: list[tuple[dict[str, Any], bytes]] = []
        seen: Counter[str] = Counter()
        batches = 0
        for sample in samples:
            row = _row(sample)
            seen[row[0]["part"]] += 1
            if self._items(row[0]):
                collected.append(row)
            if len(collected) == self.builder.settings.batch_size:
                batches += 1
                yield self._batch(collected)
                collected = []
        if collected and self.builder.settings.last == "keep":
            yield self._batch(collected)
        elif not batches and _is_alone():
            self._refuse(len(collected), seen)

    def _refuse(self, drawn: int, seen: Mapping[str, int]) -> None:
        """``InputError``: the stream ends without a batch, which would look like training that is already finished."""
        settings = self.builder.settings
        if drawn:
            raise InputError(
                f"the shards have {drawn} of the mixture's samples, less than one batch of {settings.batch_size}",
                remedy="lower batch_size, or set last: keep",
            )
        wanted = [f"{item.split} with captions of kind {' or '.join(item.captions)}" for item in settings.train]
        raise InputError(
            "no sample of the shards is in the mixture",
            value=", ".join(wanted),
            remedy="the shards have " + (", ".join(sorted(seen)) or "no samples at all"),
        )

    def _batch(self, samples: Sequence[tuple[dict[str, Any], bytes]]) -> Batch:
        rows = [{name: row[name] for name in SAMPLE_COLUMNS} for row, _ in samples]
        settings = self.builder.settings
        items = [self._items(row)[0] for row, _ in samples]
        choices = [ClipChoice(np.array([number]), self.epoch, item) for number, item in enumerate(items)]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        draws = draw_samples(
            ManifestRows(table), choices, settings, self.seed, self.epoch, not self.builder.features.train
        )
        partners = None
        if self.builder.features.train and settings.augment.mixup:
            partners = draws.take(np.roll(np.arange(len(draws)), 1))
        members = TarMembers({row["shard"]: data for row, data in samples})
        reader = replace(self.builder.reader, storage=members)
        return replace(self.builder, reader=reader).build(BatchRequest(draws, partners)).unpack()

    def _items(self, row: Mapping[str, Any]) -> list[MixtureItem]:
        """The items of the mixture that can draw a sample; the first one decides the kinds of its caption."""
        kinds = {caption["kind"] for caption in row["captions"]}
        names = (row["dataset"], row["part"])
        return [item for item in self.builder.settings.train if item.split in names and kinds & set(item.captions)]


def _check_splits(urls: Sequence[str], items: Sequence[MixtureItem]) -> None:
    """``InputError`` if the names of the shards show that none of them holds a split of the mixture.

    Shards that have other names than a build gives them may hold any split.
    """
    named = [_SHARD_NAME.search(url) for url in urls]
    there = sorted({found[1] for found in named if found})
    lacking = [item.split for item in items if not any(_holds(name, item.split) for name in there)]
    if lacking and all(named):
        raise InputError(
            "no shard holds a split of the mixture",
            value=", ".join(lacking),
            remedy=f"a split is named dataset/split, and the shards begin with {', '.join(there)}",
        )


def _holds(name: str, split: str) -> bool:
    """Whether shards whose names begin with ``name`` may hold ``dataset/split``, or a split of ``dataset``."""
    dataset, slash, part = split.partition("/")
    return name == f"{dataset}-{sample_key(part)}" if slash else name.startswith(f"{dataset}-")


def _is_alone() -> bool:
    """Whether this process reads all shards, and no other worker or rank may have found what it did not."""
    _, world, _, workers = webdataset.utils.pytorch_worker_info()
    return bool(world == 1 and workers == 1)


def _row(sample: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The manifest row of a tar sample, and its audio's bytes."""
    key = sample["__key__"]
    member = next((name for name in sample if not name.startswith("__") and name != "json"), None)
    if member is None or "json" not in sample:
        raise InputError(
            "a sample lacks its audio or its JSON: the tar is cut",
            file=sample.get("__url__"),
            value=key,
            remedy="find the damage with `earshot verify`, and build the shard again",
        )
    facts = json.loads(sample["json"])
    data = sample[member]
    info = soundfile.info(io.BytesIO(data))
    clip_id = facts["clip_id"]
    dataset = clip_id.split("/")[0]
    split = _split_of(sample["__url__"], dataset)
    blank = {"kind": "human", "onset": None, "offset": None, "source": None}
    return {
        "key": key,
        "clip_id": clip_id,
        "dataset": dataset,
        "part": f"{dataset}/{split}",
        "shard": f"{key}.{member}",  # the name of its bytes in ``TarMembers``
        "audio": f"{key}.{member}",
        "audio_offset": 0,
        "audio_bytes": len(data),
        "audio_sha256": "",
        "audio_xxh3": None,
        "rate": info.samplerate,
        "start_s": facts.get("start_s") or 0.0,
        "duration_s": info.frames / info.samplerate,
        "captions": [blank | {name: caption.get(name) for name in caption} for caption in facts["captions"]],
        "group": facts.get("group"),
        "kin": facts.get("kin"),
    }, data


def _split_of(url: str, dataset: str) -> str:
    """The split of a shard, from ``<dataset>-<split>-<number>.tar``, whose split is spelled as in keys.

    The clip ids of WavCaps name a source instead of a split, so they do not say it.
    """
    spelled = PurePosixPath(url).stem.removeprefix(f"{dataset}-").rpartition("-")[0]
    try:
        return parse_key(spelled)[0]
    except InputError:  # a tar that somebody has renamed
        return spelled
