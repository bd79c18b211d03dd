"""Files from whose middle something is missing, and sound that few readers read as it is."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.audio import decode_segment, encode
from sharding.audio.form import AudioForm
from sharding.probe.clip import ProbeSettings
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import SECONDS, by_pyav, by_soundfile, probed, put, wav
from tests.sharding.corpora import RATE


def frames_of(flac: bytes) -> list[bytes]:
    """What stands before the first frame, and each frame: they are numbered, from 0."""
    places, at = [], flac.index(b"\xff\xf8")
    while at >= 0:
        if flac[at + 4] == len(places):
            places.append(at)
        at = flac.find(b"\xff\xf8", at + 1)
    return [flac[: places[0]], *(flac[begin:end] for begin, end in zip(places, [*places[1:], None], strict=True))]


def test_flac_that_lacks_frames_is_damaged(tmp_path: Path) -> None:
    head, *frames = frames_of(by_soundfile("FLAC", "PCM_16", RATE))
    assert len(frames) > 8
    files = {
        "whole.flac": [head, *frames],
        "first.flac": [head, *frames[1:]],
        "middle.flac": [head, *frames[:3], *frames[5:]],
        "order.flac": [head, *frames[:3], frames[4], frames[3], *frames[5:]],
    }
    facts, _ = probed(put(tmp_path / "files", {name: b"".join(parts) for name, parts in files.items()}))
    assert facts["whole.flac"]["error"] is None
    for name, sample in (("first", 0), ("middle", 3 * 4096), ("order", 4 * 4096)):
        row = facts[f"{name}.flac"]
        assert (row["error"], row["detail"]) == ("undecodable", f"no frame begins at sample {sample}")


def test_flac_with_frames_too_many_is_damaged(tmp_path: Path) -> None:
    mono = frames_of(by_soundfile("FLAC", "PCM_16", RATE))
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.normal(0, 3000, (4096, 2)) @ [[1, 1 - k % 2], [k % 2, 1]] for k in range(9)])
    loud = rng.integers(-32768, 32768, (40000, 8))  # frames of more than 64 KB
    files = {}
    for name, (head, *frames) in {
        "mono": mono,
        "stereo": frames_of(as_flac(sides.astype(np.int16))),  # whose frames code their channels in several ways
        "eight": frames_of(as_flac(loud.astype(np.int16))),
    }.items():
        files[f"{name}, first"] = [head, frames[0], *frames]
        files[f"{name}, middle"] = [head, *frames[:5], frames[4], *frames[5:]]
        files[f"{name}, ahead"] = [head, *frames[:5], frames[7], *frames[5:]]
        files[f"{name}, joined"] = [head, *frames, head, *frames]
        files[f"{name}, whole"] = [head, *frames]
    facts, _ = probed(put(tmp_path / "files", {name: b"".join(parts) for name, parts in files.items()}))
    for name in files:
        row, what = facts[name], name.partition(", ")[2]
        sample = {"first": "0 follows sample 4096", "middle": "16384 follows", "ahead": "28672 follows", "joined": "0 "}
        if what == "whole":
            assert row["error"] is None, name
        else:
            assert row["error"] == "undecodable" and f"begins at sample {sample[what]}" in row["detail"], name


def as_flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def test_sound_that_looks_like_the_beginning_of_a_frame_is_sound(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).integers(-32768, 32768, 40000, dtype=np.int16)  # no coder can shorten it
    heads = [frame[:6] for frame in frames_of(encode(wave[:, None], AudioForm()))[1:]]
    for number, place in ((2, 3 * 4096 + 99), (4, 3 * 4096 + 1000)):  # frames that have been, and that are to come
        wave[place : place + 3] = np.frombuffer(heads[number], ">i2")
    data = encode(wave[:, None], AudioForm())
    assert data.count(heads[2]) == data.count(heads[4]) == 2
    facts, _ = probed(put(tmp_path / "files", {"noise.flac": data}))
    assert facts["noise.flac"]["error"] is None


@pytest.mark.parametrize(
    ("form", "codec"), [("webm", "libopus"), ("flv", "aac"), ("mpegts", "aac"), ("matroska", "aac")]
)
def test_a_clock_that_leaps_tells_of_missing_sound(form: str, codec: str, tmp_path: Path) -> None:
    live = {"live": "1"} if form in ("webm", "matroska") else {}
    files = {f"{pause}": by_pyav(form, codec, 48000, options=live, leap_s=float(pause)) for pause in ("0", "0.5")}
    facts, _ = probed(put(tmp_path / "files", files))
    assert facts["0"]["error"] is None
    assert facts["0.5"]["error"] == "undecodable" and "no sound from 1." in facts["0.5"]["detail"]


def test_amr_with_pauses_is_heard(tmp_path: Path) -> None:
    dtx = by_pyav("amr", "libopencore_amrnb", 8000, coding={"dtx": "1"})
    frames = dtx[6:]
    assert frames[0] >> 3 & 15 < 8
    nothing = b"\x7c"  # NO_DATA: 20 ms for which nothing was sent
    facts, _ = probed(put(tmp_path / "files", {"dtx.amr": dtx, "pause.amr": dtx + 25 * nothing}))
    assert [row["error"] for row in facts.values()] == [None, None]
    assert facts["pause.amr"]["duration_s"] == pytest.approx(facts["dtx.amr"]["duration_s"] + 0.5, abs=0.03)


def test_what_few_readers_know_is_written_anew(tmp_path: Path) -> None:
    samples = (odd_sounds.wave(RATE)[:, 0] * 32767).astype("<i2")
    plain = wav(samples.tobytes())
    files = {"plain.wav": plain, "tagged.wav": odd_sounds.id3(bytes(100)) + plain}
    settings = ProbeSettings(form=AudioForm("wav"))
    facts, packs = probed(put(tmp_path / "files", files), settings)
    assert {name: row["copied"] for name, row in facts.items()} == {"plain.wav": True, "tagged.wav": False}
    for name in files:
        found, rate = sf.read(io.BytesIO(packs.bytes(f"x/all/{name}")), dtype="int16")
        assert rate == RATE and np.array_equal(found, samples), name


def test_crops_of_what_cannot_seek() -> None:
    data = by_soundfile("WAV", "GSM610", 8000)
    whole, _ = decode_segment(data)
    part, rate = decode_segment(data, 0.5, 0.25)
    assert np.array_equal(part, whole[4000 : 4000 + round(0.25 * rate)])


def test_a_header_without_a_sample_size_is_no_eight_bits(tmp_path: Path) -> None:
    data = wav(bytes(range(256)) * 200)
    at = data.index(b"fmt ")
    short = data[:at] + b"fmt " + struct.pack("<I", 14) + data[at + 8 : at + 22] + data[at + 24 :]
    facts, _ = probed(put(tmp_path / "files", {"short.wav": short}))
    assert facts["short.wav"]["error"] == "undecodable"
    assert "no sample size" in facts["short.wav"]["detail"]


def test_what_follows_much_junk_is_no_tag(tmp_path: Path) -> None:
    sound = odd_sounds.bare_mp3(variable=False)
    facts, _ = probed(put(tmp_path / "files", {"junk.mp3": sound + bytes(3 << 20) + sound}))
    assert facts["junk.mp3"]["error"] == "undecodable" and "some after it" in facts["junk.mp3"]["detail"]


def test_a_voice_file_of_several_blocks_is_heard_without_their_headers(tmp_path: Path) -> None:
    facts, packs = probed(put(tmp_path / "files", {"blocks.voc": by_pyav("voc", "pcm_s16le", RATE)}))
    row = facts["blocks.voc"]
    assert row["error"] is None and row["duration_s"] == pytest.approx(SECONDS, abs=1e-3)
    found = packs.wave("x/all/blocks.voc", 0, SECONDS, RATE)
    expected = odd_sounds.wave(RATE)[: len(found), 0]
    assert np.corrcoef(found, expected)[0, 1] > 0.99
