"""Boxes and elements that do not fit into each other."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from sharding.audio import AudioError, Source
from sharding.audio.containers import asf, matroska, mp4
from tests.sharding.audio.odd_sounds import ANY_LENGTH, SECONDS, probed, put


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def test_boxes_must_lie_within_the_file() -> None:
    whole = box(b"ftyp", b"M4A ") + box(b"moov", bytes(40)) + box(b"mdat", bytes(400))
    assert mp4(Source(whole, len(whole)), 0).remark == ""
    for data, error in (
        (whole[:-1], "truncated"),
        (box(b"ftyp", b"M4A ") + box(b"mdat", bytes(400)), "truncated"),  # no index
        (box(b"ftyp", b"heic") + box(b"meta", bytes(40)), "not_audio"),
        (box(b"ftyp", b"M4A ") + struct.pack(">I", 3) + b"moov" + bytes(40), "undecodable"),
    ):
        with pytest.raises(AudioError) as caught:
            mp4(Source(data, len(data)), 0)
        assert caught.value.error == error, data[:60]


def test_junk_after_the_last_box_is_no_part_of_the_recording() -> None:
    data = box(b"ftyp", b"M4A ") + box(b"moov", bytes(40)) + box(b"mdat", bytes(400)) + b"TAG" + bytes(125)
    assert mp4(Source(data, len(data)), 0).remark == ""


def test_elements_must_fit_into_their_segment(sounds: dict[str, bytes]) -> None:
    film = sounds["flac.mka"]
    assert matroska(Source(film, len(film)), 0).remark == ""
    for data, error in ((film[:-1], "truncated"), (film[:20], "truncated"), (film[:40] + b"\0" * 20 + film[60:], None)):
        with pytest.raises(AudioError) as caught:
            matroska(Source(data, len(data)), 0)
        assert error is None or caught.value.error == error


def test_a_windows_media_file_has_as_many_bytes_as_it_says(sounds: dict[str, bytes]) -> None:
    wma = sounds["media.wma"]
    assert asf(Source(wma, len(wma)), 0).declared
    with pytest.raises(AudioError, match="truncated"):
        asf(Source(wma[:-1], len(wma) - 1), 0)


def test_damage_in_a_film_is_never_a_silent_loss(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    rng, film = np.random.default_rng(1), sounds["opus.webm"]
    places = rng.integers(300, len(film) - 64, 30)
    files = {f"{at}.webm": film[:at] + rng.bytes(64) + film[at + 64 :] for at in map(int, places)}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        assert row["error"] is not None or row["duration_s"] > SECONDS - 0.12, (name, row["duration_s"])
