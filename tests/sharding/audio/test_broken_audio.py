"""Hostile files: every format whole, cut anywhere, damaged anywhere, lying in its header, or not a file at all."""

from __future__ import annotations

import io
import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from sharding.audio import decode_segment
from sharding.probe.clip import ProbeSettings
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import EVERY, SECONDS, probed, put, wav

ANY_LENGTH = ProbeSettings(min_s=0.0)
NEVER = {"crashed", "timeout", "out_of_memory"}
# A cut between two frames of a format that counts nothing leaves a shorter recording that is whole.
UNCOUNTED = {"constant.mp3", "variable.mp3", "tagged.mp3", "trash.mp3", "art.mp3", "adts.aac", "narrow.amr"}
# Without checksum or count: what is changed in the middle of samples or packets is sound like any other.
CHECKED = {"free.flac", "deep.flac", "tagged.flac", "flac.oga", "flac.mka", "vorbis.ogg", "voice.opus"}


@pytest.fixture(scope="module")
def sounds() -> dict[str, bytes]:
    return {name: make() for name, make in EVERY.items()}


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
    told = {n: (r, c) for n, (_, _, r, c) in odd_sounds.BY_SOUNDFILE.items()}
    facts, _ = probed(put(tmp_path / "files", {name: sounds[name] for name in told}))
    assert {n: (row["source_rate"], row["source_channels"]) for n, row in facts.items()} == told


