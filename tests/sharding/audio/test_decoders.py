"""Decoding every format, and which decoder is believed where they disagree."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from sharding.audio import Decoded, Source, decode
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import ANY_LENGTH, EVERY, NEVER, SECONDS, by_pyav, probed, put, wav
from tests.sharding.corpora import RATE

# Without checksum or count: what is changed in the middle of samples or packets is sound like any other.
CHECKED = {"free.flac", "deep.flac", "tagged.flac", "flac.oga", "flac.mka", "vorbis.ogg", "voice.opus"}


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """The highest normalised correlation at any shift."""
    size = 1 << (len(found) + len(expected)).bit_length()
    product = np.fft.rfft(found, size) * np.fft.rfft(expected, size).conj()
    return float(np.fft.irfft(product, size).max() / (np.linalg.norm(found) * np.linalg.norm(expected)))


def test_every_format_comes_out_whole_and_sounds_like_itself(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    facts, packs = probed(put(tmp_path / "files", sounds))
    for name in EVERY:
        row = facts[name]
        assert row["error"] is None, (name, row["detail"])
        assert row["duration_s"] == pytest.approx(SECONDS, abs=0.07), name
        mono = odd_sounds.wave(row["source_rate"], row["source_channels"]).mean(axis=1)
        expected = soxr.resample(mono, row["source_rate"], 32000)
        assert likeness(packs.wave(f"x/all/{name}", 0, SECONDS, 32000), expected) > 0.75, name


def test_channels_and_rates_are_those_of_the_file(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    expected = {n: (r, c) for n, (_, _, r, c) in odd_sounds.BY_SOUNDFILE.items()}
    facts, _ = probed(put(tmp_path / "files", {name: sounds[name] for name in expected}))
    assert {n: (row["source_rate"], row["source_channels"]) for n, row in facts.items()} == expected


def test_both_decoders_deliver_the_same_sound(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    lossless = ["PCM_24.wav", "FLOAT.wav", "rf64.wav", "sony.w64", "ALAC_16.caf", "alac.m4a", "flac.mka", "free.flac"]
    facts, packs = probed(put(tmp_path / "files", {name: sounds[name] for name in lossless}))
    for name in lossless:
        channels = facts[name]["source_channels"]
        expected = soxr.resample(odd_sounds.wave(44100, channels).mean(axis=1), 44100, 32000, quality="HQ")
        assert np.abs(packs.wave(f"x/all/{name}", 0, 2, 32000) - expected).max() < 2e-4, name


def damaged(data: bytes) -> dict[str, bytes]:
    """The same file with a fault in its middle."""
    a, b = int(len(data) * 0.4), int(len(data) * 0.6)
    return {
        "zeros": data[:a] + bytes(b - a) + data[b:],
        "twice": data[:b] + data[a:b] + data[b:],
        "hole": data[:a] + data[b:],
        "hollow": data[:b] + bytes(len(data) - b),
        "byte": data[:a] + data[a + 1 :],
        "noise": data[:a] + np.random.default_rng(0).bytes(40) + data[a + 40 :],
        "page": data[:a] + b"<html>429 Too Many Requests</html>",
    }


def test_damage_in_the_middle_is_never_a_silent_loss(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    files = {f"{how}@{n}": d for n in EVERY for how, d in damaged(sounds[n]).items()}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        kind = name.partition("@")[2]
        assert row["error"] not in NEVER, (name, row["detail"])
        assert row["error"] is not None or kind not in CHECKED, name
        if row["error"] is None and not kind.endswith((".3gp", ".wma")):
            assert row["duration_s"] > SECONDS - 0.12, (name, row["duration_s"])


def test_samples_that_are_not_finite_or_all_equal_are_refused(tmp_path: Path) -> None:
    def floats(value: float, subtype: str = "FLOAT") -> bytes:
        samples = odd_sounds.wave(32000)[:, 0].astype(np.float64)
        samples[30000] = value
        file = io.BytesIO()
        sf.write(file, samples, 32000, format="WAV", subtype=subtype)
        return file.getvalue()

    def faint() -> bytes:
        file = io.BytesIO()
        sf.write(file, 1e-5 * odd_sounds.wave(32000), 32000, format="WAV", subtype="FLOAT")
        return file.getvalue()

    def constant(value: float, rate: int, channels: int = 1) -> bytes:
        file = io.BytesIO()
        sf.write(file, np.full((rate, channels), value, np.float32), rate, format="WAV", subtype="PCM_16")
        return file.getvalue()

    files = {
        "nan.wav": (floats(np.nan), "undecodable"),
        "inf.wav": (floats(-np.inf), "undecodable"),
        "huge.wav": (floats(1e300, "DOUBLE"), "undecodable"),
        "loud.wav": (floats(40.0), None),
        "silence.wav": (constant(0.0, 44100), "silent"),
        "offset.wav": (constant(0.3, 44100), "silent"),
        "offset2.wav": (constant(0.3, 32000, channels=2), "silent"),
        "faint.wav": (faint(), "silent"),
        "none.wav": (wav(b""), "empty"),
        "one.wav": (wav(b"\1\2"), "too_short"),
    }
    facts, _ = probed(put(tmp_path / "files", {name: data for name, (data, _) in files.items()}))
    assert {n: row["error"] for n, row in facts.items()} == {n: error for n, (_, error) in files.items()}
    assert facts["offset.wav"]["detail"] == "every sample is 0.299988 of full scale"
    assert facts["faint.wav"]["detail"].startswith("in 16 bits every sample is the same; the peak is ")


@pytest.mark.parametrize(("form", "codec"), [("matroska", "pcm_s16le"), ("avi", "pcm_s16le"), ("asf", "pcm_s16le")])
def test_a_picture_may_last_longer_than_the_sound(tmp_path: Path, form: str, codec: str) -> None:
    film = odd_sounds.by_pyav(form, codec, video="mpeg4", picture_s=4.0)
    facts, _ = probed(put(tmp_path / "files", {"film": film}))
    assert facts["film"]["error"] is None, facts["film"]["detail"]
    assert facts["film"]["duration_s"] == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(
    ("form", "codec"), [("webm", "libopus"), ("flv", "aac"), ("mpegts", "aac"), ("matroska", "aac")]
)
def test_a_clock_that_leaps_means_missing_sound(form: str, codec: str, tmp_path: Path) -> None:
    live = {"live": "1"} if form in ("webm", "matroska") else {}
    files = {f"{pause}": by_pyav(form, codec, 48000, options=live, leap_s=float(pause)) for pause in ("0", "0.5")}
    facts, _ = probed(put(tmp_path / "files", files))
    assert facts["0"]["error"] is None
    assert facts["0.5"]["error"] == "undecodable" and "no sound from 1." in facts["0.5"]["detail"]


def test_amr_with_pauses_is_decoded(tmp_path: Path) -> None:
    dtx = by_pyav("amr", "libopencore_amrnb", 8000, coding={"dtx": "1"})
    frames = dtx[6:]
    assert frames[0] >> 3 & 15 < 8
    nothing = b"\x7c"  # NO_DATA: 20 ms for which nothing was sent
    facts, _ = probed(put(tmp_path / "files", {"dtx.amr": dtx, "pause.amr": dtx + 25 * nothing}))
    assert [row["error"] for row in facts.values()] == [None, None]
    assert facts["pause.amr"]["duration_s"] == pytest.approx(facts["dtx.amr"]["duration_s"] + 0.5, abs=0.03)


def test_headers_of_blocks_of_a_voice_file_are_no_sound(tmp_path: Path) -> None:
    facts, packs = probed(put(tmp_path / "files", {"blocks.voc": by_pyav("voc", "pcm_s16le", RATE)}))
    row = facts["blocks.voc"]
    assert row["error"] is None and row["duration_s"] == pytest.approx(SECONDS, abs=1e-3)
    found = packs.wave("x/all/blocks.voc", 0, SECONDS, RATE)
    expected = odd_sounds.wave(RATE)[: len(found), 0]
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_blocks_are_bounded_and_described_before_the_first_one(sounds: dict[str, bytes]) -> None:
    data, decoded = sounds["free.flac"], Decoded()
    blocks = decode(Source(data, len(data)), decoded)
    first = next(blocks)
    assert (decoded.codec, decoded.rate, decoded.channels) == ("FLAC/PCM_16", 44100, 2)
    assert decoded.decoder == "libsndfile" and first.dtype == np.float32
    assert len(first) + sum(map(len, blocks)) == decoded.frames == SECONDS * 44100
