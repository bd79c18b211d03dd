"""FLAC whose frames do not add up."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.audio import Source, encode
from sharding.audio.flac import ends_whole
from sharding.audio.form import AudioForm
from sharding.probe.clip import ProbeSettings
from tests.sharding.audio import odd_sounds
from tests.sharding.audio.odd_sounds import by_soundfile, probed, put
from tests.sharding.corpora import RATE


def frames_of(flac: bytes) -> list[bytes]:
    """The bytes before the first frame, and each frame; frames are numbered from 0."""
    places, at = [], flac.index(b"\xff\xf8")
    while at >= 0:
        if flac[at + 4] == len(places):
            places.append(at)
        at = flac.find(b"\xff\xf8", at + 1)
    return [flac[: places[0]], *(flac[begin:end] for begin, end in zip(places, [*places[1:], None], strict=True))]


def as_flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def test_missing_frames_are_damage(tmp_path: Path) -> None:
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


def test_repeated_frames_are_damage(tmp_path: Path) -> None:
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


def test_sound_whose_bytes_look_like_a_frame_header_is_no_damage(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).integers(-32768, 32768, 40000, dtype=np.int16)  # no coder can shorten it
    heads = [frame[:6] for frame in frames_of(encode(wave[:, None], AudioForm()))[1:]]
    for number, place in ((2, 3 * 4096 + 99), (4, 3 * 4096 + 1000)):  # frames that have been, and that are to come
        wave[place : place + 3] = np.frombuffer(heads[number], ">i2")
    data = encode(wave[:, None], AudioForm())
    assert data.count(heads[2]) == data.count(heads[4]) == 2
    facts, _ = probed(put(tmp_path / "files", {"noise.flac": data}))
    assert facts["noise.flac"]["error"] is None


def test_a_long_silence_that_was_cut_is_found_at_once(tmp_path: Path) -> None:
    """Its last frames hold thousands of bytes that look like the beginning of one."""
    file = io.BytesIO()
    sf.write(file, np.zeros(20 * 60 * 32000, np.int16), 32000, format="FLAC")
    files = {"cut.flac": file.getvalue()[:-3], "tagged.flac": odd_sounds.id3(bytes(100)) + file.getvalue()[:-3]}
    settings = ProbeSettings(timeout_s=5.0)
    facts, _ = probed(put(tmp_path / "files", files), settings)
    assert {n: row["error"] for n, row in facts.items()} == dict.fromkeys(files, "truncated")


@pytest.mark.parametrize("lost", [0, 1, 100])
def test_a_file_ends_whole_only_with_its_last_byte(lost: int) -> None:
    data = by_soundfile("FLAC", "PCM_16", RATE)
    cut = data[: len(data) - lost]
    assert ends_whole(Source(cut, len(cut)), 0) == (lost == 0)


def test_a_tag_after_the_last_frame_is_no_part_of_the_recording(tmp_path: Path) -> None:
    whole = by_soundfile("FLAC", "PCM_16", RATE)
    facts, _ = probed(put(tmp_path / "files", {"tagged.flac": whole + b"TAG".ljust(128, b"x")}))
    assert (facts["tagged.flac"]["error"], facts["tagged.flac"]["duration_s"]) == (None, 2.0)
