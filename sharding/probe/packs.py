"""Reading what the probe wrote: sound by clip and time, bytes by clip and window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import soxr

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.layout import pack_name

_MARGIN_S = 0.05  # decoded beyond both ends, so that the resampler meets no edge


class PackReader:
    """Random access to the packs of a build.

    Args:
        build: the storage of ``OUT/.build``.
        facts: rows of FACTS; clips that failed are not known.
    """

    def __init__(self, build: Storage, facts: pa.Table) -> None:
        self._build = build
        wanted = facts.select(["clip_id", "error", "windows"]).to_pylist()
        self._windows: dict[str, list[dict[str, Any]]] = {
            row["clip_id"]: row["windows"] for row in wanted if row["error"] is None
        }

    def bytes(self, clip_id: str, window: int = 0) -> bytes:
        """A window's file, as it stands in the shard."""
        place = self._windows[clip_id][window]
        return self._build.read(pack_name(place["pack"]), place["offset"], place["bytes"])

    def wave(self, clip_id: str, start_s: float, duration_s: float, rate: int = 8000) -> np.ndarray:
        """Sound of ``[start_s, start_s + duration_s)`` as float32 ``[n]`` mono at ``rate``.

        ``start_s`` is at least 0; ``n`` is ``round(duration_s * rate)``, less only where the clip ends.  Reads and
        decodes only the windows that are needed.
        """
        begin = max(0.0, start_s - _MARGIN_S)
        parts: list[np.ndarray] = []
        native, at = 0, begin
        for window, place in enumerate(self._windows[clip_id]):
            end = place["start_s"] + place["duration_s"]
            if end <= at or at >= start_s + duration_s + _MARGIN_S or place["start_s"] > at + 1e-9:
                continue
            stop = min(end, start_s + duration_s + _MARGIN_S)
            try:
                part, native = decode_segment(self.bytes(clip_id, window), at - place["start_s"], stop - at)
            except AudioError as error:
                file = self._build.name(pack_name(place["pack"]))
                what = f"damaged: window {window} does not decode ({error})"
                raise InputError(what, file=file, value=clip_id, remedy=MEND) from error
            parts.append(part)
            at = stop
        if not parts:
            return np.zeros(0, np.float32)
        wave = np.concatenate(parts)
        if native != rate:
            wave = soxr.resample(wave, native, rate, quality="HQ")
        skip = round((start_s - begin) * rate)
        return wave[skip : skip + round(duration_s * rate)]
