"""Does a file end where its own structure says it should?  Decoders return what is left of a cut file in silence.

One function a container: it walks headers only, reads a few kilobytes, and either returns a remark (harmless
oddities) or raises ``AudioError``.  What headers cannot tell (FLAC, Matroska without sizes, WavPack ...) is
found by counting samples while decoding.

Lengths that stand for "not known yet" (0, all ones) are what encoders write into a pipe: such a file ends where
it ends.  A few bytes less than a frame, and a missing pad byte, are tolerated: they lose no sample.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from sharding.audio.errors import AudioError
from sharding.audio.form import MAX_CHANNELS, MAX_RATE, MIN_RATE
from sharding.audio.formats import FRAME_READERS
from sharding.audio.source import Source

MAX_CHUNKS = 100_000
_UNKNOWN_32 = 0x7FFFF000  # sox and ffmpeg write this much and more where they cannot seek back


def check_complete(name: str, source: Source, offset: int) -> str:
    """A remark about the file's structure, or "".

    Raises:
        AudioError: ``truncated``; ``undecodable`` where a header names an impossible rate or channel count.
    """
    check = _CHECKS.get(name)
    return check(source, offset) if check else ""


def check_rate(rate: int, channels: int) -> None:
    """Refuse what no recording has (and what would make a resampler allocate gigabytes)."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("undecodable", f"an impossible sample rate: {rate} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("undecodable", f"an impossible number of channels: {channels}")


def _cut(what: str, needed: int, size: int) -> AudioError:
    return AudioError("truncated", f"{what} ends at byte {needed}, the file at byte {size}")


