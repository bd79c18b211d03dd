"""From a draw to sound: read its bytes by offset, decode its crop, bring it to the encoder's rate."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from sharding.audio import AudioError, decode_segment
from sharding.errors import InputError
from training.data.draws import Draws

Wave = NDArray[np.float32]
PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)  # between attempts at an object store


class Reads(Protocol):
    """What the loader asks of a storage; ``sharding.storage.Storage`` has it."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file."""
        ...


@dataclass(frozen=True)
class SampleReader:
    """Reads single samples out of shards, without touching the rest of a tar.

    Attributes:
        storage: the build's folder (``Manifest.storage``).
        rate: Hz, of the waves that it returns.
        max_s: seconds of a crop beyond which nothing is decoded.
        checksum: compare the bytes with the manifest's SHA-256.
    """

    storage: Reads
    rate: int
    max_s: float
    checksum: bool = False

    def length(self, draws: Draws, place: int) -> int:
        """Samples of a draw's wave, known without reading it."""
        return max(1, round(min(float(draws.duration_s[place]), self.max_s) * self.rate))

    def read(self, draws: Draws, place: int) -> Wave:
        """The crop of one draw: mono float32 ``[length]`` in [-1, 1].

        Raises:
            InputError: the shard is cut, the bytes differ, or they do not decode; names shard and key.
        """
        data = self._bytes(draws, place)
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

    def _bytes(self, draws: Draws, place: int) -> bytes:
        size = int(draws.size[place])
        data = self._fetch(draws, place, size)
        if len(data) != size:
            raise self._damage(draws, place, f"the shard ends {size - len(data)} bytes too early")
        if self.checksum and hashlib.sha256(data).hexdigest() != draws.sha256[place]:
            raise self._damage(draws, place, "the bytes do not have the manifest's SHA-256")
        return data

    def _fetch(self, draws: Draws, place: int, size: int) -> bytes:
        """The sample's bytes, asked for again where a store fails: waits of 0.1 s, doubled each time."""
        for wait in (*PAUSES_S, None):
            try:
                return self.storage.read(f"shards/{draws.shard[place]}", int(draws.offset[place]), size)
            except FileNotFoundError as error:
                raise self._damage(draws, place, "cannot be read: the shard is gone") from error
            except OSError as error:
                if wait is None:
                    raise self._damage(draws, place, f"cannot be read: {error}") from error
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _damage(self, draws: Draws, place: int, what: str) -> InputError:
        return InputError(
            f"sample {draws.keys[place]} {what}",
            file=draws.shard[place],
            remedy="find the damage with `python -m sharding verify`, and build the shard again",
        )
