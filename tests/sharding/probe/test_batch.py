"""A batch of clips, and what is kept of it."""

from __future__ import annotations

import csv
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile as sf

from sharding.common.storage import Storage
from sharding.probe.batch import Batch, Prober
from sharding.probe.clip import ProbeSettings
from sharding.schema import CATALOGUE
from tests.sharding.audio.odd_sounds import by_soundfile, probed, put
from tests.sharding.corpora import noise


def test_broken_files_name_their_class(tmp_path: Path) -> None:
    whole, lies = by_soundfile("FLAC", "PCM_16"), bytearray(by_soundfile("WAV", "PCM_16"))
    lies[40:44] = (10**6).to_bytes(4, "little")  # bytes of samples; there are fewer
    folder = put(
        tmp_path / "files",
        {
            "whole.flac": whole,
            "empty.flac": b"",
            "page.mp3": b"<html><body>429 Too Many Requests</body></html>",
            "random.wav": np.random.default_rng(0).bytes(20000),
            "cut.flac": whole[: len(whole) // 3],
            "lies.wav": bytes(lies),
        },
    )
    sf.write(folder / "silence.wav", np.zeros(32000), 32000)
    sf.write(folder / "click.wav", noise(1, 0.01), 32000)
    facts, _ = probed(folder)
    assert {name: row["error"] for name, row in facts.items()} == {
        "whole.flac": None,
        "empty.flac": "empty",
        "page.mp3": "not_audio",
        "random.wav": "not_audio",
        "cut.flac": "truncated",
        "silence.wav": "silent",
        "click.wav": "too_short",
        "lies.wav": "truncated",
    }


def test_clips_without_audio_have_facts_and_no_sound(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"good.wav": by_soundfile("WAV", "PCM_16")})
    listed = [("a", "good.wav", None), ("b", None, None), ("c", "good.wav", "out_of_root")]
    rows = [
        dict.fromkeys(CATALOGUE.names) | {"clip_id": clip_id, "dataset": "x", "path": path, "problem": problem}
        for clip_id, path, problem in listed
    ]
    work = Storage(tmp_path / "build")
    probed_ = Prober({"x": Storage(folder)}, work, ProbeSettings())(Batch("0", pa.Table.from_pylist(rows, CATALOGUE)))
    assert (probed_.clips, probed_.seconds) == (3, 2.0)
    assert probed_.failures == {"missing": 1, "out_of_root": 1}
    facts = work.read_table("facts/0.parquet")
    assert facts["error"].to_pylist() == [None, "missing", "out_of_root"]
    assert work.read_table("fingerprints/0.parquet")["clip_id"].to_pylist() == ["a"]


def test_a_prober_that_was_sent_to_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {"a.wav": by_soundfile("WAV", "PCM_16"), "b.mp3": b"no sound"})
    rows = [
        dict.fromkeys(CATALOGUE.names) | {"clip_id": name, "dataset": "x", "path": name} for name in ("a.wav", "b.mp3")
    ]
    table, contents = pa.Table.from_pylist(rows, CATALOGUE), []
    for name in ("one", "two"):
        prober = pickle.loads(pickle.dumps(Prober({"x": Storage(folder)}, Storage(tmp_path / name), ProbeSettings())))
        prober(Batch("0", table))
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("0.*")})
    assert contents[0] == contents[1] and len(contents[0]) == 2


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

    with tempfile.TemporaryDirectory() as scratch:
        work = Storage(scratch)
        Prober({"x": Storage(folder)}, work, ProbeSettings(min_s=0.0))(Batch("000000", table))
        rows = work.read_table("facts/000000.parquet").to_pylist()
    return {row["clip_id"].removeprefix("x/all/"): row["error"] for row in rows}
