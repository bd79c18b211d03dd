"""Sound files as blocks of float32, decoded by libsndfile or PyAV (FFmpeg); no header is trusted.

The rules where decoders or headers disagree:

1. The first bytes decide the format (``formats``), never the file's name.  The structure is checked (``structure``)
   before anything is decoded: a cut file is ``truncated``, even if a decoder accepts it.
2. libsndfile decodes the formats that it knows (WAV, AIFF, CAF, AU, W64, FLAC, MP3, Ogg and others).  PyAV decodes
   the others, and Opus, which it decodes faster.  PyAV also decodes files of which libsndfile is known to read only a
   part (``Extent.libsndfile``): MP3 whose header does not count every frame, chained Ogg streams, WAV and FLAC
   that state no length.
3. If libsndfile refuses a file, PyAV is tried, except for FLAC, whose reference decoder libsndfile contains.  A file
   that PyAV decodes without any error is accepted, and its facts say so.  If both refuse it, it is ``undecodable``.
4. If both could decode it, libsndfile's length counts.  If a decoder delivers fewer samples than the file announces,
   the file is ``truncated``; the clocks of containers may be wrong by ``SLACK_S``.  Data after the announced end are
   no part of the recording.
5. Damage inside a stream is ``undecodable``, because decoders skip it or replace it by silence and do not report it: a
   wrong checksum, a page or frame that is missing or occurs twice, bytes between frames, a clock that leaps by more
   than ``SLACK_S``.  So are NaN, infinity and values beyond ``LOUDEST``.  Values beyond full scale count in ``peak``
   and are clipped in the stored sound.
6. No memory is allocated because a header names a number: the size of blocks is limited by ``BLOCK_VALUES``.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import av
import numpy as np
import soundfile

from sharding.audio.errors import AudioError
from sharding.audio.extent import check_rate
from sharding.audio.flac import ends_whole
from sharding.audio.formats import FRAME_READERS, Format, recognise
from sharding.audio.source import Source
from sharding.audio.structure import check_complete

BLOCK_VALUES = 1 << 19  # the most samples of a block, over all channels
LOUDEST = 2.0**31  # of full scale: 32-bit integers stored as floats; greater values, and NaN, are damage
SLACK_S = 0.1  # a complete stream may be this much shorter than its container's clock says
_TRACK_ENDS = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_CHECKSUMMED = ("flac", "tta", "wavpack")  # codecs whose checksums FFmpeg checks only on request

av.logging.set_level(av.logging.PANIC)


@dataclass
class Decoded:
    """What is known of a recording; ``decode`` fills it in.

    Attributes:
        format: the name of its format, a key of ``FORMATS``.
        codec: e.g. ``FLAC/PCM_16``.
        rate: samples a second.
        channels: the number of channels.
        frames: samples of each channel that were delivered so far.
        decoder: ``libsndfile`` or ``pyav``.
        integers: whether the file holds integers, which are always finite.
        declared: whether the header states the length, and does not only guess it.
        remarks: harmless oddities, in words.
    """

    format: str = ""
    codec: str = ""
    rate: int = 0
    channels: int = 0
    frames: int = 0
    decoder: str = ""
    integers: bool = False
    declared: bool = True
    remarks: list[str] = field(default_factory=list)


def decode(source: Source, decoded: Decoded) -> Iterator[np.ndarray]:
    """Blocks of float32 ``[n, channels]``, in order; ``decoded`` is filled in before the first one.

    Raises:
        AudioError: what is wrong with the file; possibly after some blocks.
    """
    if source.size == 0:
        raise AudioError("empty", "0 bytes")
    form, offset = recognise(source)
    decoded.format = form.name
    extent = check_complete(form.name, source, offset)
    decoded.declared = extent.declared
    if extent.remark:
        decoded.remarks.append(extent.remark)
    view = functools.partial(source.view, offset, extent.end, extent.head)
    blocks = _libsndfile if form.libsndfile and extent.libsndfile and not is_opus(source, offset) else _pyav
    try:
        yield from _checked(blocks(view(), source, form, decoded), decoded)
    except _Refused as refusal:
        if form.name == "flac" and decoded.decoder and not ends_whole(source, offset):
            raise AudioError("truncated", f"the last frame is not whole ({refusal.detail})") from refusal
        if blocks is _pyav or form.name == "flac" or decoded.frames:
            raise AudioError("undecodable", refusal.detail) from refusal
        try:
            yield from _checked(_pyav(view(), source, form, decoded), decoded)
            decoded.remarks.append(f"decoded by PyAV; libsndfile refused it: {refusal.detail}")
        except _Refused as second:
            raise AudioError("undecodable", f"{refusal.detail}; {second.detail}") from second
    if decoded.frames == 0:
        raise AudioError("empty", "not one sample")
    if decoded.frames < extent.frames:
        raise AudioError("truncated", f"{decoded.frames} samples of {extent.frames} that the file announces")


class _Refused(Exception):
    """A decoder cannot decode the file, or its rest."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


