"""What an index holds: windows of recordings, each with the facts that a search shows of it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError

PART = 256  # entries that are encoded and stored together: what a killed build of an index loses
BLOCK = 1 << 14  # samples whose entries are made at once
LICENCES = 20  # that a message names
REST = 0.1  # of a window: a shorter rest of a sample gets no window of its own

_CODED = pa.dictionary(pa.int32(), pa.string())  # few values: a filter compares numbers, and a value is stored once
ENTRIES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("key", pa.string()),  # of the sample that holds the sound
        ("dataset", _CODED),
        ("split", _CODED),
        ("path", pa.string()),  # the original file; null: the build does not say
        ("captions", pa.list_(pa.string())),  # of the recording, but for those of other moments of it
        ("licence", _CODED),
        ("start_s", pa.float64()),  # of the window, in the recording
        ("end_s", pa.float64()),
        ("recording_s", pa.float64()),  # how much of the recording the shards hold
        ("sample_start_s", pa.float64()),  # where the sample begins in the recording
        ("sample_s", pa.float64()),  # how long the sample is
        ("shard", _CODED),
        ("audio", pa.string()),  # name of the sound in the shard
        ("audio_offset", pa.int64()),
        ("audio_bytes", pa.int64()),
        ("audio_sha256", pa.string()),
        ("audio_xxh3", pa.uint64()),
        ("rate", pa.int32()),
    ]
)
_COPIED = ("clip_id", "key", "audio", "audio_offset", "audio_bytes", "audio_sha256", "audio_xxh3", "rate")
_NAMES = ("dataset", "split", "licence", "shard")


@dataclass(frozen=True)
class Windows:
    """Windows of ``length_s`` seconds, one every ``hop_s`` seconds."""

    length_s: float
    hop_s: float

    def __post_init__(self) -> None:
        if not (self.length_s >= 0.1 and 0 < self.hop_s <= self.length_s):
            raise InputError(
                "windows must be at least 0.1 s long, and the hop above 0 and at most a window",
                value=(self.length_s, self.hop_s),
            )

    def starts(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The windows of samples that are ``seconds [samples]`` long, sample after sample.

        Returns:
            the sample of each window, and where in it the window begins, in seconds, ``[windows]`` both; the last
            window of a sample ends with it.
        """
        rest = np.asarray(seconds, float) - self.length_s
        more = np.where(rest <= REST * self.length_s, 0, np.ceil(rest / self.hop_s - REST))
        counts = 1 + more.astype(np.int64)
        sample = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(sample)) - (np.cumsum(counts) - counts)[sample]
        return sample, np.maximum(0.0, np.minimum(self.hop_s * number, rest[sample]))


def entries_of(samples: pa.Table, paths: Mapping[str, str], windows: Windows) -> pa.Table:
    """ENTRIES of the rows of a manifest, in their order; see `entry_batches`."""
    return pa.Table.from_batches(list(entry_batches(samples, paths, windows)), ENTRIES)


def entry_batches(samples: pa.Table, paths: Mapping[str, str], windows: Windows) -> Iterator[pa.RecordBatch]:
    """ENTRIES of the rows of a manifest, in their order, those of ``BLOCK`` rows at once.

    Args:
        samples: rows of MANIFEST.
        paths: the original file of each clip_id, as far as it is known.
        windows: how samples are cut.
    """
    lengths = _recording_s(samples)
    known = {name: pc.unique(samples[name]).drop_null() for name in _NAMES}
    for begin in range(0, len(samples), BLOCK):
        block = samples.slice(begin, BLOCK).combine_chunks().to_batches()[0]
        durations, rates = block["duration_s"].to_numpy(), block["rate"].to_numpy()
        row, inside = windows.starts(durations)
        inside = np.round(inside * rates[row]) / rates[row]
        length = np.minimum(windows.length_s, durations[row] - inside)
        origin = np.nan_to_num(block["start_s"].to_numpy(zero_copy_only=False).astype(float))[row]
        clips = block["clip_id"].to_pylist()
        columns: dict[str, Any] = {name: block[name].take(pa.array(row)) for name in _COPIED}
        for name, values in known.items():
            codes = pc.index_in(block[name], values).take(pa.array(row))
            columns[name] = pa.DictionaryArray.from_arrays(codes, values)
        columns |= {
            "path": pa.array([paths.get(clip) for clip in clips], pa.string()).take(pa.array(row)),
            "captions": pa.array(_captions(block["captions"], row, origin + inside, length), pa.list_(pa.string())),
            "start_s": pa.array(origin + inside),
            "end_s": pa.array(origin + inside + length),
            "recording_s": pa.array(lengths[begin : begin + len(block)][row]),
            "sample_start_s": pa.array(origin),
            "sample_s": pa.array(durations[row]),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in ENTRIES.names], schema=ENTRIES)


def _recording_s(samples: pa.Table) -> np.ndarray:
    """How many seconds of each row's recording the samples hold, ``[rows]``; samples may overlap by their hop."""
    clip, names = codes_of(pc.dictionary_encode(samples["clip_id"]))
    durations = samples["duration_s"].to_numpy()
    begins = np.nan_to_num(samples["start_s"].to_numpy().astype(float))
    first, last = np.full(len(names), np.inf), np.zeros(len(names))
    np.minimum.at(first, clip, begins)
    np.maximum.at(last, clip, begins + durations)
    return np.asarray((last - first)[clip])


def codes_of(column: Any) -> tuple[np.ndarray, pa.Array]:
    """A column of names as numbers, ``[rows]``, and the name of each number; -1 where there is no name."""
    chunks = column.unify_dictionaries().chunks
    names = chunks[0].dictionary if chunks else pa.array([], pa.string())
    return _numbers([chunk.indices for chunk in chunks], np.int32), names


