"""Files that are a sequence of frames, pages, packets or blocks: all must be there, and the last one whole.

Where a frame is damaged, decoders search for the next one and do not say that sound is missing.  So a sequence that is
interrupted and goes on later is ``undecodable``, and one that ends inside a frame is ``truncated``.  Tags, padding and
junk after the last frame are no part of the recording.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from sharding.audio.errors import AudioError
from sharding.audio.extent import WHOLE, Extent, cut
from sharding.audio.flac import flac
from sharding.audio.formats import FRAME_READERS, SCAN, Frame, find_frames, tag_bytes
from sharding.audio.source import Source

_PACKETS = 4096  # packets of a transport stream that are read at once
_HOLLOW = 4096  # zero bytes after the last frame; so many are no padding
_TRIM = 8191  # samples that a decoder may leave out of MP3: encoder delay and padding, 12 bits each


def mpeg(source: Source, offset: int) -> Extent:
    """Check MPEG audio frames: as many as the Xing header counts (ISO/IEC 11172-3, section 2.4.1).

    libsndfile takes the length from the Xing header, or else estimates it from the bit rate of the first frame.  So it
    decodes only files whose header counts every frame.
    """
    count, first, end = _walk_frames(source, offset, "mp3")
    declared = _xing_frames(source.read(offset, 256))
    if declared is not None and count - 1 < declared:
        raise AudioError("truncated", f"{count - 1} frames of {declared} that the Xing header counts")
    rest = source.read(end, _HOLLOW)
    if declared is None and len(rest) == _HOLLOW and not any(rest):  # a download reserved the space and never filled it
        raise AudioError("truncated", f"nothing but zeros from byte {end} on")
    return Extent(_surroundings(source, offset, end), count * first.samples - _TRIM, end, declared == count - 1)


def adts(source: Source, offset: int) -> Extent:
    """Check AAC in ADTS frames (ISO/IEC 13818-7, section 6.2)."""
    _, _, end = _walk_frames(source, offset, "aac")
    return Extent(_surroundings(source, offset, end), end=end)


def _walk_frames(source: Source, offset: int, kind: str) -> tuple[int, Frame, int]:
    """The number of frames from ``offset`` on, the first frame, and the byte where the last one ends."""
    read = FRAME_READERS[kind]
    first = read(source.read(offset, 6))
    assert first is not None, "recognised by its frames"
    position, end, count = offset, offset, 0
    while True:
        head = source.read(position, 6)
        frame = read(head)
        if frame is not None and frame.kind == first.kind:
            position += frame.bytes
            end, count = position, count + 1
        elif skipped := tag_bytes(source, position):
            position += skipped
        else:
            break
    if end > source.size:
        raise cut("the last frame", end, source.size)
    if 1 < len(head) < 6 and head[:2] == source.read(offset, 2):
        raise cut("the last frame", source.size + 1, source.size)
    for start in range(position, source.size - 5, SCAN):
        if (found := find_frames(source, start)) is not None:
            other = "frames of another rate or kind" if found[1] == position else "no frame, and some after it"
            raise AudioError("undecodable", f"damaged: at byte {position} {other}")
    return count, first, end


def _xing_frames(head: bytes) -> int | None:
    """The number of frames that follow, if this frame is a Xing or Info header that counts them."""
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or at > 64 or len(head) < at + 12 or not head[at + 7] & 1:
        return None
    return int(struct.unpack(">I", head[at + 8 : at + 12])[0])


def _surroundings(source: Source, start: int, end: int) -> str:
    """A remark about bytes before and after the sound, or ""."""
    junk = [(start, "in front of"), (source.size - end, "after")]
    return "; ".join(f"{count} bytes {where} the sound" for count, where in junk if count > 0)


_AMR_NB = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)  # bytes a frame: RFC 4867, section 5.3
_AMR_WB = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)


def amr(source: Source, offset: int) -> Extent:
    """AMR frames of 20 ms (RFC 4867, section 5)."""
    wide = source.read(offset, 9) == b"#!AMR-WB\n"
    position, sizes = offset + (9 if wide else 6), _AMR_WB if wide else _AMR_NB
    while mode := source.read(position, 1):
        size = sizes[(mode[0] >> 3) & 15]
        if size == 0:
            raise AudioError("undecodable", f"no AMR frame at byte {position}")
        position += size
    if position > source.size:
        raise cut("the last frame", position, source.size)
    return WHOLE


_AC3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def ac3(source: Source, offset: int) -> Extent:
    """Check AC-3 and E-AC-3 frames (ETSI TS 102 366, sections 4.4.1 and E.1.3.1)."""
    position = offset
    while (head := source.read(position, 6))[:2] == b"\x0b\x77" and len(head) == 6:
        position += _ac3_bytes(head, position)
    if position > source.size or 0 < len(head) < 6:
        raise cut("the last frame", max(position, source.size + 1), source.size)
    if head:
        raise AudioError("undecodable", f"no AC-3 frame at byte {position}")
    return WHOLE


def _ac3_bytes(head: bytes, position: int) -> int:
    """The length of the frame that begins with these bytes."""
    if head[5] >> 3 > 10:
        return 2 * ((((head[2] & 7) << 8) | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code >= 2 * len(_AC3_KILOBITS):
        raise AudioError("undecodable", f"no AC-3 frame at byte {position}")
    kilobits = _AC3_KILOBITS[code // 2]
    return (4 * kilobits, 2 * (320 * kilobits // 147 + (code & 1)), 6 * kilobits)[rate]


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """The checksum of an Ogg page (RFC 3533, section 6): zlib's polynomial in reverse bit order, without inversions."""
    reflected = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED), "big")


