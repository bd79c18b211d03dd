"""Whether a container that FFmpeg opens is complete: its parts must follow each other and lie within the file."""

from __future__ import annotations

import struct
from collections.abc import Callable

from sharding.audio.errors import AudioError
from sharding.audio.extent import WHOLE, Extent, cut
from sharding.audio.source import Source

_MAX_BOXES = 1_000_000
_BOXES = frozenset(b"moov mdat moof mfra sidx free skip udta uuid meta wide styp emsg".split())


def mp4(source: Source, offset: int) -> Extent:
    """Every top-level box must lie within the file, and one must be ``moov`` (ISO/IEC 14496-12, section 4.2)."""
    position, seen = offset, set()
    for _ in range(_MAX_BOXES):
        head = source.read(position, 16)
        if len(head) < 8:
            break
        size, name = struct.unpack(">I", head[:4])[0], head[4:8]
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        if size == 0:  # to the end of the file
            seen.add(name)
            break
        if {b"moov", b"mdat"} <= seen and name not in _BOXES and (size < 8 or position + size > source.size):
            break  # junk after the last box is no part of the recording
        if size < 8:
            raise AudioError("undecodable", f"a box of {size} bytes at byte {position}")
        if position + size > source.size:
            raise cut(f"the {name.decode('latin-1')!r} box", position + size, source.size)
        seen.add(name)
        position += size
    if b"moov" not in seen:
        if b"meta" in seen:
            raise AudioError("not_audio", "a picture")
        raise AudioError("truncated", "the file ends before its index (no moov box)")
    if b"moof" in seen and not seen & {b"mfra", b"sidx"}:  # may have been cut between two fragments: nothing shows it
        return Extent("fragments: its length is not declared")
    return WHOLE


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_BEGINNINGS = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")  # the first bytes of a file, and of a segment


def matroska(source: Source, offset: int) -> Extent:
    """Elements must follow each other to the end of the segment (RFC 8794, section 6; RFC 9559, section 5).

    Segments and clusters of unknown length (live streams) end where the next one begins, or the file does.
    """
    position, end, live, segments, inner = offset, source.size, False, 0, 0
    while position < source.size:
        if segments and not live and position == end:
            if source.read(position, 4) not in _BEGINNINGS:  # junk after the segment is no part of it
                break
            end = source.size
        identity, data, size = _element(source, position)
        if size is None and identity not in (_SEGMENT, _CLUSTER):
            raise AudioError("undecodable", f"an element without a length at byte {position}")
        stop = source.size if size is None else data + size
        if position < inner < stop:
            raise AudioError("undecodable", f"the element at byte {position} is longer than its cluster")
        if stop > source.size:
            raise cut("the segment" if identity == _SEGMENT else "an element", stop, source.size)
        if stop > end:
            raise AudioError("undecodable", f"the element at byte {position} is longer than its segment")
        if identity == _SEGMENT:
            position, end, live, segments = data, stop, size is None, segments + 1
        elif identity == _CLUSTER:
            position, inner = data, 0 if size is None else stop
        else:
            position = stop
    if not segments:
        raise AudioError("truncated", "the file ends before its segment")
    return Extent("a live stream: its length is not declared" if live else "")


def _element(source: Source, position: int) -> tuple[int, int, int | None]:
    """The EBML element at ``position``: its id, the byte where its data begin, and their length (None: not known)."""
    head = source.read(position, 12)
    id_bytes = 9 - head[0].bit_length()
    length = 9 - head[id_bytes].bit_length() if id_bytes < min(5, len(head)) else 9
    if len(head) < 12 and id_bytes + length > len(head):
        raise AudioError("truncated", "the file ends within the head of an element")
    if id_bytes > 4 or length > 8:
        raise AudioError("undecodable", f"no EBML element at byte {position}")
    size = int.from_bytes(head[id_bytes : id_bytes + length], "big") - (1 << (7 * length))
    known = None if size == (1 << (7 * length)) - 1 else size
    return int.from_bytes(head[:id_bytes], "big"), position + id_bytes + length, known


_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def asf(source: Source, offset: int) -> Extent:
    """The file must have as many bytes as its File Properties Object states (ASF specification, section 3.2)."""
    head = source.read(offset, 1 << 16)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        raise AudioError("truncated", "the file ends within its header")
    size, flags = struct.unpack("<Q", head[at + 40 : at + 48])[0], head[at + 88]
    if flags & 1:
        return Extent("a broadcast: its length is not declared", declared=False)
    if offset + size > source.size:
        raise cut("the recording", offset + size, source.size)
    return WHOLE


CONTAINERS: dict[str, Callable[[Source, int], Extent]] = {"mp4": mp4, "matroska": matroska, "asf": asf}