def _numbers(chunks: Iterable[Any], kind: Any) -> np.ndarray:
    """The numbers of a column, ``[rows]``; -1 where there is none.

    From their bytes: Arrow's ``to_numpy`` imports pandas, which takes longer than a search.
    """
    found = [np.zeros(0, kind)]
    for chunk in chunks:
        here = slice(chunk.offset, chunk.offset + len(chunk))
        buffers: Any = chunk.buffers() if len(chunk) else (None, b"")
        numbers = np.frombuffer(buffers[1], kind)[here]
        if chunk.null_count:
            known: Any = np.frombuffer(buffers[0], np.uint8)
            numbers = np.where(np.unpackbits(known, bitorder="little")[here], numbers, -1)
        found.append(numbers)
    return np.concatenate(found)


def splits_of(entries: pa.Table) -> tuple[np.ndarray, list[str]]:
    """The dataset/split of each entry as a number, ``[entries]``, and the name of each number."""
    (dataset, datasets), (split, splits) = codes_of(entries["dataset"]), codes_of(entries["split"])
    pair = dataset * np.int32(len(splits)) + split
    found = np.flatnonzero(np.bincount(pair, minlength=len(datasets) * len(splits)))
    number = np.zeros(len(datasets) * len(splits), np.int32)
    number[found] = np.arange(len(found))
    names = [f"{datasets[one // len(splits)].as_py()}/{splits[one % len(splits)].as_py()}" for one in found.tolist()]
    return number[pair], names


def values_at(column: Any, rows: Iterable[int]) -> list[Any]:
    """The cells of some rows.

    One by one: Arrow's ``take`` joins the chunks of a column, which may be larger than memory, and imports pandas,
    which takes longer than a search.
    """
    return [column[row].as_py() for row in rows]


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

    @property
    def shard(self) -> str:
        """The shard that holds their sound."""
        return self.name.rsplit("-", 2)[0]


def parts_of(entries: pa.Table) -> list[Part]:
    """The parts of an index: at most ``PART`` entries of one shard each, in the order of the entries."""
    shards, names = codes_of(entries["shard"])
    changes = np.flatnonzero(shards[1:] != shards[:-1]) + 1
    sounds = entries.select(["audio_sha256", "start_s", "end_s", "sample_start_s"])
    found = []
    bounds = [0, *changes.tolist(), len(shards)] if len(shards) else []
    for first, last in itertools.pairwise(bounds):
        for number, begin in enumerate(range(first, last, PART)):
            end = min(begin + PART, last)
            sound = sounds.slice(begin, end - begin)
            digest = hashlib.sha256(repr(sound.to_pydict()).encode()).hexdigest()[:16]
            shard = names[shards[begin].item()].as_py().removesuffix(".tar")
            found.append(Part(f"{shard}-{number:05d}-{digest}", begin, end))
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
                "no recording can have such a length",
                value=f"at least {least:g} s and at most {most:g} s",
                remedy="give seconds from 0, the least ones not above the most ones",
            )

    def mask(self, entries: pa.Table) -> np.ndarray | None:
        """Which entries may be found, bool ``[entries]``; None: all of them."""
        rules = []
        if self.datasets:
            rules.append(_in_datasets(entries, self.datasets))
        if self.licences:
            codes, names = codes_of(entries["licence"])
            chosen = {licence for text in self.licences for licence in _licences_like(entries["licence"], text)}
            rules.append(_chosen(codes, [name in chosen for name in names.to_pylist()]))
        if self.least_s is not None:
            rules.append(_numbers(entries["recording_s"].chunks, np.float64) >= self.least_s)
        if self.most_s is not None:
            rules.append(_numbers(entries["recording_s"].chunks, np.float64) <= self.most_s)
        return functools.reduce(np.logical_and, rules) if rules else None


def _in_datasets(entries: pa.Table, wanted: Iterable[str]) -> np.ndarray:
    """Which entries are of one of some datasets, or dataset/split, bool ``[entries]``.

    Raises:
        InputError: no entry is of one of them.
    """
    codes, names = splits_of(entries)
    for name in wanted:
        if not any(name in (split, split.partition("/")[0]) for split in names):
            known = ", ".join(sorted(names))
            raise InputError("the index has no such dataset or split", value=name, remedy=f"it has {known}")
    return _chosen(codes, [bool({split, split.partition("/")[0]} & set(wanted)) for split in names])


def _chosen(codes: np.ndarray, chosen: Sequence[bool]) -> np.ndarray:
    """Which codes are chosen; -1, which stands for no name, never is."""
    return np.array([*chosen, False])[codes]


def licences_by_use(licences: Any) -> list[str]:
    """The licences of entries, the most common first."""
    codes, names = codes_of(licences)
    counts = np.bincount(codes + 1, minlength=len(names) + 1)[1:]
    used = [(-count, name) for count, name in zip(counts.tolist(), names.to_pylist(), strict=True) if count]
    return [name for _, name in sorted(used)]


def _no_such_licence(text: str, known: Sequence[str]) -> InputError:
    more = f" and {len(known) - LICENCES} others" if len(known) > LICENCES else ""
    remedy = f"it has {', '.join(known[:LICENCES])}{more}" if known else "the build names no licences"
    return InputError("the index has no such licence", value=text, remedy=remedy)


def _licences_like(licences: Any, text: str) -> list[str]:
    """The licences that are exactly ``text``, whatever its case; where none is, those with this text in them.

    Raises:
        InputError: there is none.
    """
    known = licences_by_use(licences)
    found = [name for name in known if name.lower() == text.lower()]
    found = found or [name for name in known if text.lower() in name.lower()]
    if not found:
        raise _no_such_licence(text, known)
    return found
