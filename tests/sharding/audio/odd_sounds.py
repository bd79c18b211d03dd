"""Two seconds of one sound in every format that people have, made on the spot."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import soundfile as sf

from sharding.audio import ERROR_CLASSES
from sharding.common.storage import Storage
from sharding.probe.batch import Batch, Prober
from sharding.probe.clip import ProbeSettings
from sharding.probe.packs import PackReader
from sharding.schema import CATALOGUE
from tests.sharding.corpora import noise

SECONDS = 2.0
ANY_LENGTH = ProbeSettings(min_s=0.0)
NEVER = {"crashed", "timeout", "out_of_memory"}  # error classes that no file of a few bytes may have


def wave(rate: int, channels: int = 1) -> np.ndarray:
    """float32 [n, channels]: noise whose channels differ in level."""
    mono = noise(7, SECONDS, rate)
    return np.stack([mono * (1 - 0.05 * channel) for channel in range(channels)], 1)


def by_soundfile(form: str, subtype: str, rate: int = 44100, channels: int = 1, **options: Any) -> bytes:
    file = io.BytesIO()
    sf.write(file, wave(rate, channels), rate, format=form, subtype=subtype, **options)
    return file.getvalue()


def by_pyav(
    form: str,
    codec: str,
    rate: int = 44100,
    bit_rate: int | None = None,
    options: Mapping[str, str] | None = None,
    coding: Mapping[str, str] | None = None,
    video: str | None = None,
    picture_s: float = 2.0,
    leap_s: float = 0.0,
) -> bytes:
    """Mono, muxed and coded by FFmpeg; ``video``: with a moving picture of that coding, ``picture_s`` long.

    In the middle of the sound its clock leaps by ``leap_s``.
    """
    file = io.BytesIO()
    samples = wave(rate)[:, 0]
    with av.open(file, "w", format=form, options=dict(options or {})) as container:
        picture: Any = container.add_stream(video, rate=10, width=64, height=64, pix_fmt="yuv420p") if video else None
        stream: Any = container.add_stream(codec, rate=rate, layout="mono", options=dict(coding or {}))
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        if picture is not None:
            for number in range(int(picture_s * 10)):
                shade = np.full((64, 64, 3), 5 * number, np.uint8)
                container.mux(picture.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            container.mux(picture.encode(None))
        context = stream.codec_context
        frames = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or 1024)
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = rate, 0
        for frame in [*frames.resample(sound), *frames.resample(None), None]:
            for packet in stream.encode(frame):
                if leap_s and packet.pts * packet.time_base > SECONDS / 2:
                    leap = round(leap_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + leap, packet.dts + leap
                container.mux(packet)
    return file.getvalue()


def id3(body: bytes) -> bytes:
    """An ID3v2.3 tag."""
    size = bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + body


def ape(body: bytes) -> bytes:
    """An APEv2 tag with its header, as it comes before sound."""

    def end(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", 2000, len(body) + 32, 1, flags) + bytes(8)

    return end(0xA0000000) + body + end(0x80000000)


def album_art() -> bytes:
    """A tag with a picture, full of bytes that look like the beginning of frames."""
    return id3(b"APIC" + struct.pack(">I", 60_000) + b"\0\0\0image/jpeg\0\3\0" + b"\xff\xfb\x90\x00" * 15_000)


def bare_mp3(variable: bool) -> bytes:
    """Frames only: no tag, no Xing header that counts them."""
    coding = {"flags": "+qscale", "global_quality": "500"} if variable else {}
    return by_pyav("mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}, coding=coding)


def counted_mp3() -> bytes:
    return by_soundfile("MP3", "MPEG_LAYER_III")


def wav(samples: bytes, rate: int = 32000, channels: int = 1, size: int | None = None, align: int = 2) -> bytes:
    """16-bit WAV whose header says what it is expected to say."""
    size = len(samples) if size is None else size
    fields = struct.pack("<IHHIIHH", 16, 1, channels, rate, (rate * align) & 0xFFFFFFFF, align, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt "
        + fields
        + b"data"
        + struct.pack("<I", size)
        + samples
    )


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def probed(
    folder: Path, settings_: ProbeSettings | None = None, names: list[str] | None = None
) -> tuple[dict[str, dict[str, Any]], PackReader]:
    """Facts by file name of these files of a folder (None: of every one), and the packs."""
    names = names or sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    rows = [dict.fromkeys(CATALOGUE.names) | {"clip_id": f"x/all/{n}", "dataset": "x", "path": n} for n in names]
    work = Storage(folder.parent / f"{folder.name}.build")
    table = pa.Table.from_pylist(rows, CATALOGUE)
    record = Prober({"x": Storage(folder)}, work, settings_ or ProbeSettings())(Batch("000000", table))
    facts = work.read_table("facts/000000.parquet")
    assert record.clips == facts.num_rows == len(names)
    assert all(row["error"] is None or row["error"] in ERROR_CLASSES for row in facts.to_pylist())
    found = {row["clip_id"].removeprefix("x/all/"): row for row in facts.to_pylist()}
    return found, PackReader(work, facts)


Maker = Callable[[], bytes]

BY_SOUNDFILE: dict[str, tuple[str, str, int, int]] = {
    **{f"{subtype}.wav": ("WAV", subtype, 44100, 1) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")},
    **{f"{subtype}.wav": ("WAV", subtype, 44100, 1) for subtype in ("DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")},
    **{f"{channels}ch.wav": ("WAVEX", "PCM_16", 16000, channels) for channels in range(1, 9)},
    **{f"{rate}.wav": ("WAV", "PCM_16", rate, 1) for rate in (4000, 11025, 12345, 96000, 384000)},
    **{f"{subtype}.aiff": ("AIFF", subtype, 44100, 1) for subtype in ("PCM_S8", "PCM_24", "DOUBLE", "ULAW")},
    **{f"{subtype}.caf": ("CAF", subtype, 44100, 1) for subtype in ("PCM_16", "ALAC_16", "ALAC_24")},
    "float.wavex.wav": ("WAVEX", "FLOAT", 44100, 2),
    "rf64.wav": ("RF64", "PCM_24", 44100, 1),
    "sony.w64": ("W64", "PCM_16", 44100, 1),
    "sun.au": ("AU", "PCM_16", 44100, 1),
    "free.flac": ("FLAC", "PCM_16", 44100, 2),
    "deep.flac": ("FLAC", "PCM_24", 96000, 1),
    "vorbis.ogg": ("OGG", "VORBIS", 44100, 1),
    "voice.opus": ("OGG", "OPUS", 48000, 1),
    "counted.mp3": ("MP3", "MPEG_LAYER_III", 44100, 1),
}
BY_PYAV: dict[str, Maker] = {
    "aac.m4a": lambda: by_pyav("ipod", "aac"),
    "alac.m4a": lambda: by_pyav("ipod", "alac"),
    "video.mp4": lambda: by_pyav("mp4", "aac", video="mpeg4"),
    "fragments.mp4": lambda: by_pyav("mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}),
    "adts.aac": lambda: by_pyav("adts", "aac"),
    "narrow.amr": lambda: by_pyav("amr", "libopencore_amrnb", 8000, 12200),
    "narrow.3gp": lambda: by_pyav("3gp", "libopencore_amrnb", 8000, 12200),
    "opus.webm": lambda: by_pyav("webm", "libopus", 48000),
    "flac.mka": lambda: by_pyav("matroska", "flac"),
    "flac.oga": lambda: by_pyav("ogg", "flac"),
    "pack.wv": lambda: by_pyav("wv", "wavpack"),
    "media.wma": lambda: by_pyav("asf", "wmav2", bit_rate=128_000),
    "ima4.aifc": lambda: by_pyav("aiff", "adpcm_ima_qt"),
    "sowt.aifc": lambda: by_soundfile("AIFF", "PCM_16", endian="LITTLE"),
    "big.wav": lambda: by_soundfile("WAV", "PCM_16", endian="BIG"),
    "constant.mp3": lambda: bare_mp3(variable=False),
    "variable.mp3": lambda: bare_mp3(variable=True),
}
BEFORE_AND_AFTER: dict[str, Maker] = {
    "id3.mp3": lambda: id3(bytes(500)) + id3(bytes(700)) + counted_mp3(),
    "art.mp3": lambda: album_art() + bare_mp3(variable=True),
    "junk.mp3": lambda: b"junk\r\n" * 300 + counted_mp3(),
    "tagged.mp3": lambda: bare_mp3(variable=True) + b"TAG".ljust(128, b"\0"),
    "trash.mp3": lambda: bare_mp3(variable=True) + b"and then some" * 100,
    "tagged.wv": lambda: by_pyav("wv", "wavpack") + b"TAG".ljust(128, b"\0"),
    "tagged.m4a": lambda: by_pyav("ipod", "aac") + b"TAG".ljust(128, b"\0"),
    "tagged.flac": lambda: id3(bytes(100)) + by_soundfile("FLAC", "PCM_16"),
}
EVERY: dict[str, Maker] = {
    **{name: functools.partial(by_soundfile, *form) for name, form in BY_SOUNDFILE.items()},
    **BY_PYAV,
    **BEFORE_AND_AFTER,
}
