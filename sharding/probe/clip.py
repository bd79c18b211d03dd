"""One clip from source bytes to encoded windows, facts and fingerprint: decoded once, in blocks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sharding.audio import CANONICAL_RATE, AudioError, AudioForm, Decoded, Source, decode, encode, mix, quantise
from sharding.audio.formats import FORMATS
from sharding.audio.resample import Resampler
from sharding.common.errors import InputError
from sharding.probe.measures import Measures
from sharding.probe.windows import Cutter, WindowRule
from sharding.rows import FactsRow, Window

LEAST_WINDOW_S = 0.05  # shorter windows or hops would make more samples of one recording than a manifest can number
_COPY = 1 << 20  # bytes written at once where a source is copied unchanged
# For each codec of shards: what the decoder calls a file of that codec, and the first bytes of such a file.
_SAME = {"flac": ("FLAC/PCM_16", b"fLaC"), "wav": ("WAV/PCM_16", b"RIFF"), "opus": ("OGG/OPUS", b"OggS")}


@dataclass(frozen=True)
class ProbeSettings:
    """The settings of the probe; they are part of the hash that names a plan.

    Args:
        form: how sound is stored.
        window_s: recordings longer than this become numbered windows of this length, in seconds.
        hop_s: seconds from the beginning of a window to the beginning of the next one.
        tail_s: a rest shorter than this is added to the last window and makes no window of its own.
        min_s: shorter recordings are ``too_short``.
        max_s: longer recordings are ``too_long``; None: no limit.
        timeout_s: seconds that any clip may take, plus one for every 50 kB of its file.
        memory_mb: how much memory a decoder may use before it is stopped (``out_of_memory``).
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
                "the lengths of windows do not fit together",
                value=(self.window_s, self.hop_s, self.tail_s),
                remedy=f"window_s and hop_s are finite and at least {LEAST_WINDOW_S}, tail_s is 0 to window_s",
            )
        if self.max_s is not None and not self.max_s >= self.min_s:
            raise InputError(
                "max_s is below min_s, so that no clip could be kept",
                value=self.max_s,
                remedy=f"at least {self.min_s} s",
            )

    @property
    def rule(self) -> WindowRule:
        """Where windows begin and end, in frames at the stored rate."""
        rate = self.form.rate
        return WindowRule(
            max(1, round(self.window_s * rate)), max(1, round(self.hop_s * rate)), round(self.tail_s * rate)
        )


@dataclass(frozen=True, slots=True)
class ProbedClip:
    """What the probe found out about a clip.

    Attributes:
        facts: its row of FACTS.  A clip that failed has an ``error``, and no windows.
        fingerprint: its codes and flags as FINGERPRINTS stores them; None if the clip failed.
    """

    facts: FactsRow
    fingerprint: tuple[bytes, bytes] | None = None

    @staticmethod
    def failed(clip_id: str, error: str, detail: str | None = None) -> ProbedClip:
        """A clip of which nothing is known but its error class, and the reason in words."""
        unknown = FactsRow._make([None] * len(FactsRow._fields))
        return ProbedClip(unknown._replace(clip_id=clip_id, error=error, detail=detail, windows=[]))


class WindowWriter(Protocol):
    """The interface to which the bytes of a clip's windows are written, one window after the other."""

    @property
    def pack(self) -> str:
        """The name of the pack that the bytes are written to."""
        ...

    @property
    def position(self) -> int:
        """The byte of the pack where the next write begins."""
        ...

    def write(self, data: bytes) -> None:
        """Append bytes."""
        ...


def probe_clip(clip_id: str, source: Source, settings: ProbeSettings, writer: WindowWriter) -> ProbedClip:
    """Decode a clip, write its windows and measure its sound.

    Windows of a clip that fails may have been written in part; its facts list none of them.
    Errors of storage, and errors that ``writer`` raises, are not caught.
    """
    probe = _ClipProbe(source, settings, writer)
    failure: AudioError | None = None
    try:
        probe.run()
    except AudioError as error:
        failure = error
    except MemoryError:
        failure = AudioError("out_of_memory", f"more than {settings.memory_mb} MB")
    facts = probe.facts(clip_id, failure)
    if failure is not None:
        return ProbedClip(facts)
    codes, flags = probe.measures.fingerprint()
    return ProbedClip(facts, (codes.astype("<u4").tobytes(), flags.astype("u1").tobytes()))


