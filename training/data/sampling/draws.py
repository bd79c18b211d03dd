"""What is drawn for each clip: its caption, its window, its crop, and the seed of everything random after that.

Every choice is a hash of (seed, epoch, clip, pass), so every process makes the same choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sharding.schema import stable_id
from training.data.captions import choose_caption, label_prompt, normalise
from training.data.sampling.hashing import hash64, signed, uniform
from training.data.settings import DataSettings, MixtureItem

Int64 = NDArray[np.int64]

# Purposes of hashes: with a purpose of its own, a choice does not depend on the other choices for a sample.
CAPTION, CHOICE, CROP, MODEL, ROTATION = 0x43415054, 0x43484F49, 0x43524F50, 0x4D4F444C, 0x524F5441

SAMPLE_COLUMNS = [
    "key",
    "clip_id",
    "shard",
    "audio",
    "audio_offset",
    "audio_bytes",
    "audio_sha256",
    "audio_xxh3",
    "rate",
    "start_s",
    "duration_s",
    "captions",
    "group",
    "kin",
]


@dataclass(frozen=True)
class DrawnSamples:
    """A table of ``b`` samples: where their bytes are, which seconds of them to decode, and what they are.

    Attributes:
        keys, clip_ids, texts: names, and the caption as the model reads it.
        shard, audio, sha256, xxh3: the audio's shard, member name and checksums (``shards.checksum``).
        offset, size: where the audio begins in its shard, and its length, in bytes, ``[b]``.
        rate: sample rate of the stored audio in Hz, ``[b]``.
        start_s, duration_s: the crop in the stored audio, ``[b]``.
        origin_s: where the stored audio begins in its recording, ``[b]``; times of captions count from there.
        clip, caption, group, kin: stable 64-bit ids, ``[b]``.
        seeds: ``[b]`` int64, the seed of masks, of augmentation and of what the model draws.
        labels: the captions of each clip that are labels.
        name_part: what the samples add to the name of the global batch; see `training.data.sampling.order.batch_name`.
    """

    keys: list[str]
    clip_ids: list[str]
    texts: list[str]
    shard: list[str]
    audio: list[str]
    sha256: list[str]
    xxh3: list[int | None]
    offset: Int64
    size: Int64
    rate: Int64
    start_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    origin_s: NDArray[np.float64]
    clip: Int64
    caption: Int64
    group: Int64
    kin: Int64
    seeds: Int64
    labels: list[list[str]]
    name_part: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Int64) -> DrawnSamples:
        """The samples of these rows, in that order."""
        columns = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "name_part"}
        taken: dict[str, Any] = {
            name: [column[row] for row in rows] if isinstance(column, list) else column[rows]
            for name, column in columns.items()
        }
        return DrawnSamples(**taken, name_part=self.name_part)


class ManifestRows:
    """Manifest rows by number, as dicts of ``SAMPLE_COLUMNS``.

    A manifest has a chunk for each shard, and Arrow's ``take`` visits every chunk.  Here the time of a look-up
    does not grow with the dataset, and no column is copied.
    """

    def __init__(self, table: pa.Table) -> None:
        self._chunks = table.select(SAMPLE_COLUMNS).to_batches()
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks], dtype=np.int64)

    def take(self, rows: Int64) -> list[dict[str, Any]]:
        """The rows of those numbers, in that order."""
        if not len(rows):
            return []
        chunks = np.searchsorted(self._ends, rows, side="right").tolist()
        slices = [
            self._chunks[chunk].slice(int(row) - int(self._ends[chunk]) + len(self._chunks[chunk]), 1)
            for chunk, row in zip(chunks, rows, strict=True)
        ]
        return list(pa.Table.from_batches(slices).combine_chunks().to_pylist())


@dataclass(frozen=True)
class ClipChoice:
    """A clip to draw.

    Attributes:
        rows: the manifest rows of its windows.
        pass_number: how many passes over its pool came before this one.
        item: the item of the mixture that draws it.
        caption: which of its captions of the item's kinds is drawn; -1: it is drawn at random.
    """

    rows: Int64
    pass_number: int
    item: MixtureItem
    caption: int = -1


@dataclass(frozen=True)
class _RandomNumbers:
    """The random numbers of one draw, uniform in [0, 1), and its seed."""

    caption: float
    rotation: float
    window: float
    crop: float
    seed: int


def draw_samples(
    manifest: ManifestRows,
    choices: Sequence[ClipChoice],
    settings: DataSettings,
    seed: int,
    epoch: int,
    fixed: bool = False,
) -> DrawnSamples:
    """Draw the caption, the window and the crop of each clip.

    Args:
        manifest: the rows of the manifest.
        choices: the clips.
        settings: the recipe's data section.
        seed: the run's seed.
        epoch: the epoch, from 0.
        fixed: for evaluation: the first caption, the first window, and the crop from its start.
    """
    rows = np.concatenate([choice.rows for choice in choices]) if choices else np.zeros(0, np.int64)
    records = manifest.take(rows)
    ends = np.cumsum([len(choice.rows) for choice in choices], dtype=np.int64)
    windows = [records[end - len(choice.rows) : end] for choice, end in zip(choices, ends, strict=True)]
    clips = np.array([stable_id(each[0]["clip_id"]) for each in windows], dtype=np.int64)
    # A clip that a pass draws once with each caption has other random numbers each time.
    passes = np.array([choice.pass_number + ((choice.caption + 1) << 32) for choice in choices], dtype=np.int64)
    random = _random_numbers(seed, epoch, clips, passes)
    drawn = [
        _draw(each, choice, numbers, settings, fixed) | {"clip": int(clip), "seeds": numbers.seed}
        for each, choice, numbers, clip in zip(windows, choices, random, clips, strict=True)
    ]
    names = [each.name for each in fields(DrawnSamples) if each.name != "name_part"]
    return samples_of({name: [sample[name] for sample in drawn] for name in names})


def samples_of(columns: dict[str, Any]) -> DrawnSamples:
    """Samples from a list for each of their fields but ``name_part``."""
    for name in ("offset", "size", "rate", "clip", "caption", "group", "kin", "seeds"):
        columns[name] = np.array(columns[name], dtype=np.int64)
    for name in ("start_s", "duration_s", "origin_s"):
        columns[name] = np.array(columns[name], dtype=np.float64)
    return DrawnSamples(**columns)


def _random_numbers(seed: int, epoch: int, clips: Int64, passes: Int64) -> list[_RandomNumbers]:
    def drawn(purpose: int) -> list[float]:
        return uniform(hash64(purpose, seed, epoch, clips, passes)).tolist()

    rotation = uniform(hash64(ROTATION, seed, clips)).tolist()
    seeds = signed(hash64(MODEL, seed, epoch, clips, passes)).tolist()
    columns = (drawn(CAPTION), rotation, drawn(CHOICE), drawn(CROP), seeds)
    return [_RandomNumbers(*each) for each in zip(*columns, strict=True)]


def _draw(
    windows: Sequence[Mapping[str, Any]],
    choice: ClipChoice,
    random: _RandomNumbers,
    settings: DataSettings,
    fixed: bool,
) -> dict[str, Any]:
    rule = "first" if fixed else settings.caption_choice
    kinds = [each for each in windows[0]["captions"] if each["kind"] in choice.item.captions]
    with_words = [each for each in kinds if normalise(each["text"], settings)] or kinds
    caption: Mapping[str, Any]
    if choice.item.prompt is not None:
        text = label_prompt(choice.item.prompt, [each["text"] for each in with_words])
        caption = {"text": text, "onset": None, "offset": None}
    elif choice.caption >= 0:
        caption = with_words[choice.caption % len(with_words)]
    else:
        caption = choose_caption(with_words, rule, random.caption, random.rotation, choice.pass_number)
    described = [each for each in windows if _describes(caption, each)] or windows
    row = described[0 if fixed else int(random.window * len(described))]
    start, duration = _crop(row, caption, "start" if fixed else settings.crop, settings.crop_s, random.crop)
    text = normalise(caption["text"], settings)
    return {
        "keys": row["key"],
        "clip_ids": row["clip_id"],
        "texts": text,
        "shard": row["shard"],
        "audio": row["audio"],
        "sha256": row["audio_sha256"],
        "xxh3": row["audio_xxh3"],
        "offset": row["audio_offset"],
        "size": row["audio_bytes"],
        "rate": row["rate"],
        "labels": [each["text"] for each in windows[0]["captions"] if each["kind"] == "label"],
        "start_s": start,
        "duration_s": duration,
        "origin_s": row["start_s"] or 0.0,
        "caption": stable_id(text or row["clip_id"]),  # two captions without words are not the same caption
        "group": stable_id(row["group"] or row["clip_id"]),
        "kin": stable_id(row["kin"] or row["group"] or row["clip_id"]),
    }


def _describes(caption: Mapping[str, Any], window: Mapping[str, Any]) -> bool:
    """Whether a caption describes sound in the window.  A caption without times describes every window."""
    onset, offset = caption["onset"], caption["offset"]
    start = window["start_s"] or 0.0
    return (onset is None or onset < start + window["duration_s"]) and (offset is None or offset > start)


def _crop(
    row: Mapping[str, Any], caption: Mapping[str, Any], policy: str, crop_s: float, random: float
) -> tuple[float, float]:
    """Start and length of the crop in the stored audio, in seconds; both are whole numbers of samples.

    A random crop covers the times of its caption, as far as they fit.
    """
    rate = row["rate"]
    total = max(1, round(row["duration_s"] * rate))
    wanted = min(total, max(1, round(crop_s * rate)))
    low, high = 0, total - wanted
    if policy != "random":
        return ((high // 2 if policy == "centre" else 0) / rate, wanted / rate)
    if caption["onset"] is not None and caption["offset"] is not None:
        onset, offset = ((caption[name] - (row["start_s"] or 0.0)) * rate for name in ("onset", "offset"))
        low, high = sorted((min(max(round(offset) - wanted, 0), high), min(max(round(onset), 0), high)))
    return (low + int(random * (high - low + 1))) / rate, wanted / rate
