"""From a draw to sound: read its bytes by offset, decode its crop, bring it to the encoder's rate."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from sharding.layout import shard_name
from training.data.sampling import DrawnSamples

Wave = NDArray[np.float32]
ReadWave = Callable[[int], Wave]  # from a place among draws to its wave
PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)  # between attempts at an object store
GAP = 1 << 16  # bytes between two samples that are read rather than asked for anew; JSON and headers take 2 KiB
LONGEST = 1 << 25  # bytes of one read of several samples
REQUESTS = 16  # at a time, to an object store: one waits tens of milliseconds for its first byte


class Reads(Protocol):
    """What the loader asks of a storage; ``sharding.common.storage.Storage`` has it."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file."""
        ...


@dataclass(frozen=True)
class ByteRange:
    """Samples that are read at once: ``places`` among the draws, and the bytes ``begin .. end`` of a shard."""

    shard: str
    begin: int
    end: int
    places: list[int]


def byte_ranges(draws: DrawnSamples) -> list[ByteRange]:
    """DrawnSamples that lie close together in a shard, as reads."""
    found: list[ByteRange] = []
    for place in sorted(range(len(draws)), key=lambda place: (draws.shard[place], draws.offset[place])):
        shard, begin = draws.shard[place], int(draws.offset[place])
        end = begin + int(draws.size[place])
        last = found[-1] if found else None
        if last and last.shard == shard and begin - last.end <= GAP and end - last.begin <= LONGEST:
            found[-1] = ByteRange(shard, last.begin, max(last.end, end), [*last.places, place])
        else:
            found.append(ByteRange(shard, begin, end, [place]))
    return found


@dataclass(frozen=True)
class SampleReader:
    """Reads single samples out of shards, without touching the rest of a tar.

    Attributes:
        storage: the build's folder (``Manifest.storage``).
        rate: Hz, of the waves that it returns.
        max_s: seconds of a crop beyond which nothing is decoded.
        checksum: compare the bytes with the manifest's SHA-256 also where the format has checksums of its own (FLAC).
    """

    storage: Reads
    rate: int
    max_s: float
    checksum: bool = False

    def length(self, draws: DrawnSamples, place: int) -> int:
        """Samples of a draw's wave, known without reading it."""
        return max(1, round(min(float(draws.duration_s[place]), self.max_s) * self.rate))

    def start(self, draws: DrawnSamples) -> ReadWave:
        """Begin to read draws; the function returned waits for one and decodes it.

        An object store is asked for all of them at once, a disk for each when it is wanted.

        Returns:
            a function from a place to the crop, mono float32 ``[length]`` in [-1, 1]; it raises InputError where
            the shard is cut, the bytes differ, or they do not decode, and names shard and key.
        """
        bytes_of: dict[int, Callable[[], bytes]] = {}
        begins = {}
        for run in byte_ranges(draws):
            fetch = self._begun(run)
            for place in run.places:
                bytes_of[place], begins[place] = fetch, int(draws.offset[place]) - run.begin

        def read(place: int) -> Wave:
            try:
                data = bytes_of.pop(place)()
            except FileNotFoundError as error:
                raise self._damage(draws, place, "cannot be read: the shard is gone") from error
            except Exception as error:
                raise self._damage(draws, place, f"cannot be read: {type(error).__name__}: {error}") from error
            begin = begins[place]
            return self._decode(draws, place, data[begin : begin + int(draws.size[place])])

        return read

    def _begun(self, run: ByteRange) -> Callable[[], bytes]:
        if getattr(self.storage, "local", Path()) is None:
            return _threads(os.getpid()).submit(self._fetch, run).result
        return lru_cache(maxsize=1)(lambda: self._fetch(run))

    def _fetch(self, run: ByteRange) -> bytes:
        """A run's bytes, asked for again where a store fails in any way: its clients have errors of their own."""
        for wait in PAUSES_S:
            try:
                return self.storage.read(shard_name(run.shard), run.begin, run.end - run.begin)
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:
                time.sleep(wait)
        return self.storage.read(shard_name(run.shard), run.begin, run.end - run.begin)

    def _decode(self, draws: DrawnSamples, place: int, data: bytes) -> Wave:
        if len(data) != draws.size[place]:
            raise self._damage(draws, place, f"the shard ends {int(draws.size[place]) - len(data)} bytes too early")
        # FLAC's own checksums find damage; a changed WAV would be other sound, and nobody would know.
        known = draws.sha256[place]
        check = self.checksum or (data[:4] != b"fLaC" and bool(known))
        if check and hashlib.sha256(data).hexdigest() != known:
            raise self._damage(draws, place, "the bytes do not have the manifest's SHA-256")
        duration = min(float(draws.duration_s[place]), self.max_s)
        try:
            wave, rate = decode_segment(data, float(draws.start_s[place]), duration)
        except AudioError as error:
            raise self._damage(draws, place, f"does not decode: {error}") from error
        if rate != self.rate and len(wave):
            wave = soxr.resample(wave, rate, self.rate, quality="HQ")
        wanted = self.length(draws, place)
        # Resampling rounds the length; more than that is missing sound.
        if abs(len(wave) - wanted) > max(2, 2 * self.rate // max(rate, 1)):
            found = f"holds {len(wave) / self.rate:.3f} s where the manifest says {wanted / self.rate:.3f} s"
            raise self._damage(draws, place, found)
        if len(wave) < wanted:
            wave = np.pad(wave, (0, wanted - len(wave)))
        return np.ascontiguousarray(wave[:wanted], dtype=np.float32)

    def _damage(self, draws: DrawnSamples, place: int, what: str) -> InputError:
        return InputError(
            f"sample {draws.keys[place]} {what}",
            file=draws.shard[place],
            remedy="find the damage with `python -m sharding verify`, and build the shard again",
        )


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """The process's threads for requests; threads do not survive a fork, so each process has its own."""
    return ThreadPoolExecutor(REQUESTS, "requests")