def ogg(source: Source, offset: int) -> Extent:
    """Every page must have the right checksum, none may be missing, and each stream must end (RFC 3533, section 6)."""
    position, links, opening = offset, 0, False
    last: dict[int, tuple[int, bool]] = {}  # by stream: number of its latest page, and whether that ends it
    while (head := source.read(position, 27 + 255))[:4] == b"OggS":
        size = 27 + head[26] + sum(head[27 : 27 + head[26]]) if len(head) > 26 else 27
        page = source.read(position, size)
        if len(page) < size or len(page) < 27 + page[26]:
            raise cut("the last Ogg page", position + size, source.size)
        serial, number, checksum = struct.unpack("<III", page[14:26])
        if _ogg_crc(page) != checksum:
            raise AudioError("undecodable", f"the Ogg page at byte {position} is damaged: its checksum is wrong")
        begins = bool(page[5] & 2)
        if begins and not opening:  # streams that play at the same time begin together; others are links of a chain
            _all_ended(last, position)
            links, last = links + 1, {}
        elif not begins and number != last.get(serial, (number, False))[0] + 1:
            raise AudioError("undecodable", f"an Ogg page is missing before byte {position}")
        opening, last[serial] = begins, (number, bool(page[5] & 4))
        position += size
    if source.read(position, 1 << 20).find(b"OggS") >= 0:
        raise AudioError("undecodable", f"damaged: no Ogg page at byte {position}, and some after it")
    _all_ended(last, position)
    return Extent(_surroundings(source, offset, position), end=position, libsndfile=links == 1)


def _all_ended(last: dict[int, tuple[int, bool]], position: int) -> None:
    if not all(ended for _, ended in last.values()):
        raise AudioError("truncated", f"the Ogg page that ends at byte {position} is not the stream's last")


def flv(source: Source, offset: int) -> Extent:
    """Check tags, each followed by its length (Adobe Flash Video File Format 10.1, section E.3)."""
    position = offset + 13
    while head := source.read(position, 11):
        size = 15 + int.from_bytes(head[1:4], "big")
        if len(head) < 11 or position + size > source.size:
            raise cut("the last tag", position + size, source.size)
        if head[0] & 0x1F not in (8, 9, 18):
            raise AudioError("undecodable", f"no FLV tag at byte {position}")
        position += size
    return WHOLE


def transport_stream(source: Source, offset: int) -> Extent:
    """Packets of 188 bytes that begin with 0x47 (ISO/IEC 13818-1, section 2.4.3)."""
    if (source.size - offset) % 188:
        raise AudioError("truncated", "the last packet is not whole")
    for position in range(offset, source.size, 188 * _PACKETS):
        begins = source.read(position, 188 * _PACKETS)[::188]
        good = len(begins) - len(begins.lstrip(b"\x47"))
        if good < len(begins):
            raise AudioError("undecodable", f"no transport packet at byte {position + 188 * good}")
    return Extent("its length is not declared")


def wavpack(source: Source, offset: int) -> Extent:
    """Check blocks, each with its length (WavPack 4 and 5 binary format, section 2.0)."""
    position = offset
    while (head := source.read(position, 8))[:4] == b"wvpk":
        position += 8 + int.from_bytes(head[4:], "little")
        if len(head) < 8 or position > source.size:
            raise cut("the last block", max(position, source.size + 1), source.size)
    if source.read(position, 1 << 20).find(b"wvpk") >= 0:
        raise AudioError("undecodable", f"damaged: no block at byte {position}, and some after it")
    return Extent(_surroundings(source, offset, position), end=position)


def realmedia(source: Source, offset: int) -> Extent:
    """Check chunks, each with its length (RealMedia File Format, Internet draft of 1998); a live stream states 0."""
    position = offset
    while len(head := source.read(position, 8)) == 8 and (size := int.from_bytes(head[4:], "big")) >= 8:
        position += size
    if position > source.size + 18:  # encoders disagree whether the length includes the data chunk's header
        raise cut("the last chunk", position, source.size)
    return WHOLE


def tta(source: Source, offset: int) -> Extent:
    """Frames, whose lengths the seek table lists (True Audio 1 format description)."""
    head = source.read(offset, 22)
    if len(head) < 22:
        raise AudioError("truncated", "the file ends within its header")
    rate, samples = struct.unpack("<II", head[10:18])
    count = -(-samples * 245 // max(1, 256 * rate))
    table = source.read(offset + 22, 4 * count + 4) if count < source.size else b""
    if len(table) < 4 * count + 4:
        raise AudioError("truncated", "the file ends within its seek table")
    end = offset + 26 + 4 * count + sum(struct.unpack(f"<{count}I", table[:-4]))
    if end > source.size:
        raise cut("the last frame", end, source.size)
    return Extent(frames=samples)


STREAMS: dict[str, Callable[[Source, int], Extent]] = {
    "flac": flac,
    "mp3": mpeg,
    "aac": adts,
    "amr": amr,
    "ac3": ac3,
    "ogg": ogg,
    "flv": flv,
    "mpegts": transport_stream,
    "tta": tta,
    "wavpack": wavpack,
    "realmedia": realmedia,
}