def _chunks(source: Source, position: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(id, start of the data, declared size) of each RIFF or IFF chunk."""
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 8)
        if len(head) < 8:
            return
        size = struct.unpack(order + "I", head[4:])[0]
        yield head[:4], position + 8, size
        position += 8 + size + (size & 1)


def _wav(source: Source, offset: int) -> str:
    head = source.read(offset, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    large, align = None, 1
    for name, start, size in _chunks(source, offset + 12, order):
        if name == b"ds64":
            sizes = source.read(start, 16)
            large = struct.unpack("<Q", sizes[8:16])[0] if len(sizes) == 16 else None
        elif name == b"fmt ":
            fields = source.read(start, 16)
            if len(fields) < 16:
                raise _cut("the fmt chunk", start + size, source.size)
            _, channels, rate, _, align, _ = struct.unpack(order + "HHIIHH", fields)
            check_rate(rate, channels)
        elif name == b"data":
            return _check_data(source, start, size, large, max(align, 1))
        elif start + size > source.size:
            raise _cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
    raise AudioError("truncated", "the file ends before its data chunk")


def _check_data(source: Source, start: int, size: int, large: int | None, align: int) -> str:
    if size == 0xFFFFFFFF and large is not None:
        size = large
    elif size == 0 or size >= _UNKNOWN_32:
        return "" if start + size <= source.size and size else "written to a pipe: its length is not declared"
    if start + size > source.size and (start + size - source.size) >= align:
        raise _cut("the data chunk", start + size, source.size)
    return ""


def _aiff(source: Source, offset: int) -> str:
    sound = False
    for name, start, size in _chunks(source, offset + 12, ">"):
        if name == b"COMM":
            fields = source.read(start, 18)
            if len(fields) < 18:
                raise _cut("the COMM chunk", start + size, source.size)
            check_rate(_extended(fields[8:18]), struct.unpack(">H", fields[:2])[0])
        if start + size > source.size:
            raise _cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
        sound = sound or name in (b"SSND", b"BODY")
    if not sound:
        raise AudioError("truncated", "the file ends before its sound chunk")
    return ""


def _extended(field: bytes) -> int:
    """An 80-bit IEEE float as an integer (AIFF stores its rate so)."""
    exponent, mantissa = struct.unpack(">HQ", field)
    shift = 16383 + 63 - (exponent & 0x7FFF)
    return mantissa >> shift if 0 <= shift < 64 else 0


def _svx(source: Source, offset: int) -> str:
    for name, start, size in _chunks(source, offset + 12, ">"):
        if start + size > source.size:
            raise _cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
    return ""


def _w64(source: Source, offset: int) -> str:
    position = offset + 40
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 24)
        if len(head) < 24:
            break
        size = struct.unpack("<Q", head[16:])[0]
        if head[:4] == b"fmt ":
            fields = source.read(position + 24, 8)
            if len(fields) == 8:
                check_rate(struct.unpack("<I", fields[4:])[0], struct.unpack("<H", fields[2:4])[0])
        if size < 24 or position + size > source.size:
            raise _cut(f"the {head[:4].decode('latin-1')!r} chunk", position + size, source.size)
        if head[:4] == b"data":
            return ""
        position += size + (-size % 8)
    raise AudioError("truncated", "the file ends before its data chunk")


def _caf(source: Source, offset: int) -> str:
    position = offset + 8
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 12)
        if len(head) < 12:
            break
        size = struct.unpack(">q", head[4:])[0]
        if head[:4] == b"desc":
            fields = source.read(position + 12, 32)
            if len(fields) == 32:
                rate, channels = struct.unpack(">d", fields[:8])[0], struct.unpack(">I", fields[24:28])[0]
                check_rate(int(rate) if 0 <= rate < 1e9 else -1, channels)
        if head[:4] == b"data":
            if size == -1:
                return "written to a pipe: its length is not declared"
            if position + 12 + size > source.size:
                raise _cut("the data chunk", position + 12 + size, source.size)
            return ""
        if size < 0 or position + 12 + size > source.size:
            raise _cut(f"the {head[:4].decode('latin-1')!r} chunk", position + 12 + size, source.size)
        position += 12 + size
    raise AudioError("truncated", "the file ends before its data chunk")


def _au(source: Source, offset: int) -> str:
    head = source.read(offset, 24)
    if len(head) < 24:
        raise AudioError("truncated", "the file ends within its header")
    order = ">" if head[:4] == b".snd" else "<"
    start, size, _, rate, channels = struct.unpack(order + "5I", head[4:24])
    check_rate(rate, channels)
    if size == 0xFFFFFFFF:
        return "written to a pipe: its length is not declared"
    if offset + start + size > source.size:
        raise _cut("the sound", offset + start + size, source.size)
    return ""


def _ogg(source: Source, offset: int) -> str:
    """The last page must be whole and carry the end-of-stream flag (RFC 3533, section 6)."""
    tail_start = max(offset, source.size - 2 * 65307)
    tail = source.read(tail_start, 2 * 65307)
    at = tail.rfind(b"OggS")
    while at >= 0 and tail[at + 4 : at + 5] not in (b"\0", b""):
        at = tail.rfind(b"OggS", 0, at)
    if at < 0:
        raise AudioError("truncated", "no Ogg page near the end of the file")
    header = tail[at : at + 27]
    table = tail[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
    if len(header) < 27 or len(table) < header[26]:
        raise AudioError("truncated", "the file ends within the header of an Ogg page")
    end = tail_start + at + 27 + len(table) + sum(table)
    if end > source.size:
        raise _cut("the last Ogg page", end, source.size)
    if not header[5] & 4:
        raise AudioError("truncated", "the last Ogg page is not the stream's last page")
    return ""


def _frames(source: Source, offset: int, kind: str) -> str:
    """Walk MPEG audio or ADTS frames: the last must be whole, and as many as the Xing header counts."""
    reader, position, count = FRAME_READERS[kind], offset, 0
    declared = _xing_frames(source.read(offset, 256)) if kind == "mp3" else None
    while (frame := reader(source.read(position, 6))) is not None:
        position += frame.bytes
        count += 1
    if position > source.size:
        raise _cut("the last frame", position, source.size)
    if declared is not None and count - 1 < declared:
        rest = source.size - position
        if rest <= 6:
            raise AudioError("truncated", f"{count - 1} frames of {declared} that the Xing header counts")
    return f"{offset} bytes in front of the sound" if offset else ""


def _xing_frames(head: bytes) -> int | None:
    """The number of frames after this one, where this one is a Xing or Info header that counts them."""
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or at > 64 or len(head) < at + 12 or not head[at + 7] & 1:
        return None
    return int(struct.unpack(">I", head[at + 8 : at + 12])[0])


def _mp4(source: Source, offset: int) -> str:
    """Every top-level box must lie within the file, and a ``moov`` among them (ISO/IEC 14496-12, 4.2)."""
    position, seen = offset, set()
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 16)
        if len(head) < 8:
            break
        size, name = struct.unpack(">I", head[:4])[0], head[4:8]
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        if size == 0:  # to the end of the file
            seen.add(name)
            break
        if size < 8:
            raise AudioError("undecodable", f"a box of {size} bytes at byte {position}")
        if position + size > source.size:
            raise _cut(f"the {name.decode('latin-1')!r} box", position + size, source.size)
        seen.add(name)
        position += size
    if b"moov" not in seen:
        raise AudioError("truncated", "the file ends before its index (no moov box)")
    return ""


def _matroska(source: Source, offset: int) -> str:
    """The segment must lie within the file (RFC 8794, section 6: sizes; all ones: not known)."""
    position = offset
    for _ in range(16):
        head = source.read(position, 12)
        if len(head) < 12:
            raise AudioError("truncated", "the file ends before its segment")
        id_bytes = 9 - head[0].bit_length()
        length = 9 - head[id_bytes].bit_length() if id_bytes <= 4 else 9
        if id_bytes > 4 or length > 8 or id_bytes + length > 12:
            raise AudioError("undecodable", f"no EBML element at byte {position}")
        size = int.from_bytes(head[id_bytes : id_bytes + length], "big") - (1 << (7 * length))
        end = position + id_bytes + length + size
        if head[:4] == b"\x18\x53\x80\x67":
            if size == (1 << (7 * length)) - 1:
                return "a live stream: its length is not declared"
            if end > source.size:
                raise _cut("the segment", end, source.size)
            return ""
        position = end
    raise AudioError("undecodable", "no segment")


def _avi(source: Source, offset: int) -> str:
    size = struct.unpack("<I", source.read(offset + 4, 4))[0]
    if offset + 8 + size > source.size:
        raise _cut("the RIFF chunk", offset + 8 + size, source.size)
    return ""


_AMR_NB = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)  # bytes a frame: RFC 4867, section 5.3
_AMR_WB = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)


def _amr(source: Source, offset: int) -> str:
    head = source.read(offset, 9)
    wide = head == b"#!AMR-WB\n"
    position, sizes = offset + (9 if wide else 6), _AMR_WB if wide else _AMR_NB
    while mode := source.read(position, 1):
        size = sizes[(mode[0] >> 3) & 15]
        if size == 0:
            raise AudioError("undecodable", f"no AMR frame at byte {position}")
        position += size
    if position > source.size:
        raise _cut("the last frame", position, source.size)
    return ""


_CHECKS: dict[str, Callable[[Source, int], str]] = {
    "wav": _wav,
    "rf64": _wav,
    "aiff": _aiff,
    "svx": _svx,
    "w64": _w64,
    "caf": _caf,
    "au": _au,
    "ogg": _ogg,
    "mp3": lambda source, offset: _frames(source, offset, "mp3"),
    "aac": lambda source, offset: _frames(source, offset, "aac"),
    "mp4": _mp4,
    "matroska": _matroska,
    "avi": _avi,
    "amr": _amr,
}