def test_two_decoders_hear_the_same(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    lossless = ["PCM_24.wav", "FLOAT.wav", "rf64.wav", "sony.w64", "ALAC_16.caf", "alac.m4a", "flac.mka", "free.flac"]
    facts, packs = probed(put(tmp_path / "files", {name: sounds[name] for name in lossless}))
    for name in lossless:
        channels = facts[name]["source_channels"]
        expected = soxr.resample(odd_sounds.wave(44100, channels).mean(axis=1), 44100, 32000, quality="HQ")
        assert np.abs(packs.wave(f"x/all/{name}", 0, 2, 32000) - expected).max() < 2e-4, name


def test_what_the_probe_accepts_can_be_read_again_as_it_is(sounds: dict[str, bytes]) -> None:
    samples = (odd_sounds.wave(32000)[:, 0] * 32767).astype("<i2").tobytes()
    rf64 = sounds["rf64.wav"]
    piped = {"piped.wav": wav(samples, size=0), "piped.rf64": rf64[:28] + bytes(8) + rf64[36:]}
    for name, data in {**sounds, **piped}.items():
        whole, rate = decode_segment(data)
        assert len(whole) / rate == pytest.approx(SECONDS, abs=0.07), name
        piece, _ = decode_segment(data, 0.5, 0.25)
        assert len(piece) / rate == pytest.approx(0.25, abs=0.001), name


def cuts(size: int) -> list[int]:
    near = [1, 3, 8, 13, 40, 100, size - 300, size - 20, size - 5, size - 1]
    return sorted({at for at in near + [int(size * share) for share in (0.05, 0.3, 0.6, 0.9)] if 0 < at < size})


@pytest.mark.parametrize("group", range(4))
def test_a_file_that_was_cut_is_never_taken_for_whole(tmp_path: Path, sounds: dict[str, bytes], group: int) -> None:
    files = {f"{at}@{n}": sounds[n][:at] for n in sorted(EVERY)[group::4] for at in cuts(len(sounds[n]))}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        at, _, kind = name.partition("@")
        assert row["error"] not in NEVER, (name, row["detail"])
        if row["error"] is None and row["duration_s"] < SECONDS - 0.001:  # else the cut may have hit what is no sound
            lost = 1 - int(at) / len(sounds[kind])
            assert kind in UNCOUNTED and row["duration_s"] < SECONDS * (1 - lost) + 0.06, (name, row["duration_s"])


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


def test_damage_inside_is_no_silent_loss(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    files = {f"{how}@{n}": d for n in EVERY for how, d in damaged(sounds[n]).items()}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        kind = name.partition("@")[2]
        assert row["error"] not in NEVER, (name, row["detail"])
        assert row["error"] is not None or kind not in CHECKED, name
        if row["error"] is None and not kind.endswith((".3gp", ".wma")):
            assert row["duration_s"] > SECONDS - 0.12, (name, row["duration_s"])


def test_chains_of_files_are_heard_to_the_end(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    joined = {
        "album.mp3": sounds["counted.mp3"] + odd_sounds.album_art() + sounds["counted.mp3"],
        "cover.mp3": odd_sounds.ape(bytes(2 << 20)) + 2 * sounds["counted.mp3"],
    }
    chained = ("counted.mp3", "variable.mp3", "adts.aac", "vorbis.ogg", "voice.opus", "opus.webm")
    facts, _ = probed(put(tmp_path / "files", joined | {name: sounds[name] * 2 for name in chained}))
    for name in facts:
        assert facts[name]["duration_s"] == pytest.approx(2 * SECONDS, abs=0.15), (name, facts[name])


def test_headers_that_lie(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    samples = (odd_sounds.wave(32000)[:, 0] * 32767).astype("<i2").tobytes()
    flac = io.BytesIO()
    sf.write(flac, odd_sounds.wave(32000), 32000, format="FLAC")

    def counting(total: int) -> bytes:
        data = bytearray(flac.getvalue())
        data[18:26] = ((int.from_bytes(data[18:26], "big") >> 36 << 36) | total).to_bytes(8, "big")
        return bytes(data)

    def plain(form: str) -> bytes:
        file = io.BytesIO()
        sf.write(file, odd_sounds.wave(32000), 32000, "PCM_16", format=form)
        return file.getvalue()

    rf64, caf, aiff, au = sounds["rf64.wav"], sounds["PCM_16.caf"], plain("AIFF"), plain("AU")
    w64, wma = sounds["sony.w64"], sounds["media.wma"]
    at_wma = wma.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 88
    at_w64, at_aiff = w64.index(b"data\xf3\xac\xd3\x11") + 16, aiff.index(b"SSND") + 4
    big, at = struct.pack("<Q", 10**12), caf.index(b"data") + 4
    told = {
        "no_length.wav": (wav(samples, size=0), None),
        "endless.wav": (wav(samples, size=0xFFFFFFFF), None),
        "negative.wav": (wav(samples, size=0x80000000), None),
        "too_much.wav": (wav(samples, size=10**8), "truncated"),
        "broken_off.wav": (wav(samples, size=0x90000000), "truncated"),
        "tagged.aiff": (aiff + b"TAG" + b"x" * 125, None),
        "no_length.au": (au[:8] + bytes(4) + au[12:], None),
        "nothing.au": (au[:8] + bytes(4) + au[12:24], "empty"),
        "one_more.wav": (wav(samples[:-1], size=len(samples)), "truncated"),
        "no_channel.wav": (wav(samples, channels=0), "undecodable"),
        "channels.wav": (wav(samples, channels=65535), "undecodable"),
        "still.wav": (wav(samples, rate=0), "undecodable"),
        "fast.wav": (wav(samples, rate=1 << 31), "undecodable"),
        "align.wav": (wav(samples, align=65535), None),
        "no_length.rf64": (rf64[:28] + bytes(8) + rf64[36:], None),
        "endless.rf64": (rf64[:28] + b"\xff" * 8 + rf64[36:], None),
        "bomb.rf64": (rf64[:28] + big + rf64[36:], "truncated"),
        "piped.w64": (w64[:at_w64] + struct.pack("<Q", (1 << 63) - 1) + w64[at_w64 + 8 :], None),
        "piped.aiff": (aiff[:4] + bytes(4) + aiff[8:at_aiff] + bytes(4) + aiff[at_aiff + 4 :], None),
        "cut_after.wav": (wav(samples) + b"data" + struct.pack("<I", len(samples)) + samples[:9000], None),
        "twice.wav": (wav(samples) + b"data" + struct.pack("<I", 9000) + samples[:9000], "undecodable"),
        "broadcast.wma": (wma[:at_wma] + b"\1" + wma[at_wma + 1 :], None),
        "picture.heic": (b"\0\0\0\x18ftypheic" + bytes(12) + b"\0\0\0\x10meta" + bytes(8), "not_audio"),
        "tag.mp3": (odd_sounds.album_art()[:30_000], "truncated"),
        "head.flac": (flac.getvalue()[:60], "truncated"),
        "no_frames.flac": (counting(0)[: flac.getvalue().index(b"\xff\xf8")], "empty"),
        "bomb.caf": (caf[:at] + big[::-1] + caf[at + 8 :], "truncated"),
        "bomb.flac": (counting((1 << 36) - 1), "truncated"),
        "one_more.flac": (counting(64001), "truncated"),
        "one_fewer.flac": (counting(63999), None),
        "no_length.flac": (counting(0), None),
    }
    facts, _ = probed(put(tmp_path / "files", {name: data for name, (data, _) in told.items()}))
    assert {n: row["error"] for n, row in facts.items()} == {n: error for n, (_, error) in told.items()}
    whole = [n for n, (_, error) in told.items() if error is None and n != "broadcast.wma"]  # which has no exact length
    assert {n: facts[n]["duration_s"] for n in whole} == dict.fromkeys(whole, SECONDS)


def test_a_long_silence_that_was_cut_is_told_at_once(tmp_path: Path) -> None:
    """Its last frames hold thousands of bytes that look like the beginning of one."""
    file = io.BytesIO()
    sf.write(file, np.zeros(20 * 60 * 32000, np.int16), 32000, format="FLAC")
    files = {"cut.flac": file.getvalue()[:-3], "tagged.flac": odd_sounds.id3(bytes(100)) + file.getvalue()[:-3]}
    settings = ProbeSettings(timeout_s=5.0)
    facts, _ = probed(put(tmp_path / "files", files), settings)
    assert {n: row["error"] for n, row in facts.items()} == dict.fromkeys(files, "truncated")


def test_damage_in_a_film_is_no_silent_loss(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    rng, film = np.random.default_rng(1), sounds["opus.webm"]
    places = rng.integers(300, len(film) - 64, 30)
    files = {f"{at}.webm": film[:at] + rng.bytes(64) + film[at + 64 :] for at in map(int, places)}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        assert row["error"] is not None or row["duration_s"] > SECONDS - 0.12, (name, row["duration_s"])


@pytest.mark.parametrize(("form", "codec"), [("matroska", "pcm_s16le"), ("avi", "pcm_s16le"), ("asf", "pcm_s16le")])
def test_a_picture_that_lasts_longer_is_no_lack_of_sound(tmp_path: Path, form: str, codec: str) -> None:
    film = odd_sounds.by_pyav(form, codec, video="mpeg4", picture_s=4.0)
    facts, _ = probed(put(tmp_path / "files", {"film": film}))
    assert facts["film"]["error"] is None, facts["film"]["detail"]
    assert facts["film"]["duration_s"] == pytest.approx(SECONDS, abs=0.1)


def test_samples_that_are_no_sound(tmp_path: Path) -> None:
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


def test_what_is_no_audio_file_says_so(tmp_path: Path) -> None:
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


def test_places_that_are_no_files(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"good.wav": odd_sounds.by_soundfile("WAV", "PCM_16")})
    (folder / "broken.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    names = {
        "good.wav": None,
        "broken.wav": "missing",
        "loop.wav": "unreadable",
        "folder.wav": "unreadable",
        "pipe.wav": "unreadable",
        "device.wav": "unreadable",
        "good.wav/below.wav": "unreadable",
        f"{'long' * 100}.wav": "unreadable",
        "../files/good.wav": "out_of_root",
        "/etc/passwd": "out_of_root",
        "zero\0.wav": "out_of_root",
    }
    begun = time.monotonic()
    facts, _ = probed(folder, names=list(names))
    assert {name: row["error"] for name, row in facts.items()} == names
    assert time.monotonic() - begun < 30


def test_damaged_archives_cost_their_members_alone(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"text.zip": b"no archive", "empty.zip": b""})
    sound = odd_sounds.by_soundfile("WAV", "PCM_16")
    expected: dict[str, str | None] = {"text.zip!/x.wav": "unreadable", "empty.zip!/x.wav": "unreadable"}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", method) as archive:
            archive.writestr("x.wav", sound)
        data = whole.getvalue()
        middle = len(data) // 2
        for how, changed in {
            "whole": data,
            "cut": data[:middle],
            "noise": data[:middle] + np.random.default_rng(3).bytes(20) + data[middle + 20 :],
            "head": b"XXXX" + data[4:],
            "locked": data[: data.rindex(b"PK\1\2") + 8] + b"\1" + data[data.rindex(b"PK\1\2") + 9 :],
        }.items():
            (folder / f"{how}{method}.zip").write_bytes(changed)
            expected[f"{how}{method}.zip!/x.wav"] = None if how == "whole" else "unreadable"
    expected["whole0.zip!/gone.wav"] = "missing"
    facts, _ = probed(folder, names=list(expected))
    assert {name: row["error"] for name, row in facts.items()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_nothing_that_is_done_to_a_file_harms_the_prober(tmp_path: Path, sounds: dict[str, bytes], seed: int) -> None:
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    for name, data in sounds.items():
        for number in range(25):
            reach = len(data) if number % 3 == 0 else min(len(data), 300)
            changed = bytearray(data)
            for _ in range(int(rng.integers(1, 4))):
                at, width = int(rng.integers(0, reach)), int(rng.choice([1, 2, 4, 8, 40]))
                changed[at : at + width] = (bytes(width), b"\xff" * width, rng.bytes(width))[int(rng.integers(0, 3))]
            files[f"{number}@{name}"] = bytes(changed)
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    assert [(n, row["detail"]) for n, row in facts.items() if row["error"] in NEVER] == []
