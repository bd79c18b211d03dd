"""Cutting what is left of a clip out of its windows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile as sf

from sharding.audio import AudioForm
from sharding.common.storage import Storage
from sharding.fates.trimming import WindowPart
from sharding.layout import trimmed_name
from sharding.probe.clip import ProbeSettings
from sharding.probe.packs import PackReader
from sharding.probe.trim import trim_batch
from tests.sharding.audio.odd_sounds import probed, put
from tests.sharding.corpora import RATE, noise


def test_parts_are_cut_and_whole_windows_stay_where_they_are(tmp_path: Path) -> None:
    folder = put(tmp_path / "files", {})
    wave = noise(3, 30.0)
    sf.write(folder / "long.flac", wave, RATE, subtype="PCM_16")
    probed(folder, ProbeSettings(window_s=10.0, hop_s=10.0, tail_s=2.0))
    build = Storage(tmp_path / "files.build")
    facts = build.read_table("facts/000000.parquet")
    left = {"x/all/long.flac": [WindowPart(1, 12.5, 7.5, whole=False), WindowPart(2, 20.0, 10.0, whole=True)]}
    assert trim_batch("cut", facts, left, build, AudioForm()) == 1
    trimmed = build.read_table(trimmed_name("cut"))
    (row,) = trimmed.to_pylist()
    first, second = row["windows"]
    assert (first["window"], first["start_s"], first["duration_s"], first["pack"]) == (0, 12.5, 7.5, "cut.pack")
    assert second == {**facts.to_pylist()[0]["windows"][2], "window": 1}
    packs = PackReader(build, trimmed)
    parts = [sf.read(io.BytesIO(packs.bytes("x/all/long.flac", number)))[0] for number in (0, 1)]
    np.testing.assert_allclose(np.concatenate(parts), wave[round(12.5 * RATE) :], atol=1.1 / 32768)
    again = (tmp_path / "files.build/packs/cut.pack").read_bytes()
    trim_batch("cut", facts, left, build, AudioForm())
    assert (tmp_path / "files.build/packs/cut.pack").read_bytes() == again
