"""Sequences of frames, pages and packets that are interrupted, joined, or followed by junk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.audio import AudioError, Source
from sharding.audio.streams import STREAMS
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import SECONDS, by_pyav, probed, put

MAKERS = {
    "ac3": lambda: by_pyav("ac3", "ac3", 48000),
    "flv": lambda: by_pyav("flv", "aac"),
    "mpegts": lambda: by_pyav("mpegts", "aac"),
    "tta": lambda: by_pyav("tta", "tta"),
    "wavpack": lambda: by_pyav("wv", "wavpack"),
    "realmedia": lambda: by_pyav("rm", "ac3", 48000),
    "amr": lambda: by_pyav("amr", "libopencore_amrnb", 8000),
}


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_stream_that_ends_within_its_last_part_is_truncated(kind: str) -> None:
    whole = MAKERS[kind]()
    STREAMS[kind](Source(whole, len(whole)), 0)
    for lost in (1, 5):
        # FFmpeg puts a tag or an index after the sound of some formats
        cut = whole[: len(whole) // 2] if kind in ("realmedia", "tta", "wavpack") else whole[:-lost]
        with pytest.raises(AudioError) as caught:
            STREAMS[kind](Source(cut, len(cut)), 0)
        assert caught.value.error == "truncated", caught.value


@pytest.mark.parametrize("kind", ["ac3", "flv", "mpegts", "wavpack"])
def test_a_stream_that_is_interrupted_and_goes_on_is_undecodable(kind: str) -> None:
    whole = MAKERS[kind]()
    data = whole + bytes(188 * 17) + whole
    with pytest.raises(AudioError) as caught:
        STREAMS[kind](Source(data, len(data)), 0)
    assert caught.value.error == "undecodable", caught.value


def test_joined_files_are_decoded_to_the_end(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    joined = {
        "album.mp3": sounds["counted.mp3"] + odd_sounds.album_art() + sounds["counted.mp3"],
        "cover.mp3": odd_sounds.ape(bytes(2 << 20)) + 2 * sounds["counted.mp3"],
    }
    chained = ("counted.mp3", "variable.mp3", "adts.aac", "vorbis.ogg", "voice.opus", "opus.webm")
    facts, _ = probed(put(tmp_path / "files", joined | {name: sounds[name] * 2 for name in chained}))
    for name in facts:
        assert facts[name]["duration_s"] == pytest.approx(2 * SECONDS, abs=0.15), (name, facts[name])


def test_sound_after_much_junk_makes_a_file_undecodable(tmp_path: Path) -> None:
    sound = odd_sounds.bare_mp3(variable=False)
    facts, _ = probed(put(tmp_path / "files", {"junk.mp3": sound + bytes(3 << 20) + sound}))
    assert facts["junk.mp3"]["error"] == "undecodable" and "some after it" in facts["junk.mp3"]["detail"]
