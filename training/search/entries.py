"""What an index holds: windows of recordings, each with the facts that a search shows of it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError

PART = 256  # entries that are encoded and stored together: what a killed build of an index loses
LICENCES = 20  # that a message names
REST = 0.1  # of a window: a shorter rest of a sample gets no window of its own

ENTRIES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("key", pa.string()),  # of the sample that holds the sound
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("path", pa.string()),  # the original file; null: the build does not say
        ("captions", pa.list_(pa.string())),  # of the recording, but for those of other moments of it
        ("licence", pa.string()),
        ("start_s", pa.float64()),  # of the window, in the recording
        ("end_s", pa.float64()),
        ("recording_s", pa.float64()),  # how much of the recording the shards hold
        ("sample_start_s", pa.float64()),  # where the sample begins in the recording
        ("sample_s", pa.float64()),  # how long the sample is
        ("shard", pa.string()),
        ("audio", pa.string()),  # name of the sound in the shard
        ("audio_offset", pa.int64()),
        ("audio_bytes", pa.int64()),
        ("audio_sha256", pa.string()),
        ("audio_xxh3", pa.uint64()),
        ("rate", pa.int32()),
    ]
)
_COPIED = ("clip_id", "key", "dataset", "split", "licence", "shard", "audio", "audio_offset", "audio_bytes")
_CHECKED = ("audio_sha256", "audio_xxh3", "rate")


@dataclass(frozen=True)
class Windows:
    """Windows of ``length_s`` seconds, one every ``hop_s`` seconds."""

    length_s: float
    hop_s: float

    def __post_init__(self) -> None:
        if not (self.length_s >= 0.1 and 0 < self.hop_s <= self.length_s):
            raise InputError(
                "windows are at least 0.1 s long, and the hop is above 0 and at most a window",
                value=(self.length_s, self.hop_s),
            )

    def starts(self, seconds: float) -> np.ndarray:
        """Where the windows of a sample begin, in seconds ``[n]``; the last one ends with the sample."""
        rest = seconds - self.length_s
        if rest <= REST * self.length_s:
            return np.zeros(1)
        count = 1 + int(np.ceil(rest / self.hop_s - REST))
        return np.minimum(self.hop_s * np.arange(count), rest)


def entries_of(samples: pa.Table, paths: Mapping[str, str], windows: Windows) -> pa.Table:
    """ENTRIES of the rows of a manifest, in their order.

    Args:
        samples: rows of MANIFEST.
        paths: the original file of each clip_id, as far as it is known.
        windows: how samples are cut.
    """
    samples = samples.combine_chunks()
    durations, rates = samples["duration_s"].to_numpy(), samples["rate"].to_numpy()
    begins = np.nan_to_num(samples["start_s"].to_numpy(zero_copy_only=False).astype(float))
    starts = [windows.starts(seconds) for seconds in durations.tolist()]
    row = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
    inside = np.concatenate([*starts, np.zeros(0)])
    inside = np.round(inside * rates[row]) / rates[row]
    length = np.minimum(windows.length_s, durations[row] - inside)
    taken = samples.select([*_COPIED, *_CHECKED]).take(pa.array(row))
    columns = {name: taken[name] for name in taken.column_names} | {
        "path": [paths.get(clip) for clip in taken["clip_id"].to_pylist()],
        "captions": _captions(samples["captions"], row, begins[row] + inside, length),
        "start_s": begins[row] + inside,
        "end_s": begins[row] + inside + length,
        "recording_s": _recording_s(samples, durations)[row],
        "sample_start_s": begins[row],
        "sample_s": durations[row],
    }
    return pa.table({name: columns[name] for name in ENTRIES.names}, schema=ENTRIES).combine_chunks()


def _recording_s(samples: pa.Table, durations: np.ndarray) -> np.ndarray:
    """How many seconds of each row's recording the samples hold, ``[rows]``; samples may overlap by their hop."""
    _, clip = np.unique(np.asarray(samples["clip_id"].to_pylist(), dtype=object).astype(str), return_inverse=True)
    begins = np.nan_to_num(samples["start_s"].to_numpy(zero_copy_only=False).astype(float))
    first, last = np.full(clip.max(initial=-1) + 1, np.inf), np.zeros(clip.max(initial=-1) + 1)
    np.minimum.at(first, clip, begins)
    np.maximum.at(last, clip, begins + durations)
    return np.asarray((last - first)[clip])


def _captions(column: Any, row: np.ndarray, start: np.ndarray, length: np.ndarray) -> list[list[str]]:
    """The captions of each window: those without times, and those whose time the window overlaps."""
    written = column.to_pylist()
    return [
        [one["text"] for one in written[number] or () if one["text"] and _overlaps(one, begin, begin + seconds)]
        for number, begin, seconds in zip(row.tolist(), start.tolist(), length.tolist(), strict=True)
    ]


