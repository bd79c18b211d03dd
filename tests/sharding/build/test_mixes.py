"""Builds of recordings and of mixes that were made from them."""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.commands import explain
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.reports.report import write_report
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise

HELD = noise(200, 4.0)
LONG = np.concatenate([noise(1, 12.0), 0.7 * HELD, noise(3, 6.0)])


def with_whistle(wave: np.ndarray, at_s: float) -> np.ndarray:
    """The wave and a second of whistling at 6 kHz."""
    mix = wave.copy()
    start = round(at_s * RATE)
    mix[start : start + RATE] += 0.1 * np.sin(2 * np.pi * 6000 * np.arange(RATE) / RATE).astype(np.float32)
    return mix


@pytest.fixture(scope="module")
def mixes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build, with leaks trimmed, of a recording, its copy and a mix of it, and of two that hold protected sound."""
    folder = tmp_path_factory.mktemp("mixes")
    sounds = {"train/plain": noise(7, 5.0), "train/long": LONG, "test/held": HELD}
    sounds["train/copy"] = 0.5 * sounds["train/plain"]
    sounds["train/mix"] = with_whistle(sounds["train/plain"], 2.0)
    sounds["train/long mix"] = with_whistle(LONG, 4.0)
    sounds["train/long copy"] = 0.6 * LONG
    for name, wave in sounds.items():
        path = folder / f"in/{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, wave, RATE, subtype="PCM_16")
    with (folder / "in/clips.csv").open("w", newline="") as file:
        told = [(f"{name}.flac", name.split("/")[0], f"noise called {name}") for name in sounds]
        csv.writer(file).writerows([("path", "split", "captions"), *told])
    plain = settings_for(folder / "in")
    build(
        dataclasses.replace(plain, fates=dataclasses.replace(plain.fates, leaks="trim")),
        str(folder / "out"),
        LocalRunner(1),
    )
    return folder / "out"


def test_mixes_are_written_beside_their_recordings_and_copies_are_not(mixes: Path) -> None:
    rows = Storage(mixes).read_table("fates.parquet").to_pylist()
    found = {row["clip_id"].removeprefix("mine/train/"): row for row in rows}
    assert {name: (row["fate"], row["reason"]) for name, row in found.items() if "held" not in name} == {
        "plain": ("duplicate", "same_interval"),  # of its copy, whose name is the smaller one
        "copy": ("written", "kept"),
        "mix": ("written", "kept"),
        "long": ("written", "trimmed"),
        "long copy": ("duplicate", "same_interval"),
        "long mix": ("written", "trimmed"),
    }
    assert found["mix"]["kin"] == found["plain"]["kin"] == found["copy"]["kin"]


@pytest.mark.parametrize(("mix", "start_s"), [("mine/train/mix", 2), ("mine/train/long mix", 4)])
def test_where_a_mix_holds_more_is_told(mixes: Path, mix: str, start_s: float) -> None:
    result = explain.run(argparse.Namespace(out=str(mixes), clip=mix))
    differences = [row["difference"] for row in result["matches"] if row["difference"]]
    assert len(differences) == 2
    for difference in differences:
        assert difference["clip_id"] == mix
        assert difference["start_s"] == pytest.approx(start_s, abs=0.15)
        assert difference["duration_s"] == pytest.approx(1, abs=0.2)
        assert difference["low_hz"] < 6000 < difference["high_hz"]
    told = [line for line in explain.show(result).splitlines() if line.startswith(f"    {mix} holds sound at")]
    assert len(told) == 2


def test_the_report_shows_where_they_differ(mixes: Path) -> None:
    write_report(mixes)
    assert "mine/train/mix holds sound at" in (mixes / "report/index.html").read_text()
