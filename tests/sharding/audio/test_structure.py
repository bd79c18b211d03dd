"""Files that were cut, and headers that are wrong."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import ANY_LENGTH, EVERY, NEVER, SECONDS, probed, put, wav

# A cut between two frames of a format that counts nothing leaves a shorter recording that is whole.
UNCOUNTED = {"constant.mp3", "variable.mp3", "tagged.mp3", "trash.mp3", "art.mp3", "adts.aac", "narrow.amr"}


def cuts(size: int) -> list[int]:
    near = [1, 3, 8, 13, 40, 100, size - 300, size - 20, size - 5, size - 1]
    return sorted({at for at in near + [int(size * share) for share in (0.05, 0.3, 0.6, 0.9)] if 0 < at < size})


@pytest.mark.parametrize("group", range(4))
def test_a_cut_file_is_never_accepted_as_complete(tmp_path: Path, sounds: dict[str, bytes], group: int) -> None:
    files = {f"{at}@{n}": sounds[n][:at] for n in sorted(EVERY)[group::4] for at in cuts(len(sounds[n]))}
    facts, _ = probed(put(tmp_path / "files", files), ANY_LENGTH)
    for name, row in facts.items():
        at, _, kind = name.partition("@")
        assert row["error"] not in NEVER, (name, row["detail"])
        if row["error"] is None and row["duration_s"] < SECONDS - 0.001:  # else the cut may have hit what is no sound
            lost = 1 - int(at) / len(sounds[kind])
            assert kind in UNCOUNTED and row["duration_s"] < SECONDS * (1 - lost) + 0.06, (name, row["duration_s"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(EVERY)), share=st.floats(0.02, 0.97))
def test_a_cut_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, sounds: dict[str, bytes], name: str, share: float
) -> None:
    folder = put(tmp_path_factory.mktemp("cut") / "files", {name: sounds[name][: int(len(sounds[name]) * share)]})
    row = probed(folder)[0][name]
    shorter = name in UNCOUNTED and row["duration_s"] is not None and row["duration_s"] < SECONDS
    assert row["error"] is not None or shorter or row["duration_s"] > SECONDS - 0.001, (name, share, row["detail"])


def test_headers_with_a_wrong_length_rate_or_channel_count(tmp_path: Path, sounds: dict[str, bytes]) -> None:
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
    expected = {
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
    facts, _ = probed(put(tmp_path / "files", {name: data for name, (data, _) in expected.items()}))
    assert {n: row["error"] for n, row in facts.items()} == {n: error for n, (_, error) in expected.items()}
    whole = [
        n for n, (_, error) in expected.items() if error is None and n != "broadcast.wma"
    ]  # which has no exact length
    assert {n: facts[n]["duration_s"] for n in whole} == dict.fromkeys(whole, SECONDS)


def test_a_header_without_a_sample_size_is_refused(tmp_path: Path) -> None:
    data = wav(bytes(range(256)) * 200)
    at = data.index(b"fmt ")
    short = data[:at] + b"fmt " + struct.pack("<I", 14) + data[at + 8 : at + 22] + data[at + 24 :]
    facts, _ = probed(put(tmp_path / "files", {"short.wav": short}))
    assert facts["short.wav"]["error"] == "undecodable"
    assert "no sample size" in facts["short.wav"]["detail"]