class _ClipProbe:
    """The state of one clip while its blocks stream by."""

    def __init__(self, source: Source, settings: ProbeSettings, writer: WindowWriter) -> None:
        self._source, self._settings, self._writer = source, settings, writer
        self._form = settings.form
        self._stored_is_canonical = self._form.rate == CANONICAL_RATE and self._form.channels == 1
        self.decoded, self.measures = Decoded(), Measures()
        self._cutter = Cutter(settings.rule, self._form.channels)
        self._windows: list[Window] = []
        self._copied = False  # whether the stored bytes are the source's own bytes
        self._constant: float | None = (
            None  # the value that every sample of every channel has so far; None: they differ
        )

    def run(self) -> None:
        """Decode, measure and write.  Raises ``AudioError`` if the clip cannot be used."""
        to_canonical = to_form = None
        for block in decode(self._source, self.decoded):
            if to_canonical is None:
                to_canonical = Resampler(self.decoded.rate, CANONICAL_RATE, 1)
                if not self._stored_is_canonical:
                    to_form = Resampler(self.decoded.rate, self._form.rate, self._form.channels)
            self._check_length(final=False)
            self._follow_constant(block)
            self._take(
                to_canonical.push(mix(block, 1)),
                None if to_form is None else to_form.push(mix(block, self._form.channels)),
            )
        if to_canonical is not None:
            self._take(to_canonical.finish(), None if to_form is None else to_form.finish())
        self._check_length(final=True)
        self._check_silence()
        self._finish()

    def _check_length(self, *, final: bool) -> None:
        seconds = self.decoded.frames / self.decoded.rate
        limit = self._settings.max_s
        if limit is not None and seconds > limit:
            raise AudioError("too_long", f"longer than {limit:g} s")
        if final and seconds < self._settings.min_s:
            raise AudioError("too_short", f"{seconds:.6g} s, and {self._settings.min_s:g} s are asked for")

    def _follow_constant(self, block: np.ndarray) -> None:
        """Note whether all source samples are still equal.

        The canonical sound cannot tell: a resampler rings at both ends of a constant signal.
        """
        if self._constant is not None or self.decoded.frames == len(block):
            level = block[0, 0] if self._constant is None else np.float32(self._constant)
            self._constant = float(level) if (block == level).all() else None

    def _check_silence(self) -> None:
        if self._constant is not None:
            raise AudioError("silent", f"every sample is {abs(self._constant):.6g} of full scale")
        if self.measures.constant:
            mixed = ", all channels mixed" if self.decoded.channels > 1 else ""
            peak = f"the peak is {self.measures.peak:.6g} of full scale"
            raise AudioError("silent", f"in 16 bits every sample is the same{mixed}; {peak}")

    def _take(self, canonical: np.ndarray, shaped: np.ndarray | None) -> None:
        """Measure the canonical sound and store it, or ``shaped`` where the stored form is another."""
        samples = self.measures.push(np.ascontiguousarray(canonical[:, 0]))
        stored = samples[:, None] if shaped is None else quantise(shaped)
        for start, window in self._cutter.push(stored):
            self._encode(start, window)

    def _finish(self) -> None:
        """Store the last window: encoded, or copied where the source is one window in the stored form."""
        start, window = self._cutter.finish()
        if len(window) == self._cutter.arrived and self._has_stored_form:
            self._copied = True
            begin = self._writer.position
            for at in range(0, self._source.size, _COPY):
                self._writer.write(self._source.read(at, _COPY))
            self._add_window(0, len(window), begin, self._source.sha256())
        else:
            self._encode(start, window)

    @property
    def _has_stored_form(self) -> bool:
        """Whether the source's bytes can be stored unchanged, given that they are one window."""
        if self._form.codec == "original":
            return True
        codec, magic = _SAME[self._form.codec]
        return (
            self.decoded.codec == codec
            and self._source.read(0, 4) == magic  # few readers know tags in front of the sound, or big-endian WAV
            and self.decoded.rate == self._form.rate
            and self.decoded.channels == self._form.channels
            and not self.decoded.remarks
        )

    def _encode(self, start: int, window: np.ndarray) -> None:
        data = encode(window, self._form)
        begin = self._writer.position
        self._writer.write(data)
        self._add_window(start, len(window), begin, hashlib.sha256(data).hexdigest())

    def _add_window(self, start: int, frames: int, offset: int, sha256: str) -> None:
        """Note the window that lies in the pack from ``offset`` to where the next write begins."""
        rate = self._form.rate
        size = self._writer.position - offset
        self._windows.append(
            Window(
                window=len(self._windows),
                start_s=start / rate,
                duration_s=frames / rate,
                pack=self._writer.pack,
                offset=offset,
                bytes=size,
                sha256=sha256,
            )
        )

    @property
    def _suffix(self) -> str:
        if self._form.codec == "original" and self._copied:
            return FORMATS[self.decoded.format].suffix
        return self._form.window_codec

    def facts(self, clip_id: str, failure: AudioError | None) -> FactsRow:
        """What is known of the clip once ``run`` has ended; ``failure``: how, where it did not end well."""
        decoded, measures = self.decoded, self.measures
        known, well = bool(decoded.rate), failure is None
        measured = failure is None or failure.error == "silent"
        return FactsRow(
            clip_id=clip_id,
            error=None if failure is None else failure.error,
            detail="; ".join(self._remarks(failure)) or None,
            source_bytes=self._source.size,
            source_sha256=self._source.sha256(),
            codec=decoded.codec if known else None,
            source_rate=decoded.rate if known else None,
            source_channels=decoded.channels if known else None,
            duration_s=decoded.frames / decoded.rate if known else None,
            pcm_sha256=measures.pcm_sha256 if measured else None,
            peak=measures.peak if measured else None,
            rms=measures.rms if measured else None,
            bandwidth_hz=measures.bandwidth_hz if well else None,
            copied=self._copied if well else None,
            ext=self._suffix if well else None,
            windows=self._windows if well else [],
        )

    def _remarks(self, failure: AudioError | None) -> list[str]:
        if failure is not None:
            return [failure.detail, *self.decoded.remarks]
        if self.measures.peak > 1.0 + 1e-3:
            return [*self.decoded.remarks, f"clipped: the peak is {self.measures.peak:.6g} of full scale"]
        return self.decoded.remarks
