"""What becomes of every kind of file: sound comes out right, and what is broken says how."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding.audio import decode_segment
from sharding.audio.form import AudioForm
from sharding.common.storage import Storage
from sharding.probe.batch import Prober
from sharding.probe.clip import ProbeSettings
from sharding.schema import CATALOGUE
from tests.sharding.audio.odd_sounds import probed
from tests.sharding.corpora import noise

FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm8.wav": ("WAV", "PCM_U8"),
    "float64.wav": ("WAV", "DOUBLE"),
    "extensible.wav": ("WAVEX", "PCM_24"),
    "rf64.wav": ("RF64", "PCM_16"),
    "sony.w64": ("W64", "PCM_16"),
    "apple.aiff": ("AIFF", "PCM_16"),
    "core.caf": ("CAF", "PCM_16"),
    "free.flac": ("FLAC", "PCM_16"),
    "deep.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}
RATE = 44100


def write(path: Path, form: tuple[str, str], seconds: float = 2.0) -> np.ndarray:
    wave = noise(7, seconds, RATE)
    sf.write(path, wave, RATE, format=form[0], subtype=form[1])
    return wave


def test_every_format_comes_out_at_its_length_and_like_itself(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, form in FORMATS.items():
        write(folder / name, form)
    facts, packs = probed(folder)
    reference = packs.wave("x/all/pcm16.wav", 0.2, 1.5)
    for name in FORMATS:
        assert facts[name]["error"] is None, (name, facts[name]["detail"])
        assert facts[name]["duration_s"] == pytest.approx(2.0, abs=0.06), name
        assert (facts[name]["source_rate"], facts[name]["source_channels"]) == (RATE, 1)
        wave = packs.wave(f"x/all/{name}", 0.2, 1.5)
        lag = int(np.argmax(np.correlate(wave, reference[600:-600], "valid"))) - 600
        assert abs(lag) <= 400, name
    samples, rate = sf.read(io.BytesIO(packs.bytes("x/all/pcm16.wav")), dtype="int16")
    assert (rate, samples.ndim) == (32000, 1)


def test_the_target_form_is_taken_over_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sf.write(folder / "ready.flac", noise(1, 2.0), 32000, subtype="PCM_16")
    facts, packs = probed(folder)
    assert facts["ready.flac"]["copied"]
    assert packs.bytes("x/all/ready.flac") == (folder / "ready.flac").read_bytes()


def test_broken_files_name_their_class(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    write(folder / "whole.flac", ("FLAC", "PCM_16"))
    whole = (folder / "whole.flac").read_bytes()
    (folder / "empty.flac").write_bytes(b"")
    (folder / "page.mp3").write_text("<html><body>429 Too Many Requests</body></html>")
    (folder / "random.wav").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 3])
    sf.write(folder / "silence.wav", np.zeros(32000), 32000)
    sf.write(folder / "click.wav", noise(1, 0.01), 32000)
    sf.write(folder / "lies.wav", noise(2, 1.0), 32000)
    header = bytearray((folder / "lies.wav").read_bytes())
    header[40:44] = (10**6).to_bytes(4, "little")  # bytes of samples; 64,000 are there
    (folder / "lies.wav").write_bytes(header)
    facts, _ = probed(folder)
    told = {name: row["error"] for name, row in facts.items()}
    assert told == {
        "whole.flac": None,
        "empty.flac": "empty",
        "page.mp3": "not_audio",
        "random.wav": "not_audio",
        "cut.flac": "truncated",
        "silence.wav": "silent",
        "click.wav": "too_short",
        "lies.wav": "truncated",
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(FORMATS)), share=st.floats(0.02, 0.97))
def test_a_cut_file_is_never_taken_for_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut") / "files"
    folder.mkdir()
    write(folder / name, FORMATS[name], seconds=1.0)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    facts, _ = probed(folder)
    row = facts[name]
    # an MP3 without a frame count has no length of its own: what is left of it is a shorter recording
    shorter = name == "layer3.mp3" and row["duration_s"] is not None and row["duration_s"] < 0.99
    assert row["error"] is not None or shorter, (name, share, row["detail"])


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


@pytest.mark.parametrize("codec", ["flac", "wav", "opus"])
def test_encoding_is_deterministic(tmp_path: Path, codec: str) -> None:
    rate = 48000 if codec == "opus" else 32000
    contents = []
    for attempt in ("one", "two"):
        folder = tmp_path / attempt / "files"
        folder.mkdir(parents=True)
        write(folder / "a.wav", ("WAV", "PCM_16"))
        _, packs = probed(folder, ProbeSettings(form=AudioForm(codec, rate)))
        contents.append(packs.bytes("x/all/a.wav"))
    assert contents[0] == contents[1]


@given(start=st.floats(0, 1.9), length=st.floats(0.01, 3.0))
@settings(max_examples=30, deadline=None)
def test_a_piece_is_a_piece_of_the_whole(start: float, length: float) -> None:
    file = io.BytesIO()
    sf.write(file, noise(5, 2.0), 32000, format="FLAC", subtype="PCM_16")
    whole, rate = decode_segment(file.getvalue())
    piece, _ = decode_segment(file.getvalue(), start, length)
    first = round(start * rate)
    assert np.array_equal(piece, whole[first : first + len(piece)])
    assert abs(len(piece) - min(length * rate, len(whole) - first)) <= 1


def test_unusual_and_broken_files_of_decoder_suites_get_facts(shared_data: Path) -> None:
    with (shared_data / "audio/odd.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder = shared_data / "audio"
    table = pa.Table.from_pylist(
        [
            dict.fromkeys(CATALOGUE.names) | {"clip_id": f"x/all/{r['path']}", "dataset": "x", "path": r["path"]}
            for r in rows
        ],
        CATALOGUE,
    )
    facts = odd_facts(table, folder)
    assert len(facts) == len(rows)
    neither = [r["path"] for r in rows if r["ffmpeg_decodes"] == "no" and r["libsndfile_decodes"] == "no"]
    assert [path for path in neither if facts[path] is None] == []


def odd_facts(table: pa.Table, folder: Path) -> dict[str, str | None]:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        work = Storage(scratch)
        Prober({"x": str(folder)}, work, ProbeSettings(min_s=0.0))(("000000", table))
        rows = work.read_table("facts/000000.parquet").to_pylist()
    return {row["clip_id"].removeprefix("x/all/"): row["error"] for row in rows}
