"""One clip from source bytes to encoded windows, facts and fingerprint: decoded once, in blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sharding.audio import CANONICAL_RATE, AudioError, AudioForm, Decoded, Source, decode, encode, mix, quantise
from sharding.audio.formats import FORMATS
from sharding.audio.resample import Resampler
from sharding.common.errors import InputError
from sharding.probe.measures import Measures
from sharding.probe.windows import Cutter, WindowRule

LEAST_WINDOW_S = 0.05  # shorter windows and hops make of one recording more samples than a manifest can hold
_COPY = 1 << 20  # bytes a piece, where a source is taken over as it is
_SAME = {"flac": ("FLAC/PCM_16", b"fLaC"), "wav": ("WAV/PCM_16", b"RIFF"), "opus": ("OGG/OPUS", b"OggS")}


@dataclass(frozen=True)
class ProbeSettings:
    """What the probe makes of recordings; part of what names a plan.

    Args:
        form: how sound is stored.
        window_s: recordings longer than this become numbered windows of this length, in seconds.
        hop_s: seconds from the beginning of a window to that of the next.
        tail_s: a rest shorter than this is not a window of its own: it lengthens the last one.
        min_s: shorter recordings are ``too_short``.
        max_s: longer recordings are ``too_long``; None: no limit.
        timeout_s: seconds that any clip may take, plus one for every 50 kB.
        memory_mb: how much a decoder may allocate before it is stopped (``out_of_memory``).
    """

    form: AudioForm = field(default_factory=AudioForm)
    window_s: float = 60.0
    hop_s: float = 60.0
    tail_s: float = 10.0
    min_s: float = 0.1
    max_s: float | None = None
    timeout_s: float = 60.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        lengths = (self.window_s, self.hop_s, self.tail_s, self.min_s)
        finite = all(math.isfinite(length) for length in lengths)
        if not (finite and min(self.window_s, self.hop_s) >= LEAST_WINDOW_S and 0 <= self.tail_s <= self.window_s):
            raise InputError(
                "windows cannot be cut like this",
                value=(self.window_s, self.hop_s, self.tail_s),
                remedy=f"window_s and hop_s are finite and at least {LEAST_WINDOW_S}, tail_s is 0 to window_s",
            )
        if self.max_s is not None and not self.max_s >= self.min_s:
            raise InputError("no clip could be kept", value=self.max_s, remedy=f"max_s is at least {self.min_s} s")

    @property
    def rule(self) -> WindowRule:
        rate = self.form.rate
        return WindowRule(
            max(1, round(self.window_s * rate)), max(1, round(self.hop_s * rate)), round(self.tail_s * rate)
        )


Write = Callable[[bytes], None]  # takes the bytes of a clip's windows, one after the other


class _ClipProbe:
    """The state of one clip on its way through."""

    def __init__(self, source: Source, settings: ProbeSettings, write: Write) -> None:
        self._source, self._settings, self._write = source, settings, write
        self._form = settings.form
        self._canonical_form = self._form.rate == CANONICAL_RATE and self._form.channels == 1
        self.decoded, self.measures = Decoded(), Measures()
        self._cutter = Cutter(settings.rule, self._form.channels)
        self.windows: list[dict[str, Any]] = []
        self.copied = False  # whether the source's bytes are what is stored
        self._source_level: float | None = None  # of every sample of every channel so far; None: they differ

    def run(self) -> None:
        to_canonical = to_form = None
        for block in decode(self._source, self.decoded):
            if to_canonical is None:
                to_canonical = Resampler(self.decoded.rate, CANONICAL_RATE, 1)
                if not self._canonical_form:
                    to_form = Resampler(self.decoded.rate, self._form.rate, self._form.channels)
            self._check_length(final=False)
            self._hear(block)
            self._take(
                to_canonical.push(mix(block, 1)),
                None if to_form is None else to_form.push(mix(block, self._form.channels)),
            )
        if to_canonical is not None:
            self._take(to_canonical.finish(), None if to_form is None else to_form.finish())
        self._check_length(final=True)
        if self.measures.constant or self._source_level is not None:
            raise AudioError("silent", self._constancy())
        self._finish()

    def _constancy(self) -> str:
        if self._source_level is not None:
            return f"every sample is {abs(self._source_level):.6g} of full scale"
        mixed = ", all channels mixed" if self.decoded.channels > 1 else ""
        return f"in 16 bits every sample is the same{mixed}; the peak is {self.measures.peak:.6g} of full scale"

    def _hear(self, block: np.ndarray) -> None:
        """Keep what every sample so far equals: a resampler rings at the ends of a constant."""
        if self._source_level is not None or self.decoded.frames == len(block):
            level = block[0, 0] if self._source_level is None else np.float32(self._source_level)
            self._source_level = float(level) if (block == level).all() else None

    def _take(self, canonical: np.ndarray, shaped: np.ndarray | None) -> None:
        samples = self.measures.push(np.ascontiguousarray(canonical[:, 0]))
        stored = samples[:, None] if shaped is None else quantise(shaped)
        for start, window in self._cutter.push(stored):
            self._encode(start, window)

    def _check_length(self, *, final: bool) -> None:
        seconds = self.decoded.frames / self.decoded.rate
        limit = self._settings.max_s
        if limit is not None and seconds > limit:
            raise AudioError("too_long", f"longer than {limit:g} s")
        if final and seconds < self._settings.min_s:
            raise AudioError("too_short", f"{seconds:.6g} s, and {self._settings.min_s:g} s are asked for")

    def _finish(self) -> None:
        start, window = self._cutter.finish()
        if len(window) == self._cutter.arrived and self._has_form:  # one window, and nothing beyond it
            self.copied = True
            for at in range(0, self._source.size, _COPY):
                self._write(self._source.read(at, _COPY))
            self._close_window(0, len(window), self._source.size, self._source.sha256())
        else:
            self._encode(start, window)

    @property
    def _has_form(self) -> bool:
        """Whether the source has the form that is asked for, given that it is one window."""
        if self._form.codec == "original":
            return True
        codec, magic = _SAME[self._form.codec]
        return (
            self.decoded.codec == codec
            and self._source.read(0, 4) == magic  # a tag in front, or big-endian WAV: few readers know them
            and self.decoded.rate == self._form.rate
            and self.decoded.channels == self._form.channels
            and not self.decoded.remarks
        )

    @property
    def suffix(self) -> str:
        if self._form.codec == "original" and self.copied:
            return FORMATS[self.decoded.format].suffix
        return self._form.window_codec

    def _encode(self, start: int, window: np.ndarray) -> None:
        data = encode(window, self._form)
        self._write(data)
        self._close_window(start, len(window), len(data), hashlib.sha256(data).hexdigest())

    def _close_window(self, start: int, frames: int, size: int, sha256: str) -> None:
        rate = self._form.rate
        self.windows.append({"start_s": start / rate, "duration_s": frames / rate, "bytes": size, "sha256": sha256})


class Finding(NamedTuple):
    """What a probed clip is.

    ``facts`` lack ``clip_id`` and ``windows``; ``windows`` have ``start_s, duration_s, bytes, sha256`` in the order of
    their bytes, and ``fingerprint`` is (codes, flags).  A clip that failed has an ``error`` among its facts, and
    neither windows nor a fingerprint.
    """

    facts: dict[str, Any]
    windows: Sequence[dict[str, Any]] = ()
    fingerprint: tuple[bytes, bytes] | None = None


def probe_clip(source: Source, settings: ProbeSettings, write: Write) -> Finding:
    """Decode a clip and ``write`` its windows; those of a clip that fails may have been written in part.

    Errors of storage, and what ``write`` raises, pass through.
    """
    clip = _ClipProbe(source, settings, write)
    failure: AudioError | None = None
    try:
        clip.run()
    except AudioError as error:
        failure = error
    except MemoryError:
        failure = AudioError("out_of_memory", f"more than {settings.memory_mb} MB")
    facts = _facts(clip, source, failure)
    if failure is not None:
        return Finding(facts)
    codes, flags = clip.measures.fingerprint()
    return Finding(facts, clip.windows, (codes.astype("<u4").tobytes(), flags.astype("u1").tobytes()))


def _facts(clip: _ClipProbe, source: Source, failure: AudioError | None) -> dict[str, Any]:
    decoded, measures = clip.decoded, clip.measures
    remarks = list(decoded.remarks)
    if failure is not None:
        remarks.insert(0, failure.detail)
    elif measures.peak > 1.0 + 1e-3:
        remarks.append(f"clipped: the peak is {measures.peak:.6g} of full scale")
    facts: dict[str, Any] = {
        "error": None if failure is None else failure.error,
        "detail": "; ".join(remarks) or None,
        "source_bytes": source.size,
        "source_sha256": source.sha256(),
    }
    if decoded.rate:
        facts |= {
            "codec": decoded.codec,
            "source_rate": decoded.rate,
            "source_channels": decoded.channels,
            "duration_s": decoded.frames / decoded.rate,
        }
    if failure is None or failure.error == "silent":
        facts |= {"peak": measures.peak, "rms": measures.rms, "pcm_sha256": measures.pcm_sha256}
    if failure is None:
        facts |= {"bandwidth_hz": measures.bandwidth_hz, "copied": clip.copied, "ext": clip.suffix}
    return facts
