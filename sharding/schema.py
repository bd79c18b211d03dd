"""The tables of a build: Arrow schemas, stable identifiers, and keys of samples.

Nothing here reads or writes a file.  ``sharding.rows`` gives typed access to the tables.
"""

from __future__ import annotations

import hashlib
import re

import pyarrow as pa

from sharding.common.errors import InputError

FORMAT_VERSION = 2  # what builds are written in
CARD_LEAKS = "evaluation_clips_in_training"  # the key of a model card's metadata under which it says so
READABLE_FORMATS = (1, 2)  # format 1 lacks the columns audio_xxh3 of MANIFEST and difference of MATCHES

CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("kind", pa.string()),  # human | machine | label
        ("onset", pa.float64()),  # seconds in the clip; null where the caption describes the whole clip
        ("offset", pa.float64()),
        ("source", pa.string()),  # clip_id of the duplicate that it was written for; null: written for this clip
    ]
)
INTERVAL = pa.struct([("start", pa.float64()), ("end", pa.float64())])  # seconds in the original; end null: its end
DIFFERENCE = pa.struct(
    [
        ("clip_id", pa.string()),  # the clip that holds sound which the other one does not explain
        ("start_s", pa.float64()),  # in that clip
        ("duration_s", pa.float64()),
        ("low_hz", pa.float64()),
        ("high_hz", pa.float64()),
        ("above_db", pa.float64()),  # power of that sound, relative to what the other clip explains there
    ]
)

CATALOGUE = pa.schema(
    [
        ("clip_id", pa.string()),  # <dataset>/<part>/<published stem>
        ("dataset", pa.string()),
        ("part", pa.string()),
        ("split", pa.string()),  # clotho: development ...; audiocaps: train ...; wavcaps: train
        ("path", pa.string()),  # relative to the dataset's folder; ARCHIVE.zip!/MEMBER; null: no audio
        ("problem", pa.string()),  # null | missing | out_of_root: found before any audio is read
        ("captions", pa.list_(CAPTION)),  # as published, in the same order
        ("identity", pa.string()),  # freesound:117790, youtube:r1nicOVtvkQ@130.000, bbc:..., null
        ("interval", INTERVAL),  # which part of the original the clip covers; null: not known
        ("licence", pa.string()),
        ("uploader", pa.string()),
        ("title", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("published_duration_s", pa.float64()),
        ("notes", pa.list_(pa.string())),  # defects of the published tables, in words
    ]
)

WINDOW = pa.struct(
    [
        ("window", pa.int32()),
        ("start_s", pa.float64()),  # in the clip
        ("duration_s", pa.float64()),
        ("pack", pa.string()),  # file below OUT/.build/packs
        ("offset", pa.int64()),  # bytes into the pack
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
FACTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("error", pa.string()),  # null: decoded; else one of sharding.audio.ERROR_CLASSES
        ("detail", pa.string()),  # the error in words, or a remark
        ("source_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("codec", pa.string()),  # e.g. "FLAC/PCM_16"
        ("source_rate", pa.int32()),
        ("source_channels", pa.int32()),
        ("duration_s", pa.float64()),
        ("pcm_sha256", pa.string()),  # of the canonical samples: int16, mono, 32 kHz
        ("peak", pa.float64()),  # of full scale, linear
        ("rms", pa.float64()),
        ("bandwidth_hz", pa.float64()),
        ("copied", pa.bool_()),  # the shard holds the bytes of the source
        ("ext", pa.string()),  # suffix in the shard: flac, wav, opus, mp3 ...
        ("windows", pa.list_(WINDOW)),
    ]
)
INPUTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("changed", pa.float64()),  # when its audio file changed last, in seconds since 1970; inf: not known
        ("bytes", pa.int64()),  # of its audio file; null: there is none, or an earlier version wrote this
    ]
)
FINGERPRINTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("codes", pa.large_binary()),  # uint32, little-endian, one a hop
        ("flags", pa.large_binary()),  # uint8, one a hop: 1 where the frame is informative
    ]
)
MATCHES = pa.schema(
    [
        ("a", pa.string()),  # clip_id; a < b
        ("b", pa.string()),
        ("method", pa.string()),  # identity | source_bytes | pcm | fingerprint | waveform | residual | caption
        ("offset_s", pa.float64()),  # b starts at this time of a; null: not known
        ("overlap_s", pa.float64()),
        ("score", pa.float64()),
        ("outcome", pa.string()),  # same | different | undecided
        ("difference", DIFFERENCE),  # the strongest one, in a residual row that found any; else null
    ]
)
FATES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("fate", pa.string()),  # written | duplicate | withheld | filtered | failed
        ("reason", pa.string()),  # a rule or an error class from sharding.fates.decide.REASONS
        ("other", pa.string()),  # the clip because of which it has this fate; null: none
        ("group", pa.string()),  # smallest clip_id of all clips with verified same sound
        ("kin", pa.string()),  # smallest clip_id of all clips that may share sound or a source
        ("keys", pa.list_(pa.string())),  # the keys of its samples
    ]
)
DIFFERENCES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("fate", pa.string()),  # that the clip has and keeps
        ("reason", pa.string()),
        ("other", pa.string()),
        ("anew_fate", pa.string()),  # that a build of all datasets from the beginning would give it
        ("anew_reason", pa.string()),
        ("anew_other", pa.string()),
    ]
)
MANIFEST = pa.schema(
    [
        ("key", pa.string()),
        ("clip_id", pa.string()),
        ("window", pa.int32()),
        ("windows", pa.int32()),  # how many the clip has
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),  # file name below OUT/shards
        ("index", pa.int32()),  # position in the shard, from 0
        ("audio", pa.string()),  # name of the tar member
        ("audio_offset", pa.int64()),  # of the member's data in the tar
        ("audio_bytes", pa.int64()),
        ("audio_sha256", pa.string()),
        ("audio_xxh3", pa.uint64()),  # compared with what training reads; null: written in format 1
        ("json_offset", pa.int64()),
        ("json_bytes", pa.int64()),
        ("json_sha256", pa.string()),
        ("rate", pa.int32()),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("captions", pa.list_(CAPTION)),
        ("group", pa.string()),
        ("kin", pa.string()),
        ("identity", pa.string()),
        ("licence", pa.string()),
    ]
)
# The rows of a task: MANIFEST, the sample's JSON (null: it is copied from the pack), and the location of sound and JSON
TASK = pa.schema(
    [
        *MANIFEST,
        ("json", pa.binary()),
        ("pack", pa.string()),
        ("pack_offset", pa.int64()),
        ("pack_json_offset", pa.int64()),
    ]
)

