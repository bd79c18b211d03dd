"""Telling formats apart by the first bytes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sharding.audio import AudioError, Source
from sharding.audio.formats import FORMATS, Frame, adts_frame, id3_size, mpeg_frame, recognise, tag_bytes
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import probed, put

# The suffixes of the files that odd_sounds makes, where they are not a format's own.
SUFFIXES = {"opus": "ogg", "oga": "ogg", "webm": "matroska", "mka": "matroska", "3gp": "mp4", "m4a": "mp4",
            "aifc": "aiff", "wma": "asf", "wv": "wavpack"}  # fmt: skip


def test_every_format_is_recognised_by_its_first_bytes(sounds: dict[str, bytes]) -> None:
    for name, data in sounds.items():
        suffix = name.rpartition(".")[2]
        expected = "rf64" if name == "rf64.wav" else SUFFIXES.get(suffix, suffix)
        assert recognise(Source(data, len(data)))[0] is FORMATS[expected], name


def test_sound_begins_after_tags_and_junk(sounds: dict[str, bytes]) -> None:
    for name, begin in (("id3.mp3", 510 + 710), ("junk.mp3", 1800), ("tagged.flac", 110), ("free.flac", 0)):
        assert recognise(Source(sounds[name], len(sounds[name])))[1] == begin, name


@pytest.mark.parametrize("magic", [b"RIFF", b"FORM", b"RF64"])
def test_a_file_that_ends_within_the_first_words_of_a_format_is_truncated(magic: bytes) -> None:
    with pytest.raises(AudioError, match="truncated"):
        recognise(Source(magic + bytes(4), 8))


def test_the_length_of_a_tag_is_read_from_its_header() -> None:
    tag = odd_sounds.id3(bytes(300))
    assert id3_size(tag) == len(tag) == 310
    assert id3_size(tag[:5] + b"\x10" + tag[6:]) == 320  # with a footer
    assert id3_size(b"ID3\3\0\0\xff\0\0\0") == 0  # the size has seven bits a byte
    header = odd_sounds.ape(bytes(100))
    assert tag_bytes(Source(header, len(header)), 0) == len(header) == 164
    assert tag_bytes(Source(b"TAG" + bytes(125), 128), 0) == 128
    assert tag_bytes(Source(b"none", 4), 0) == 0


def test_frames_are_as_long_as_their_headers_say() -> None:
    # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 144 * 128000 / 44100 bytes; padded: one more
    assert mpeg_frame(b"\xff\xfb\x90\x00") == Frame(417, 1152, 44100, ("mp3", 3, 1, 44100))
    assert mpeg_frame(b"\xff\xfb\x92\x00") == Frame(418, 1152, 44100, ("mp3", 3, 1, 44100))
    assert mpeg_frame(b"\xff\xfb\xf0\x00") is None  # a bit rate that does not exist
    assert adts_frame(b"\xff\xf1\x50\x80\x2b\x5f") == Frame(346, 1024, 4, ("aac", 0, 1, 4))
    assert adts_frame(b"\xff\xf1\x50\x80\x00\x1f") is None  # shorter than its own header


def test_files_of_other_kinds_are_not_audio(tmp_path: Path) -> None:
    files = {
        "page.mp3": b"<!doctype html><html>",
        "list.mp3": b"#EXTM3U\nfile:///etc/passwd\n",
        "script.wav": b"ffconcat version 1.0\nfile 'other.wav'\n",
        "session.wav": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "picture.wav": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(5000),
        "photo.mp3": b"\xff\xd8\xff\xe0" + np.random.default_rng(1).bytes(20000),
        "zeros.wav": bytes(50000),
        "ones.mp3": b"\xff" * 50000,
        "noise.mp3": np.random.default_rng(2).bytes(2 << 20),
        "tag.mp3": odd_sounds.id3(bytes(1000)),
    }
    facts, _ = probed(put(tmp_path / "files", files))
    assert {name: row["error"] for name, row in facts.items()} == dict.fromkeys(files, "not_audio")
