"""Whether a FLAC file is complete: its frames' own numbers are compared with its header.  Sections are of RFC 9639."""

from __future__ import annotations

import functools

import numpy as np

from sharding.audio.errors import AudioError
from sharding.audio.extent import WHOLE, Extent, cut
from sharding.audio.source import Source

_PIECE = 1 << 20  # bytes that are searched at once
_TAIL = 1 << 16  # bytes in which the last frame is searched; more where the header announces longer frames

_MAX_BLOCKS = 10_000  # metadata blocks
_HEADS = 8  # frame headers that are tried: each costs a pass over what follows, and some only look like headers


def flac(source: Source, offset: int) -> Extent:
    """The frames must reach from sample 0 to the total that the header states (sections 8.2 and 9.1).

    Encoders that write into a pipe state no total; libsndfile cannot read such files.
    """
    info = source.read(offset, 42)
    if len(info) < 42:
        raise AudioError("truncated", "the file ends within its header")
    total = int.from_bytes(info[21:26], "big") & ((1 << 36) - 1)
    sound = _after_metadata(source, offset)
    if sound + 2 > source.size:
        raise AudioError("empty", "not one frame")
    if total and _samples(source, offset, proven=False) == total:
        longest = max(_TAIL, int.from_bytes(info[15:18], "big"))
        _check_chain(source, sound, int.from_bytes(info[8:10], "big"), longest, total)
        return WHOLE
    found = _samples(source, offset, proven=True)
    if total == 0:
        if found is None:
            raise AudioError("truncated", "the file does not end with a whole frame")
        return Extent("its length is not declared", frames=found, libsndfile=False)
    if found is None or found == total:
        return WHOLE  # tags after the sound, or damage, which decoding will find
    # header and last frame disagree: everything is decoded, and must be at least what the header announces
    return Extent(f"its last frame ends at sample {found}", frames=total, libsndfile=False)


def _check_chain(source: Source, sound: int, block: int, longest: int, total: int) -> None:
    """Every frame must begin at the sample where the one before ends, and none may occur twice.

    libFLAC replaces a missing frame by silence, and decodes a frame that occurs twice two times.
    """
    sync, form, latest, reached, odd = source.read(sound, 2), source.read(sound + 2, 2), sound, 0, ""
    numbered = sync[1] == 0xF8 and block > 0  # frames of equal size are numbered; others name their first sample
    for position in range(sound, source.size, _PIECE):
        piece = source.read(position, _PIECE + 17)
        for at in _offsets_of(piece, sync):
            if at >= _PIECE:
                break
            # the frame that is expected next, about ten times a second of sound: its number is enough proof
            if numbered and reached < total and piece.startswith(form + _coded(reached // block), at + 2):
                latest, reached = position + at, reached + block
            elif (span := _frame_span(piece[at : at + 17], block)) is None:
                continue  # sound whose bytes look like a frame header
            elif span[0] == reached < total:
                latest, reached = position + at, span[1]
            elif not odd and _are_frames(source, sync, longest, latest, position + at):
                odd = f"a frame that begins at sample {span[0]} follows sample {reached}"
    if reached < total:
        raise AudioError("undecodable", f"no frame begins at sample {reached}")
    if odd:
        raise AudioError("undecodable", odd)


def _are_frames(source: Source, sync: bytes, longest: int, *places: int) -> bool:
    """Whether a frame begins at each place: its checksum is right, and a frame, a file or the file's end follows it."""
    for place in places:
        data, value = source.read(place, longest + 4), 0
        ends = {at + 2 for at in _offsets_of(data[2:], sync)} | {data.find(b"fLaC"), len(data)}
        for end, byte in enumerate(data, 1):
            value = ((value << 8) & 0xFFFF) ^ _CRC16[(value >> 8) ^ byte]
            if value == 0 and end in ends:
                break
        else:
            return False
    return True


def _offsets_of(piece: bytes, sync: bytes) -> list[int]:
    """The offsets of two adjacent bytes; many times faster than ``find`` where each of them alone is frequent."""
    view = np.frombuffer(piece, np.uint8)
    first = np.flatnonzero(view[:-1] == sync[0])
    return list(first[view[first + 1] == sync[1]].tolist())


@functools.lru_cache(maxsize=1 << 12)
def _coded(number: int) -> bytes:
    """A frame's number of up to 36 bits, coded like a character of UTF-8 (section 9.1.5)."""
    if number < 0x80:
        return bytes([number])
    size = max(2, -(-(number.bit_length() - 1) // 5))
    first = (0xFF00 >> size & 0xFF) | number >> 6 * (size - 1)
    return bytes([first, *(0x80 | number >> 6 * place & 0x3F for place in reversed(range(size - 1)))])


def _after_metadata(source: Source, offset: int) -> int:
    """The byte where the last metadata block ends (section 8.1)."""
    position, last = offset + 4, False
    for _ in range(_MAX_BLOCKS):
        head = source.read(position, 4)
        if last or len(head) < 4:
            break
        position, last = position + 4 + int.from_bytes(head[1:], "big"), bool(head[0] & 0x80)
    if not last or position > source.size:
        raise cut("its metadata", max(position, source.size + 1), source.size)
    return position


def ends_whole(source: Source, offset: int) -> bool:
    """Whether the file ends with a whole frame."""
    return _samples(source, offset, proven=True) is not None


def _samples(source: Source, offset: int, *, proven: bool) -> int | None:
    """The number of samples up to the end of the last frame with a valid header; ``proven``: and a valid checksum."""
    info = source.read(offset, 18)
    size = max(_TAIL, int.from_bytes(info[15:18], "big"))
    tail = source.read(max(offset, source.size - size), size)
    at, heads = tail.rfind(b"\xff"), 0
    while at >= 0 and heads < _HEADS:
        span = _frame_span(tail[at : at + 17], int.from_bytes(info[8:10], "big"))
        if span is not None:
            if not (proven and _crc16(tail[at:])):
                return span[1]
            heads += 1
        at = tail.rfind(b"\xff", 0, at)
    return None


def _frame_span(head: bytes, block: int) -> tuple[int, int] | None:
    """The first sample of the frame with this header, and the sample after its last one (section 9.1)."""
    if len(head) < 6 or head[1] not in (0xF8, 0xF9) or head[3] >> 4 > 10 or head[3] & 1:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # as in UTF-8, the leading ones count the bytes
    length = max(1, ones)
    at = 4 + length
    size_bytes, rate_bytes = {6: 1, 7: 2}.get(size_code, 0), {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    end = at + size_bytes + rate_bytes
    if size_code == 0 or rate_code == 15 or ones in (1, 8) or len(head) <= end or _crc8(head[:end]) != head[end]:
        return None
    number = head[4] & (0x7F >> ones)
    for byte in head[5:at]:
        number = (number << 6) | (byte & 0x3F)
    if size_bytes:
        samples = int.from_bytes(head[at : at + size_bytes], "big") + 1
    else:
        samples = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    first = number if head[1] & 1 else number * block
    return first, first + samples


def _table(polynomial: int, bits: int) -> list[int]:
    """The table for computing a CRC byte by byte (sections 9.1.8 and 9.3)."""
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFF) ^ _CRC16[(value >> 8) ^ byte]
    return value
