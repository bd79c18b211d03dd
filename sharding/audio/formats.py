"""Which format a file is in, by its first bytes alone.

File names are often wrong, and decoders that try one format after the other take noise for sound.  A file is not audio
if its first bytes (after ID3 tags) are in no table here, and no chain of MPEG audio or ADTS frames begins within its
first MiB.  Decoders are given the format and never guess it, so that they cannot take a web page for a playlist, or
random bytes for a transport stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sharding.audio.errors import AudioError
from sharding.audio.source import Source

SCAN = 1 << 20  # bytes of junk that may stand in front of MPEG audio
CHAIN, CHAIN_IN_JUNK = 3, 6  # frames in a row that prove MPEG audio: at the beginning of a file, and later


@dataclass(frozen=True)
class Format:
    """A format of sound files.

    Attributes:
        name: its name here.
        libsndfile: whether libsndfile decodes it.
        demuxer: FFmpeg's demuxer for it.
        exact: whether its headers state the duration exactly, so that fewer samples mean that the file was cut.
        extension: the usual suffix of such files, where it is not ``name``.
    """

    name: str
    libsndfile: bool
    demuxer: str
    exact: bool
    extension: str = ""

    @property
    def suffix(self) -> str:
        return self.extension or self.name


FORMATS = {
    entry.name: entry
    for entry in (
        Format("wav", True, "wav", True),
        Format("rf64", True, "wav", True, "wav"),
        Format("w64", True, "w64", True),
        Format("aiff", True, "aiff", True),
        Format("caf", True, "caf", True),
        Format("au", True, "au", True),
        Format("voc", False, "voc", False),
        Format("svx", True, "iff", False),
        Format("nist", True, "nistsphere", False),
        Format("pvf", True, "pvf", False),
        Format("ircam", True, "ircam", False),
        Format("flac", True, "flac", True),
        Format("ogg", True, "ogg", True),
        Format("mp3", True, "mp3", False),
        Format("aac", False, "aac", False),
        Format("mp4", False, "mov", True, "m4a"),
        Format("matroska", False, "matroska", True, "mka"),
        Format("amr", False, "amr", False),
        Format("asf", False, "asf", True, "wma"),
        Format("avi", False, "avi", True),
        Format("wavpack", False, "wv", True, "wv"),
        Format("ape", False, "ape", True),
        Format("tta", False, "tta", True),
        Format("tak", False, "tak", True),
        Format("musepack", False, "mpc", True, "mpc"),
        Format("musepack8", False, "mpc8", True, "mpc"),
        Format("dsf", False, "dsf", True),
        Format("flv", False, "flv", False),
        Format("realmedia", False, "rm", False, "rm"),
        Format("ac3", False, "ac3", False),
        Format("mpegts", False, "mpegts", False, "ts"),
    )
}
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, _W64, "w64"),
    (0, _ASF, "asf"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"dns.", "au"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"NIST_1A", "nist"),
    (0, b"PVF1", "pvf"),
    (0, b"\x64\xa3", "ircam"),
    (0, b"#!AMR", "amr"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"wvpk", "wavpack"),
    (0, b"MAC ", "ape"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "musepack8"),
    (0, b"MP+", "musepack"),
    (0, b"DSD ", "dsf"),
    (0, b"FLV\x01", "flv"),
    (0, b".RMF", "realmedia"),
    (0, b"\x0b\x77", "ac3"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (4, b"wide", "mp4"),
    (4, b"free", "mp4"),
    (4, b"skip", "mp4"),
)
_IFF = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFX", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "rf64",
    (b"BW64", b"WAVE"): "rf64",
    (b"RIFF", b"AVI "): "avi",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
    (b"FORM", b"8SVX"): "svx",
    (b"FORM", b"16SV"): "svx",
}
_CUT_IFF = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")


def recognise(source: Source) -> tuple[Format, int]:
    """The format of a file, and the byte at which it begins (after ID3 tags and junk).

    Raises:
        AudioError: ``not_audio``; ``truncated`` where a file ends within the first words of a known format.
    """
    start = _after_tags(source)
    for offset in (start, 0) if start else (0,):
        head = source.read(offset, 64)
        name = _by_magic(head)
        if name == "mpegts" or name is None:
            continue
        return FORMATS[name], offset
    head = source.read(0, 564)
    if len(head) == 564 and head[0] == head[188] == head[376] == 0x47:
        return FORMATS["mpegts"], 0
    found = find_frames(source, start)
    if found is not None:
        return _before_false_tag(source, start, found) if start and found[1] > start else found
    if (size := id3_size(source.read(start, 10))) and start + size > source.size:
        raise AudioError("truncated", f"the ID3 tag ends at byte {start + size}, the file at byte {source.size}")
    if source.size < 12 and head[:4] in _CUT_IFF:
        raise AudioError("truncated", f"{source.size} bytes of a {head[:4].decode()} header")
    raise AudioError("not_audio", f"begins with {head[:16]!r}")


def _by_magic(head: bytes) -> str | None:
    by_form = _IFF.get((head[:4], head[8:12]))
    if by_form:
        return by_form
    return next((name for at, magic, name in _MAGIC if head[at : at + len(magic)] == magic), None)


def _after_tags(source: Source) -> int:
    """Where the tags at the beginning end; a tag that would reach beyond the file is not counted."""
    offset = 0
    while True:
        size = tag_bytes(source, offset)
        if size == 0 or offset + size >= source.size:
            return offset
        offset += size


def tag_bytes(source: Source, position: int) -> int:
    """The length of the ID3 (v1, v2) or APE tag that begins here, or 0."""
    head = source.read(position, 32)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        # the size in a header counts what follows the header; a footer is the end of its tag
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    return id3_size(head)


def id3_size(head: bytes) -> int:
    """The length of the ID3v2 tag (id3.org, ID3v2.4.0 section 3.1) that begins with these bytes, or 0."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