def _checked(blocks: Iterator[np.ndarray], decoded: Decoded) -> Iterator[np.ndarray]:
    for block in blocks:
        if not decoded.integers and not are_samples(block):
            raise AudioError("undecodable", f"a value that is no sample follows sample {decoded.frames}")
        decoded.frames += len(block)
        yield block


def are_samples(block: np.ndarray) -> bool:
    """Whether all values can be samples: finite, and not beyond ``LOUDEST``."""
    return block.size == 0 or max(float(block.max()), -float(block.min())) <= LOUDEST


def is_opus(source: Source, offset: int) -> bool:
    """Whether an Ogg stream holds Opus (RFC 7845, section 5.1)."""
    return b"OpusHead" in source.read(offset, 64)


def _libsndfile(view: BinaryIO, source: Source, form: Format, decoded: Decoded) -> Iterator[np.ndarray]:
    try:
        file = soundfile.SoundFile(view)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise _Refused(_words(error)) from error
    with file:
        check_rate(file.samplerate, file.channels)
        if file.subtype.startswith("MPEG") and form.name != "mp3":
            raise _Refused("libsndfile would guess its length")
        decoded.codec, decoded.decoder = f"{file.format}/{file.subtype}", "libsndfile"
        decoded.rate, decoded.channels = file.samplerate, file.channels
        decoded.integers = file.subtype.startswith("PCM_")
        announced = file.frames
        size = max(1, BLOCK_VALUES // file.channels)
        got = 0
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _Refused(_words(error)) from error
            if len(block) == 0:
                break
            got += len(block)
            yield block
    if source.error is not None:
        raise source.error
    if form.exact and announced < 1 << 62 and got < announced:
        raise AudioError("truncated", f"{got} samples of {announced} that the header announces")


def _pyav(view: BinaryIO, source: Source, form: Format, decoded: Decoded) -> Iterator[np.ndarray]:
    try:
        with av.open(view, mode="r", format=form.demuxer, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError("not_audio", f"a {form.name} file without a sound track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise _Refused("no decoder knows its coding")
            decoded.codec = f"{form.name}/{stream.codec_context.name}".upper()
            decoded.decoder = "pyav"
            check_codec_checksums(stream)
            announced = _announced_s(container, stream) if form.exact and decoded.declared else 0.0
            got = 0
            for block in _gather(decoded_frames(container, stream, form), decoded):
                got += len(block)
                yield block
    except av.FFmpegError as error:
        if source.error is not None:
            raise source.error from error
        raise _Refused(_words(error)) from error
    if source.error is not None:
        raise source.error
    if got / max(decoded.rate, 1) < announced - SLACK_S:
        raise AudioError("truncated", f"less than {announced:.3f} s, which the header announces")


def _announced_s(container: Any, stream: Any) -> float:
    """Seconds that a container says its sound lasts; 0 if it does not."""
    start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    if tagged := _TRACK_ENDS.fullmatch(stream.metadata.get("DURATION", "")):  # Matroska's tag of a track
        hours, minutes, seconds = tagged.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start
    if stream.duration is not None and stream.time_base is not None and container.format.name != "asf":
        # in Ogg this is the time at which the stream ends, counted from 0
        return float(stream.duration * stream.time_base) - (start if container.format.name == "ogg" else 0.0)
    if len(container.streams) > 1 or not container.duration:  # of the longest stream, maybe a picture
        return 0.0
    return container.duration / av.time_base - start


def decoded_frames(container: Any, stream: Any, form: Format) -> Iterator[Any]:
    """The decoded frames of a stream.

    Raises:
        AudioError: its clock leaps by more than ``SLACK_S``: sound is missing.
    """
    decoder, end = audio_decoder(stream), math.inf
    for packet in container.demux(stream):
        # FFmpeg delivers a tag between two joined files as a packet; the frames were checked before
        if form.name == "mp3" and packet.size and bytes(packet)[0] != 0xFF:
            continue
        for frame in decoder.decode(packet):
            # FFmpeg estimates the clock of MP3 and AAC without a container; their frames were checked before
            if form.name not in FRAME_READERS and frame.pts is not None and frame.time_base is not None:
                begin = float(frame.pts * frame.time_base)
                if begin - end > SLACK_S:
                    raise AudioError("undecodable", f"no sound from {end:.3f} s to {begin:.3f} s of its clock")
                end = begin + frame.samples / frame.sample_rate
            yield frame


def check_codec_checksums(stream: Any) -> None:
    """Let FFmpeg fail where a codec's own checksums show damage, before the stream's decoder is opened."""
    if stream.codec_context is not None and stream.codec_context.name in _CHECKSUMMED:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}


def audio_decoder(stream: Any) -> Any:
    """The decoder for a stream; for AMR OpenCORE's, because FFmpeg's own cannot decode pauses (DTX)."""
    own = stream.codec_context
    if own is None:
        raise AudioError("undecodable", "no decoder knows its coding")
    if own.name not in ("amrnb", "amrwb") or f"libopencore_{own.name}" not in av.codecs_available:
        return own
    decoder = cast(av.AudioCodecContext, av.CodecContext.create(f"libopencore_{own.name}", "r"))
    decoder.sample_rate, decoder.layout = own.sample_rate, "mono"
    return decoder


def _gather(frames: Iterator[Any], decoded: Decoded) -> Iterator[np.ndarray]:
    """The frames of a stream, joined into blocks."""
    parts: list[np.ndarray] = []
    values = 0
    for frame in frames:
        block = frame_samples(frame)
        if decoded.rate == 0 or (decoded.frames == 0 and not parts):
            decoded.rate, decoded.channels = frame.sample_rate, block.shape[1]
            check_rate(decoded.rate, decoded.channels)
        elif (frame.sample_rate, block.shape[1]) != (decoded.rate, decoded.channels):
            raise AudioError("undecodable", "the rate or the number of channels changes within the stream")
        parts.append(block)
        values += block.size
        if values >= BLOCK_VALUES:
            yield np.concatenate(parts)
            parts, values = [], 0
    if parts:
        yield np.concatenate(parts)


def frame_samples(frame: Any) -> np.ndarray:
    """A PyAV frame's samples as float32 ``[n, channels]``, full scale 1."""
    channels = frame.layout.nb_channels
    if frame.format.name in ("s64", "s64p"):  # the only format that PyAV cannot convert to an array
        array = np.stack([np.frombuffer(plane, np.int64) for plane in frame.planes])
        array = array[:, : frame.samples * (1 if frame.format.is_planar else channels)]
    else:
        array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    return np.ascontiguousarray(array / np.float32(2.0 ** (8 * array.itemsize - 1)), dtype=np.float32)


def _words(error: Exception) -> str:
    """The message of a decoder's error, in one line."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200]
