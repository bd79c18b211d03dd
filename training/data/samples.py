"""From drawn samples to sound: read their bytes by offset, decode their crops, resample to the encoder's rate."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from sharding.layout import shard_name
from sharding.shards.checksum import is_changed
from training.data.read_ahead import Arriving, Times, request_threads
from training.data.sample_cache import SampleCache
from training.data.sampling.draws import DrawnSamples

Wave = NDArray[np.float32]
PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)  # waits between attempts at an object store
LARGEST_GAP = 1 << 16  # bytes between two samples up to which one read fetches both; JSON and headers take 2 KiB
LARGEST_READ = 1 << 25  # bytes that one read fetches for several samples


class ReadWave(Protocol):
    """From a row of drawn samples to its wave."""

    def __call__(self, row: int, out: Wave | None = None) -> Wave:
        """The wave of a row.  It is decoded into the memory ``out`` where this is possible."""
        ...


class Reads(Protocol):
    """The interface of a storage that the loader uses; ``sharding.common.storage.Storage`` has it."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file."""
        ...


@dataclass(frozen=True)
class ByteRange:
    """Samples that one read fetches: the bytes ``begin .. end`` of a shard, and the samples' rows."""

    shard: str
    begin: int
    end: int
    rows: list[int]


def byte_ranges(draws: DrawnSamples, rows: Iterable[int] | None = None) -> list[ByteRange]:
    """The reads that fetch drawn samples, all or some rows; samples that lie close together in a shard share a read."""
    found: list[ByteRange] = []
    for row in sorted(
        range(len(draws)) if rows is None else rows, key=lambda row: (draws.shard[row], draws.offset[row])
    ):
        shard, begin = draws.shard[row], int(draws.offset[row])
        end = begin + int(draws.size[row])
        last = found[-1] if found else None
        if (
            last is not None
            and last.shard == shard
            and begin - last.end <= LARGEST_GAP
            and end - last.begin <= LARGEST_READ
        ):
            found[-1] = ByteRange(shard, last.begin, max(last.end, end), [*last.rows, row])
        else:
            found.append(ByteRange(shard, begin, end, [row]))
    return found


def _cut(draws: DrawnSamples, byte_range: ByteRange, data: Callable[[], bytes]) -> dict[int, Callable[[], bytes]]:
    """Functions from the bytes of a range to those of each of its rows."""

    def cut(row: int) -> bytes:
        begin = int(draws.offset[row]) - byte_range.begin
        return data()[begin : begin + int(draws.size[row])]

    return {row: functools.partial(cut, row) for row in byte_range.rows}


