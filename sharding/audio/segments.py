"""A part of a recording that lies in memory: what the loader and the matcher read."""

from __future__ import annotations

import io
from typing import BinaryIO

import av
import numpy as np
import soundfile

from sharding.audio.decoders import are_samples, check_codec_checksums, decoded_frames, frame_samples, is_opus
from sharding.audio.errors import AudioError
from sharding.audio.form import mix
from sharding.audio.formats import Format, recognise
from sharding.audio.memory_file import descriptor_of
from sharding.audio.source import Source
from sharding.audio.structure import check_complete

PREROLL_S = 0.1  # Opus wants 80 ms to converge after a seek (RFC 7845, section 4.6)
_LONGEST = 1 << 40  # samples; a greater length means that libsndfile does not know it


def decode_segment(
    data: bytes, start_s: float = 0.0, duration_s: float | None = None, out: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Decode only ``[start_s, start_s + duration_s)`` of a sound file in memory.

    One decoder is asked, by the rules of ``decoders``.  If it meets damage, that is an error: another decoder might
    skip the damage and say nothing.

    Args:
        data: a whole file, e.g. a member of a shard.
        start_s: seconds from its beginning.
        duration_s: seconds; None: to its end.
        out: float32 memory for samples that libsndfile can write there as they are, which saves a copy of them.

    Returns:
        float32 ``[n]`` mono (the mean of all channels), shorter than asked only where the file ends, a part of ``out``
        or not; and its rate.

    Raises:
        AudioError: the bytes are not a sound file that decodes.
    """
    if data[:4] == b"fLaC":  # most of what shards hold; libsndfile checks every frame that it reads
        number = descriptor_of(data)
        sound = _open(io.BytesIO(data) if number is None else number)
        if sound is not None:
            return _read(sound, start_s, duration_s, out, exact=True)
    source = Source(data, len(data))
    form, offset = recognise(source)
    extent = check_complete(form.name, source, offset)
    if form.libsndfile and extent.libsndfile and not is_opus(source, offset):
        sound = _open(source.view(offset, extent.end, extent.head))
        if sound is not None:
            return _read(sound, start_s, duration_s, out, exact=form.exact)
        if form.name == "flac":  # libsndfile holds the reference decoder
            raise AudioError("undecodable", "the FLAC decoder refuses it")
    return _seek_and_decode(source.view(offset, extent.end, extent.head), form, start_s, duration_s)


def _open(file: BinaryIO | int) -> soundfile.SoundFile | None:
    """The file, or that of a descriptor, as libsndfile reads it; None if it refuses it, or does not know its length."""
    try:
        sound = soundfile.SoundFile(file, closefd=False)
    except (soundfile.LibsndfileError, TypeError, ValueError):
        return None
    if 0 < sound.frames < _LONGEST and (sound.format == "MP3" or not sound.subtype.startswith("MPEG")):
        return sound
    sound.close()
    return None


def _read(
    sound: soundfile.SoundFile, start_s: float, duration_s: float | None, out: np.ndarray | None, *, exact: bool
) -> tuple[np.ndarray, int]:
    """The segment by libsndfile; ``exact``: the length that the file announces is exact."""
    try:
        with sound:
            rate, integers = sound.samplerate, sound.subtype.startswith("PCM_")
            start = min(round(start_s * rate), sound.frames)
            count = sound.frames - start
            if duration_s is not None:
                count = min(count, round(duration_s * rate))
            skip = 0 if sound.seekable() else start  # GSM and G.72x can only be decoded from the beginning
            if start > skip:
                sound.seek(start)
            if out is not None and sound.channels == 1 and not skip and count <= len(out):
                block = sound.read(out=out[:count, None])
            else:
                block = sound.read(skip + count, dtype="float32", always_2d=True)[skip:]
    except soundfile.LibsndfileError as error:
        raise AudioError("undecodable", str(error)) from error
    if exact and len(block) < count:
        raise AudioError("truncated", f"{len(block)} samples of {count} that the header announces")
    if not integers and not are_samples(block):
        raise AudioError("undecodable", "a value that is no sample")
    return mix(block, 1)[:, 0], rate


def _seek_and_decode(file: BinaryIO, form: Format, start_s: float, duration_s: float | None) -> tuple[np.ndarray, int]:
    """The segment by PyAV: seek to a little before the start, decode, and cut by time stamps."""
    parts: list[np.ndarray] = []
    rate, first = 0, None
    try:
        with av.open(file, mode="r", format=form.demuxer, metadata_errors="ignore") as container:
            stream = container.streams.audio[0]
            assert stream.time_base is not None  # a stream that is read has a clock
            origin = float((stream.start_time or 0) * stream.time_base)
            check_codec_checksums(stream)
            if start_s > PREROLL_S:
                container.seek(int((start_s - PREROLL_S + origin) * av.time_base), backward=True)
            for frame in decoded_frames(container, stream, form):
                at = float(frame.pts * stream.time_base) - origin if frame.pts is not None else 0.0
                rate, first = frame.sample_rate, at if first is None else first
                block = frame_samples(frame)
                if not are_samples(block):
                    raise AudioError("undecodable", "a value that is no sample")
                parts.append(mix(block, 1)[:, 0])
                if duration_s is not None and at + frame.samples / rate >= start_s + duration_s:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise AudioError("undecodable", str(error)) from error
    if not parts or first is None:
        return np.zeros(0, np.float32), rate or 1
    skip = max(0, round((start_s - first) * rate))
    wave = np.concatenate(parts)[skip:]
    return (wave if duration_s is None else wave[: round(duration_s * rate)]), rate