def _overlaps(caption: Mapping[str, Any], start: float, end: float) -> bool:
    onset, offset = caption["onset"], caption["offset"]
    return (onset is None or onset < end) and (offset is None or offset > start)


@dataclass(frozen=True)
class Part:
    """Entries that are encoded together.

    Attributes:
        name: differs where the sound differs; facts such as captions do not change it.
        begin, end: the rows of the entries.
    """

    name: str
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


def parts_of(entries: pa.Table) -> list[Part]:
    """The parts of an index: at most ``PART`` entries of one shard each, in the order of the entries."""
    shards = entries["shard"].to_numpy(zero_copy_only=False)
    changes = np.flatnonzero(shards[1:] != shards[:-1]) + 1
    found = []
    bounds = [0, *changes.tolist(), len(shards)] if len(shards) else []
    for first, last in itertools.pairwise(bounds):
        for number, begin in enumerate(range(first, last, PART)):
            end = min(begin + PART, last)
            sound = entries.slice(begin, end - begin).select(["audio_sha256", "start_s", "end_s", "sample_start_s"])
            digest = hashlib.sha256(repr(sound.to_pydict()).encode()).hexdigest()[:16]
            found.append(Part(f"{shards[begin].removesuffix('.tar')}-{number:05d}-{digest}", begin, end))
    return found


@dataclass(frozen=True)
class Filter:
    """Which entries a search may find.

    Attributes:
        datasets: datasets, or dataset/split; none: all.
        licences: licences in any case, such as ``CC0``; where no entry has exactly this one, parts of licences, such as
            ``by/4.0``.  So ``CC-BY`` does not find ``CC-BY-NC`` where both occur.  None: all, also unknown ones.
        least_s, most_s: the length of the recording in seconds.
    """

    datasets: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    least_s: float | None = None
    most_s: float | None = None

    def __post_init__(self) -> None:
        least, most = self.least_s or 0.0, math.inf if self.most_s is None else self.most_s
        if not 0 <= least <= most:
            raise InputError(
                "no recording can be so long",
                value=f"at least {least:g} s and at most {most:g} s",
                remedy="give seconds from 0, the least ones not above the most ones",
            )

    def mask(self, entries: pa.Table) -> np.ndarray | None:
        """Which entries may be found, bool ``[entries]``; None: all of them."""
        rules = []
        if self.datasets:
            names = pc.binary_join_element_wise(entries["dataset"], entries["split"], "/")
            for name in self.datasets:
                self._require(name, entries, names)
            wanted = pa.array(self.datasets)
            rules.append(pc.or_(pc.is_in(names, wanted), pc.is_in(entries["dataset"], wanted)))
        if self.licences:
            chosen = [licence for text in self.licences for licence in _licences_like(entries["licence"], text)]
            rules.append(pc.is_in(entries["licence"], pa.array(chosen, pa.string())))
        if self.least_s is not None:
            rules.append(pc.greater_equal(entries["recording_s"], self.least_s))
        if self.most_s is not None:
            rules.append(pc.less_equal(entries["recording_s"], self.most_s))
        if not rules:
            return None
        return np.asarray(functools.reduce(pc.and_, rules).to_numpy()).astype(bool)

    @staticmethod
    def _require(name: str, entries: pa.Table, splits: Any) -> None:
        if not pc.any(pc.or_(pc.equal(entries["dataset"], name), pc.equal(splits, name))).as_py():
            known = ", ".join(sorted(set(pc.unique(splits).to_pylist())))
            raise InputError("the index has no such dataset or split", value=name, remedy=f"it has {known}")


def licences_by_use(licences: Any) -> list[str]:
    """The licences of entries, the most common first."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(licences.drop_null()).to_pylist()}
    return sorted(counts, key=lambda name: (-counts[name], name))


def _no_such_licence(text: str, licences: Any) -> InputError:
    known = licences_by_use(licences)
    more = f" and {len(known) - LICENCES} others" if len(known) > LICENCES else ""
    remedy = f"it has {', '.join(known[:LICENCES])}{more}" if known else "the build names no licences"
    return InputError("the index has no such licence", value=text, remedy=remedy)


def _licences_like(licences: Any, text: str) -> list[str]:
    """The licences that are exactly ``text``, whatever its case; where none is, those with this text in them.

    Raises:
        InputError: there is none.
    """
    names = pc.unique(licences.drop_null())
    exact = names.filter(pc.equal(pc.utf8_lower(names), text.lower()))
    within = names.filter(pc.match_substring(names, text, ignore_case=True))
    found: list[str] = (exact if len(exact) else within).to_pylist()
    if not found:
        raise _no_such_licence(text, licences)
    return found
