"""One clip, from its bytes to its facts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.audio import AudioForm
from sharding.common.errors import InputError
from sharding.probe.clip import ProbeSettings
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import probed, put, wav
from tests.sharding.corpora import RATE, noise


def test_a_source_in_the_stored_form_is_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sf.write(folder / "ready.flac", noise(1, 2.0), 32000, subtype="PCM_16")
    facts, packs = probed(folder)
    assert facts["ready.flac"]["copied"]
    assert packs.bytes("x/all/ready.flac") == (folder / "ready.flac").read_bytes()


def test_long_recordings_become_windows_that_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    wave = noise(3, 25.0)
    sf.write(folder / "long.flac", wave, 32000, subtype="PCM_16")
    facts, packs = probed(folder, ProbeSettings(window_s=10.0, hop_s=10.0, tail_s=2.0))
    windows = facts["long.flac"]["windows"]
    assert [(w["start_s"], w["duration_s"]) for w in windows] == [(0.0, 10.0), (10.0, 10.0), (20.0, 5.0)]
    parts = [sf.read(io.BytesIO(packs.bytes("x/all/long.flac", w["window"])), dtype="int16")[0] for w in windows]
    assert np.array_equal(np.concatenate(parts), sf.read(folder / "long.flac", dtype="int16")[0])


def test_a_wav_file_with_a_tag_in_front_is_encoded_anew(tmp_path: Path) -> None:
    samples = (odd_sounds.wave(RATE)[:, 0] * 32767).astype("<i2")
    plain = wav(samples.tobytes())
    files = {"plain.wav": plain, "tagged.wav": odd_sounds.id3(bytes(100)) + plain}
    settings = ProbeSettings(form=AudioForm("wav"))
    facts, packs = probed(put(tmp_path / "files", files), settings)
    assert {name: row["copied"] for name, row in facts.items()} == {"plain.wav": True, "tagged.wav": False}
    for name in files:
        found, rate = sf.read(io.BytesIO(packs.bytes(f"x/all/{name}")), dtype="int16")
        assert rate == RATE and np.array_equal(found, samples), name


def test_a_recording_that_is_too_long_or_too_short_says_so(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {})
    for seconds in (0.5, 2.0, 9.0):
        sf.write(folder / f"{seconds}.wav", noise(1, seconds), RATE)
    facts, _ = probed(folder, ProbeSettings(min_s=1.0, max_s=5.0))
    assert {name: row["error"] for name, row in facts.items()} == {
        "0.5.wav": "too_short",
        "2.0.wav": None,
        "9.0.wav": "too_long",
    }
    assert facts["9.0.wav"]["windows"] == [] and facts["9.0.wav"]["detail"] == "longer than 5 s"


@pytest.mark.parametrize("lengths", [{"window_s": 0.01}, {"hop_s": float("nan")}, {"tail_s": 100.0}, {"max_s": 0.01}])
def test_lengths_that_make_no_windows_are_refused(lengths: dict[str, float]) -> None:
    with pytest.raises(InputError) as caught:
        ProbeSettings(**lengths)  # type: ignore[arg-type]
    assert caught.value.remedy