# MPEG audio frames: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3; ADTS: ISO/IEC 13818-7 section 6.2.
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_V1 = {
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_V2 = {
    3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class Frame:
    """One MPEG audio or ADTS frame: its length in bytes, and what all frames of a stream share."""

    bytes: int
    samples: int
    rate: int
    kind: tuple[str, int, int, int]


def mpeg_frame(head: bytes) -> Frame | None:
    """The MPEG audio frame whose first 4 bytes these are, or None."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, (head[1] >> 1) & 3
    bitrate, rate_index, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[version][rate_index]
    kilobits = (_V1 if version == 3 else _V2)[layer][bitrate]
    if layer == 3:
        return Frame((12000 * kilobits // rate + padding) * 4, 384, rate, ("mp3", version, layer, rate))
    samples = 576 if layer == 1 and version != 3 else 1152
    return Frame(samples * 125 * kilobits // rate + padding, samples, rate, ("mp3", version, layer, rate))


def adts_frame(head: bytes) -> Frame | None:
    """The ADTS frame whose first 6 bytes these are, or None."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    size = ((head[3] & 3) << 11) | (head[4] << 3) | (head[5] >> 5)
    rate = (head[2] >> 2) & 15
    if size < 8 or rate > 12:
        return None
    return Frame(size, 1024, rate, ("aac", head[1] & 8, head[2] >> 6, rate))


_LAYER_I = tuple(("mp3", version, 3) for version in _RATES)  # few files have it, but runs of 0xFF look like it
FRAME_READERS: dict[str, Callable[[bytes], Frame | None]] = {"mp3": mpeg_frame, "aac": adts_frame}


def find_frames(source: Source, start: int) -> tuple[Format, int] | None:
    """The first place, within ``SCAN`` bytes, where a chain of frames begins."""
    data = source.read(start, SCAN + (1 << 15))
    position = data.find(b"\xff")
    while 0 <= position < SCAN:
        for name, reader in FRAME_READERS.items():
            wanted = CHAIN_IN_JUNK if position else CHAIN
            if _chains(data, position, reader, wanted, ends=start + len(data) == source.size):
                return FORMATS[name], start + position
        position = data.find(b"\xff", position + 1)
    return None


def _before_false_tag(source: Source, start: int, found: tuple[Format, int]) -> tuple[Format, int]:
    """The first frame of a file whose tag claims to reach to ``start``, which lies amid frames that began inside it."""
    earlier = find_frames(source, 10)
    position = start if earlier is None else earlier[1]
    while position < start:
        frame = FRAME_READERS[found[0].name](source.read(position, 6))
        if frame is None:
            return found
        position += frame.bytes
    return found if earlier is None or earlier[0] != found[0] else earlier


def _chains(data: bytes, position: int, reader: Callable[[bytes], Frame | None], wanted: int, *, ends: bool) -> bool:
    """Whether ``wanted`` frames of one kind follow each other here, or two where the file ends (``ends``)."""
    first = reader(data[position : position + 6])
    if position and first is not None and first.kind[:3] in _LAYER_I:
        return False
    frame, count = first, 0
    while frame is not None and first is not None and frame.kind == first.kind:
        count += 1
        if count == wanted:
            return True
        position += frame.bytes
        if position >= len(data):
            return ends and count > 1
        frame = reader(data[position : position + 6])
    return ends and count > 1 and data[position : position + 3] in (b"TAG", b"APE")