@dataclass(frozen=True)
class SampleReader:
    """Reads single samples out of shards; it reads nothing else of a tar.

    Attributes:
        storage: the build's folder (``Manifest.storage``).
        rate: sample rate in Hz of the waves that it returns.
        max_s: the most seconds of a crop that are decoded.
        cache: samples of a build in an object store that this machine keeps; None: none.
        times: what reading from an object store takes.
        arriving: what it is reading from an object store.
    """

    storage: Reads
    rate: int
    max_s: float
    cache: SampleCache | None = None
    times: Times = field(default_factory=Times)
    arriving: Arriving = field(default_factory=Arriving)

    @property
    def remote(self) -> bool:
        """Whether the samples lie in an object store."""
        return getattr(self.storage, "local", Path()) is None

    def length(self, draws: DrawnSamples, row: int) -> int:
        """The number of audio samples in a row's wave, which is known without reading it."""
        return max(1, round(min(float(draws.duration_s[row]), self.max_s) * self.rate))

    def start(self, draws: DrawnSamples) -> ReadWave:
        """Begin to read drawn samples; the function that is returned waits for one of them and decodes it.

        An object store is asked for all samples at once, a disk for each when it is wanted.

        Returns:
            a function from a row to its crop, mono float32 ``[length]`` in [-1, 1].  It raises InputError, with
            the shard and the key, if the shard is cut, the bytes differ, or they do not decode.
        """
        data_of = self._arriving(draws)
        held = self._held(draws, data_of)
        for byte_range in byte_ranges(draws, set(range(len(draws))).difference(data_of, held)):
            data_of |= self._fetch_of(draws, byte_range)

        def read(row: int, out: Wave | None = None) -> Wave:
            if row in held:
                return self._decode(draws, row, held.pop(row), out)
            try:
                data = data_of.pop(row)()
            except FileNotFoundError as error:
                raise self._damage(draws, row, "cannot be read: the shard is gone") from error
            except Exception as error:
                raise self._damage(draws, row, f"cannot be read: {type(error).__name__}: {error}") from error
            return self._decode(draws, row, data, out)

        return read

    def _arriving(self, draws: DrawnSamples) -> dict[int, Callable[[], bytes]]:
        """How to wait for those rows whose bytes are being read for an earlier batch."""
        if not self.remote:
            return {}
        found = ((row, self.arriving.get(draws.sha256[row])) for row in range(len(draws)))
        return {row: wait for row, wait in found if wait is not None}

    def _held(self, draws: DrawnSamples, arriving: Collection[int]) -> dict[int, bytes]:
        """The bytes of those other rows that are in the cache of this machine."""
        if self.cache is None:
            return {}
        rows = [row for row in range(len(draws)) if row not in arriving]
        found = ((row, self.cache.get(draws.sha256[row], draws.xxh3[row])) for row in rows)
        return {row: data for row, data in found if data is not None}

    def _fetch_of(self, draws: DrawnSamples, byte_range: ByteRange) -> dict[int, Callable[[], bytes]]:
        """Functions that return the bytes of a range's rows.  The range is read once; an object store is asked now."""
        if not self.remote:
            return _cut(draws, byte_range, functools.cache(functools.partial(self._fetch, byte_range)))
        future: Future[bytes] = request_threads().submit(self._fetch_and_keep, draws, byte_range)

        def wait() -> bytes:
            began = time.monotonic()
            try:
                return future.result()
            finally:
                self.times.waited += time.monotonic() - began

        data_of = _cut(draws, byte_range, wait)
        self.arriving.add({draws.sha256[row]: data for row, data in data_of.items()}, future)
        return data_of

    def _fetch_and_keep(self, draws: DrawnSamples, byte_range: ByteRange) -> bytes:
        """Read the bytes of a range, and put the samples that this machine keeps into its cache."""
        began = time.monotonic()
        data = self._fetch(byte_range)
        self.times.note_request(time.monotonic() - began)
        if self.cache is not None:
            for row, sample in _cut(draws, byte_range, lambda: data).items():
                self.cache.put(draws.sha256[row], draws.xxh3[row], sample())
        return data

    def _fetch(self, byte_range: ByteRange) -> bytes:
        """The bytes of a range.  Reading is tried again after errors of any kind, because stores raise many kinds."""
        path, begin, size = shard_name(byte_range.shard), byte_range.begin, byte_range.end - byte_range.begin
        for pause_s in PAUSES_S:
            try:
                return self.storage.read(path, begin, size)
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:
                time.sleep(pause_s)
        return self.storage.read(path, begin, size)

    def _decode(self, draws: DrawnSamples, row: int, data: bytes, out: Wave | None) -> Wave:
        """The crop of a row from its bytes."""
        self._check_bytes(draws, row, data)
        duration_s = min(float(draws.duration_s[row]), self.max_s)
        try:
            wave, rate = decode_segment(data, float(draws.start_s[row]), duration_s, out)
        except AudioError as error:
            raise self._damage(draws, row, f"does not decode: {error}") from error
        if rate != self.rate and len(wave):
            wave = soxr.resample(wave, rate, self.rate, quality="HQ")
        wanted = self.length(draws, row)
        # Resampling rounds the length.  A larger difference means that sound is missing.
        if abs(len(wave) - wanted) > max(2, 2 * self.rate // max(rate, 1)):
            found = f"holds {len(wave) / self.rate:.3f} s where the manifest says {wanted / self.rate:.3f} s"
            raise self._damage(draws, row, found)
        if len(wave) < wanted:
            wave = np.pad(wave, (0, wanted - len(wave)))
        return np.ascontiguousarray(wave[:wanted], dtype=np.float32)

    def _check_bytes(self, draws: DrawnSamples, row: int, data: bytes) -> None:
        """``InputError`` if bytes are missing or differ from the manifest's."""
        missing = int(draws.size[row]) - len(data)
        if missing:
            raise self._damage(draws, row, f"the shard ends {missing} bytes too early")
        # Decoders do not notice most changes: in a WAV or an MP3 they give other sound.
        if is_changed(data, draws.xxh3[row], draws.sha256[row]):
            raise self._damage(draws, row, "the bytes do not have the manifest's checksum")

    def _damage(self, draws: DrawnSamples, row: int, what: str) -> InputError:
        return InputError(
            f"sample {draws.keys[row]} {what}",
            file=draws.shard[row],
            remedy="find the damage with `earshot verify`, and build the shard again",
        )
