"""Reading what the probe wrote: sound by clip and time, bytes by clip and window."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import soxr

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.layout import pack_name
from sharding.rows import Window, rows

_MARGIN_S = 0.05  # decoded beyond both ends, so that the resampler's edges lie outside of what is wanted


def read_window(build: Storage, clip_id: str, window: Window, name: str) -> bytes:
    """The bytes of one of a clip's windows, from the file ``name`` below ``build`` that holds them.

    Raises:
        InputError: they are not what the probe wrote; names the pack and the clip.
    """
    data = build.read(name, window["offset"], window["bytes"])
    if hashlib.sha256(data).hexdigest() != window["sha256"]:
        raise _damage(build.name(name), clip_id, window, "is not what was written")
    return data


def _read_to_decode(build: Storage, clip_id: str, window: Window, name: str) -> bytes:
    """The same, but the SHA-256 of FLAC is not compared.

    Each FLAC frame that is decoded has a checksum of its own, and hashing a whole window would take a third of the time
    that decoding a part of it takes.
    """
    data = build.read(name, window["offset"], window["bytes"])
    return data if data[:4] == b"fLaC" else read_window(build, clip_id, window, name)


def _damage(file: str, clip_id: str, window: Window, what: str) -> InputError:
    return InputError(f"damaged: window {window['window']} {what}", file=file, value=clip_id, remedy=MEND)


class _Windows(NamedTuple):
    clip_id: str
    error: str | None
    windows: list[Window]


class PackReader:
    """Random access to the packs of a build.

    Args:
        build: the storage of ``OUT/.build``.
        facts: rows of FACTS; clips that failed are not known.
        file_of: the file below ``build`` that a window's ``pack`` names.
    """

    def __init__(self, build: Storage, facts: pa.Table, file_of: Callable[[str], str] = pack_name) -> None:
        self._build, self._file_of = build, file_of
        self._windows = {row.clip_id: row.windows for row in rows(facts, _Windows) if row.error is None}

    def bytes(self, clip_id: str, window: int = 0) -> bytes:
        """A window's file, as a shard holds it; see ``read_window``."""
        found = self._windows[clip_id][window]
        return read_window(self._build, clip_id, found, self._file_of(found["pack"]))

    def wave(self, clip_id: str, start_s: float, duration_s: float, rate: int = 8000) -> np.ndarray:
        """Sound of ``[start_s, start_s + duration_s)`` as float32 ``[n]`` mono at ``rate``.

        ``start_s`` is at least 0; ``n`` is ``round(duration_s * rate)``, less only where the clip ends.  Reads and
        decodes only the windows that are needed.

        Raises:
            InputError: a window's bytes are damaged; names the pack and the clip.
        """
        begin = max(0.0, start_s - _MARGIN_S)
        parts: list[np.ndarray] = []
        native, at = 0, begin
        for window in self._windows[clip_id]:
            end = window["start_s"] + window["duration_s"]
            if end <= at or at >= start_s + duration_s + _MARGIN_S or window["start_s"] > at + 1e-9:
                continue
            stop = min(end, start_s + duration_s + _MARGIN_S)
            name = self._file_of(window["pack"])
            data = _read_to_decode(self._build, clip_id, window, name)
            try:
                part, native = decode_segment(data, at - window["start_s"], stop - at)
            except AudioError as error:
                raise _damage(self._build.name(name), clip_id, window, f"does not decode ({error})") from error
            parts.append(part)
            at = stop
        if not parts:
            return np.zeros(0, np.float32)
        wave = np.concatenate(parts)
        if native != rate:
            wave = soxr.resample(wave, native, rate, quality="HQ")
        skip = round((start_s - begin) * rate)
        return wave[skip : skip + round(duration_s * rate)]