_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_SHORT = {"/": "~", " ": "+"}
_LONG = {short: char for char, short in _SHORT.items()}


def stable_id(text: str) -> int:
    """A 64-bit signed integer that is the same for ``text`` in every process and on every machine.

    Python's ``hash`` is not: it differs between processes, so ranks would not agree about it.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def sample_key(clip_id: str, window: int = 0, windows: int = 1) -> str:
    """The WebDataset key of a sample: reversible, without dots, and different for different samples.

    WebDataset cuts the name of a member at its first dot, and 307 Clotho names have one.  ``/`` becomes ``~``, a space
    becomes ``+``, and every other byte outside ``[A-Za-z0-9_-]`` becomes ``=`` and two hex digits.  A clip of several
    windows adds ``@`` and the number of the window.
    """
    key = _OTHER.sub(_spelled, clip_id)
    return key if windows == 1 else f"{key}@{window:05d}"


def _spelled(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or "".join(f"={byte:02X}" for byte in found[0].encode())


def parse_key(key: str) -> tuple[str, int]:
    """The clip_id and the window that ``sample_key`` encoded.

    Raises:
        InputError: ``key`` is not a key that ``sample_key`` writes.
    """
    body, at, window = key.partition("@")
    out = bytearray()
    position = 0
    try:
        while position < len(body):
            char = body[position]
            if char == "=":
                out.append(int(body[position + 1 : position + 3], 16))
                position += 3
                continue
            out += _LONG.get(char, char).encode()
            position += 1
        found = out.decode(), int(window or 0)
    except ValueError as error:
        raise InputError("not a sample key", value=key) from error
    if sample_key(*found, windows=2 if at else 1) != key:
        raise InputError("not a sample key", value=key)
    return found
