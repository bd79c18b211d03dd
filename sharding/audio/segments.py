"""A piece of a recording that lies in memory: what the loader and the matcher read."""

from __future__ import annotations

import contextlib
import io
from typing import BinaryIO

import av
import numpy as np
import soundfile

from sharding.audio.decoders import audio_decoder, frame_samples
from sharding.audio.errors import AudioError
from sharding.audio.form import mix
from sharding.audio.formats import recognise
from sharding.audio.source import Source
from sharding.audio.structure import check_complete

PREROLL_S = 0.1  # Opus wants 80 ms to converge after a seek (RFC 7845, section 4.6)


def decode_segment(data: bytes, start_s: float = 0.0, duration_s: float | None = None) -> tuple[np.ndarray, int]:
    """Decode only ``[start_s, start_s + duration_s)`` of a sound file in memory.

    Args:
        data: a whole file, e.g. a shard member.
        start_s: seconds from its beginning.
        duration_s: seconds; None: to its end.

    Returns:
        float32 ``[n]`` mono (the mean of all channels), shorter than asked only where the file ends; and its rate.

    Raises:
        AudioError: the bytes are not a sound file that decodes.
    """
    if data[:4] == b"fLaC" or data[8:12] == b"WAVE":  # what shards hold, as a rule
        with contextlib.suppress(AudioError):
            return _seek_and_read(io.BytesIO(data), start_s, duration_s)
    source = Source(data, len(data))
    form, offset = recognise(source)
    extent = check_complete(form.name, source, offset)
    if form.libsndfile and extent.libsndfile and b"OpusHead" not in data[offset : offset + 64]:
        with contextlib.suppress(AudioError):
            return _seek_and_read(source.view(offset, extent.end, extent.head), start_s, duration_s)
    return _seek_and_decode(source.view(offset, extent.end, extent.head), form.demuxer, start_s, duration_s)


def _seek_and_read(file: BinaryIO, start_s: float, duration_s: float | None) -> tuple[np.ndarray, int]:
    try:
        with soundfile.SoundFile(file) as sound:
            rate = sound.samplerate
            if not 0 < sound.frames < 1 << 40 or (sound.subtype.startswith("MPEG") and sound.format != "MP3"):
                raise AudioError("undecodable", "libsndfile does not know its length")
            start = min(round(start_s * rate), sound.frames)
            count = sound.frames - start
            if duration_s is not None:
                count = min(count, round(duration_s * rate))
            skip = 0 if sound.seekable() else start  # GSM and G.72x: from the beginning on
            if start > skip:
                sound.seek(start)
            block = sound.read(skip + count, dtype="float32", always_2d=True)[skip:]
    except soundfile.LibsndfileError as error:
        raise AudioError("undecodable", str(error)) from error
    return mix(block, 1)[:, 0], rate


def _seek_and_decode(file: BinaryIO, demuxer: str, start_s: float, duration_s: float | None) -> tuple[np.ndarray, int]:
    """Through PyAV: seek a little before the start, decode, and cut by time stamps."""
    parts: list[np.ndarray] = []
    rate, first = 0, None
    try:
        with av.open(file, mode="r", format=demuxer, metadata_errors="ignore") as container:
            stream = container.streams.audio[0]
            assert stream.time_base is not None  # a stream that is read has a clock
            origin = float((stream.start_time or 0) * stream.time_base)
            if start_s > PREROLL_S:
                container.seek(int((start_s - PREROLL_S + origin) * av.time_base), backward=True)
            decoder = audio_decoder(stream)
            for frame in (frame for packet in container.demux(stream) for frame in decoder.decode(packet)):
                at = float(frame.pts * stream.time_base) - origin if frame.pts is not None else 0.0
                rate, first = frame.sample_rate, at if first is None else first
                parts.append(mix(frame_samples(frame), 1)[:, 0])
                if duration_s is not None and at + frame.samples / rate >= start_s + duration_s:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise AudioError("undecodable", str(error)) from error
    if not parts or first is None:
        return np.zeros(0, np.float32), rate or 1
    skip = max(0, round((start_s - first) * rate))
    wave = np.concatenate(parts)[skip:]
    return (wave if duration_s is None else wave[: round(duration_s * rate)]), rate
