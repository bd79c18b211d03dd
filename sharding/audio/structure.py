"""Whether a file is complete.  Decoders decode what is left of a cut file and do not say that anything is missing.

There is one function for each container (more are in ``containers`` and ``streams``).  It reads headers only, and
returns what it learnt (``Extent``) or raises ``AudioError``.  Where headers do not say how long the sound is (FLAC,
WavPack and others), missing samples are found by counting them while decoding.  Raw samples after a header without a
length (IRCAM, PVF) end where the file ends.

An encoder that writes into a pipe does not know the length yet and writes 0 or all ones; the sound of such a file ends
where the file ends.  A missing pad byte, or a last sample that is not whole, is tolerated, because no sample is lost.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator

from sharding.audio.containers import CONTAINERS
from sharding.audio.errors import AudioError
from sharding.audio.extent import WHOLE, Extent, check_rate, cut
from sharding.audio.source import Source
from sharding.audio.streams import STREAMS

MAX_CHUNKS = 100_000
_UNKNOWN_32 = 0x7FFFF000  # the least length that means "not known"
_UNKNOWN_64 = (1 << 64) - 1
_LARGEST_BLOCK = 1 << 14  # bytes; a larger block alignment is wrong
_PACKET = 4096  # samples of an ALAC packet; decoders differ by up to one packet at the end
_PIPED = Extent("written to a pipe: its length is not declared", declared=False)


def check_complete(name: str, source: Source, offset: int) -> Extent:
    """Check the structure of a file that begins at ``offset``; ``name`` is the name of its format.

    Raises:
        AudioError: ``truncated``; ``undecodable`` where parts are damaged or missing, or where a header names an
            impossible rate or channel count.
    """
    check = _CHECKS.get(name)
    return check(source, offset) if check else WHOLE


def _chunks(source: Source, position: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(id, start of the data, declared size) of each RIFF or IFF chunk."""
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 8)
        if len(head) < 8:
            return
        size = struct.unpack(order + "I", head[4:])[0]
        yield head[:4], position + 8, size
        position += 8 + size + (size & 1)


def _wav(source: Source, offset: int) -> Extent:
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
                raise cut("the fmt chunk", start + size, source.size)
            if size < 16:  # decoders would assume 8 bits
                raise AudioError("undecodable", f"a fmt chunk of {size} bytes, which names no sample size")
            _, channels, rate, _, align, _ = struct.unpack(order + "HHIIHH", fields)
            check_rate(rate, channels)
        elif name == b"data":
            extent = _check_data(source, start, size, large, max(align, 1))
            more = _chunks(source, start + size + (size & 1), order) if extent is WHOLE else ()
            if any(other == b"data" and others for other, _, others in more):
                raise AudioError("undecodable", "two data chunks, of which decoders read one")
            return extent
        elif start + size > source.size:
            raise cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
    raise AudioError("truncated", "the file ends before its data chunk")


def _check_data(source: Source, start: int, size: int, large: int | None, align: int) -> Extent:
    if size == 0xFFFFFFFF and large in (0, _UNKNOWN_64):
        # decoders use the 64-bit length, and can read neither value; as plain RIFF they read to the end of the file
        return dataclasses.replace(_PIPED, head=b"RIFF")
    if size == 0xFFFFFFFF and large is not None:
        size = large
    elif size == 0 or (_piped(size) and start + size > source.size):
        # libsndfile would read no sample where the length is 0
        return WHOLE if _chunks_follow(source, start) else dataclasses.replace(_PIPED, libsndfile=size > 0)
    whole = size - size % (align if align <= _LARGEST_BLOCK else 1)
    if start + whole > source.size:
        raise cut("the data chunk", start + size, source.size)
    end = start + size + (size & 1)
    return WHOLE if _chunks_follow(source, end) else Extent(f"{source.size - end} bytes after the sound", end=end)


def _piped(size: int) -> bool:
    """Whether a length is about what sox and FFmpeg write where they cannot seek back."""
    return _UNKNOWN_32 <= size <= 1 << 31 or size >= 0xFFFFF000


def _chunks_follow(source: Source, position: int) -> bool:
    """Whether the rest of the file is nothing, or begins with a chunk that lies within it."""
    head = source.read(position, 8)
    size = struct.unpack("<I", head[4:])[0] if len(head) == 8 else 0
    return len(head) < 8 or (head[:4].isascii() and head[:4].decode().isprintable() and position + size <= source.size)


def _aiff(source: Source, offset: int) -> Extent:
    sound = described = False
    for name, start, size in _chunks(source, offset + 12, ">"):
        if name == b"COMM":
            fields = source.read(start, 18)
            if len(fields) < 18:
                raise cut("the COMM chunk", start + size, source.size)
            check_rate(_extended(fields[8:18]), struct.unpack(">H", fields[:2])[0])
            described = True
        if name == b"SSND" and size == 0 and described:  # an empty sound chunk has 8 bytes
            return _PIPED
        if start + size > source.size:
            if sound and described:  # junk after the sound is no part of the recording
                break
            raise cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
        sound = sound or name in (b"SSND", b"BODY")
    if not sound:
        raise AudioError("truncated", "the file ends before its sound chunk")
    return WHOLE


def _extended(field: bytes) -> int:
    """An 80-bit IEEE float, in which AIFF stores its rate, as an integer."""
    exponent, mantissa = struct.unpack(">HQ", field)
    shift = 16383 + 63 - (exponent & 0x7FFF)
    return mantissa >> shift if 0 <= shift < 64 else 0


def _svx(source: Source, offset: int) -> Extent:
    for name, start, size in _chunks(source, offset + 12, ">"):
        if start + size > source.size:
            raise cut(f"the {name.decode('latin-1')!r} chunk", start + size, source.size)
    return WHOLE


def _w64(source: Source, offset: int) -> Extent:
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
        if head[:4] == b"data" and (size == 0 or size > _UNKNOWN_64 // 4):
            # FFmpeg writes half of the value that libsndfile takes for "not known"
            return dataclasses.replace(_PIPED, head=source.read(offset, position + 16 - offset) + b"\xff" * 8)
        if size < 24 or position + size > source.size:
            raise cut(f"the {head[:4].decode('latin-1')!r} chunk", position + size, source.size)
        if head[:4] == b"data":
            return Extent(end=position + size)  # libsndfile would read what follows as sound
        position += size + (-size % 8)
    raise AudioError("truncated", "the file ends before its data chunk")


def _caf(source: Source, offset: int) -> Extent:
    position, frames, sound = offset + 8, 0, False
    for _ in range(MAX_CHUNKS):
        head = source.read(position, 12)
        if len(head) < 12:
            break
        name, size = head[:4], struct.unpack(">q", head[4:])[0]
        fields = source.read(position + 12, 32)
        if name == b"desc" and len(fields) == 32:
            rate, channels = struct.unpack(">d", fields[:8])[0], struct.unpack(">I", fields[24:28])[0]
            check_rate(int(rate) if 0 <= rate < 1e9 else -1, channels)
        if name == b"pakt" and len(fields) >= 24:
            frames = max(0, struct.unpack(">q", fields[8:16])[0])
        if name == b"data" and size == -1:
            return _PIPED
        if size < 0 or position + 12 + size > source.size:
            if sound:  # junk after the sound is no part of the recording
                break
            raise cut(f"the {name.decode('latin-1')!r} chunk", position + 12 + size, source.size)
        sound = sound or name == b"data"
        position += 12 + size
    if not sound:
        raise AudioError("truncated", "the file ends before its data chunk")
    return Extent(frames=max(0, frames - _PACKET))


def _au(source: Source, offset: int) -> Extent:
    head = source.read(offset, 24)
    if len(head) < 24:
        raise AudioError("truncated", "the file ends within its header")
    order = ">" if head[:4] == b".snd" else "<"
    start, size, _, rate, channels = struct.unpack(order + "5I", head[4:24])
    check_rate(rate, channels)
    if size == 0xFFFFFFFF or (size == 0 and source.size > offset + start):
        return dataclasses.replace(_PIPED, libsndfile=size > 0)
    if offset + start + size > source.size:
        raise cut("the sound", offset + start + size, source.size)
    return WHOLE


def _avi(source: Source, offset: int) -> Extent:
    size = struct.unpack("<I", source.read(offset + 4, 4))[0]
    if _piped(size) and offset + 8 + size > source.size:
        return _PIPED
    if offset + 8 + size > source.size:
        raise cut("the RIFF chunk", offset + 8 + size, source.size)
    return WHOLE


def _voc(source: Source, offset: int) -> Extent:
    """Blocks up to the one of type 0, which some encoders leave out (Creative Voice File, block types)."""
    position = offset + int.from_bytes(source.read(offset + 20, 2), "little")
    while (head := source.read(position, 4)) and head[0]:
        position += 4 + int.from_bytes(head[1:4], "little")
    if position > source.size or (0 < len(head) < 4 and head[0]):
        raise cut("the last block", position, source.size)
    return WHOLE


def _nist(source: Source, offset: int) -> Extent:
    """There must be as many samples as the header counts, unless they are compressed (NIST SPHERE header)."""
    head = source.read(offset, 1024).decode("latin-1")
    fields = [line.split() for line in head.splitlines()]
    numbers = {f[0]: int(f[2]) for f in fields if len(f) == 3 and f[1] == "-i" and f[2].isdecimal()}
    if "shorten" in head or "sample_count" not in numbers:
        return WHOLE
    check_rate(numbers.get("sample_rate", 8000), numbers.get("channel_count", 1))
    size = numbers["sample_count"] * numbers.get("channel_count", 1) * numbers.get("sample_n_bytes", 1)
    if offset + 1024 + size > source.size:
        raise cut("the sound", offset + 1024 + size, source.size)
    return Extent(frames=numbers["sample_count"], end=offset + 1024 + size)


_CHECKS: dict[str, Callable[[Source, int], Extent]] = {
    "wav": _wav,
    "rf64": _wav,
    "aiff": _aiff,
    "svx": _svx,
    "w64": _w64,
    "caf": _caf,
    "au": _au,
    "avi": _avi,
    "voc": _voc,
    "nist": _nist,
    **CONTAINERS,
    **STREAMS,
}
