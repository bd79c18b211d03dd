"""Whole builds with ``--leaks trim``."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr

from sharding.audio import AudioForm
from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.dedup.comparing import compare_waves
from sharding.dedup.spans import MARGIN_S
from sharding.reports.report import write_report
from sharding.settings import BuildSettings
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from sharding.sources.protected import parse_protect
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, outcome, tree

HELD = noise(200, 4.0)
LONG = np.concatenate([noise(1, 12.0), 0.7 * HELD, noise(2, 8.0), -0.4 * HELD, noise(3, 6.0)])  # from 12 and 24 s


def write_leaks(folder: Path) -> Path:
    """``train/long`` holds ``test/held`` twice, ``train/short`` has no room outside it."""
    sounds = {"train/a0": noise(5, 3.0), "train/long": LONG, "train/short": np.concatenate([HELD, noise(4, 4.0)])}
    sounds["test/held"] = HELD
    with _table(folder) as rows:
        for name, wave in sounds.items():
            _write(folder / f"{name}.flac", wave)
            rows.append((f"{name}.flac", name.split("/")[0], f"noise that is called {name}"))
    return folder


class _table:
    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[tuple[str, str, str]]()

    def __enter__(self) -> list[tuple[str, str, str]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.rows

    def __exit__(self, *_: object) -> None:
        with (self.folder / "clips.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "split", "captions"), *self.rows])


def _write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave, RATE, subtype="PCM_16")


def trimming(folder: Path, leaks: str = "trim") -> BuildSettings:
    plain = settings_for(folder)
    return dataclasses.replace(plain, fates=dataclasses.replace(plain.fates, leaks=leaks))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_leaks(tmp_path_factory.mktemp("leaking") / "mine")


@pytest.fixture(scope="module")
def trimmed(leaking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trimmed") / "out"
    build(trimming(leaking), str(out), LocalRunner(1))
    return out


def fates(out: Path) -> dict[str, tuple[str, str, str | None]]:
    rows = Storage(out).read_table("fates.parquet").to_pylist()
    return {row["clip_id"].removeprefix("mine/"): (row["fate"], row["reason"], row["other"]) for row in rows}


def samples(out: Path, clip_id: str) -> list[tuple[dict[str, Any], np.ndarray, dict[str, Any]]]:
    """(manifest row, sound, JSON) of each sample of a clip."""
    manifest = Manifest.open(out)
    found = []
    for row in manifest.table.to_pylist():
        if row["clip_id"] == clip_id:
            shard = f"shards/{row['shard']}"
            sound = manifest.storage.read(shard, row["audio_offset"], row["audio_bytes"])
            text = manifest.storage.read(shard, row["json_offset"], row["json_bytes"])
            found.append((row, sf.read(io.BytesIO(sound), dtype="float32")[0], json.loads(text)))
    return found


def test_a_clip_is_written_without_the_protected_sound_that_it_holds(trimmed: Path) -> None:
    found_fates = fates(trimmed)
    assert found_fates["train/long"] == ("written", "trimmed", "mine/test/held")
    assert found_fates["train/short"] == ("withheld", "shares_sound_with_protected", "mine/test/held")
    assert found_fates["train/a0"][1] == "kept"
    found = samples(trimmed, "mine/train/long")
    assert [(row["window"], row["start_s"], row["windows"]) for row, _, _ in found] == [(0, 0.0, 2), (1, 10.0, 2)]
    assert found[-1][0]["start_s"] + found[-1][0]["duration_s"] == pytest.approx(12.0 - MARGIN_S, abs=0.03)
    for row, sound, about in found:
        first = round(row["start_s"] * RATE)
        np.testing.assert_allclose(sound, LONG[first : first + len(sound)], atol=1e-4)
        assert len(sound) == round(row["duration_s"] * RATE)
        assert about["trimmed"]["for"] == "mine/test/held"
        assert about["trimmed"]["end_s"] == pytest.approx(11.0, abs=0.03)
        assert about["source"]["duration_s"] == 34.0
    assert "trimmed" not in samples(trimmed, "mine/train/a0")[0][2]
    assert verify(str(trimmed), "decode", LocalRunner(1)) == []


def test_what_is_written_no_longer_matches_the_protected_clip(trimmed: Path) -> None:
    (_, held, _) = samples(trimmed, "mine/test/held")[0]
    written = np.concatenate([sound for _, sound, _ in samples(trimmed, "mine/train/long")])
    a, b = (soxr.resample(wave, RATE, 8000) for wave in (written, held))
    assert "same" not in compare_waves(a, b)["outcome"].to_pylist()
    whole = soxr.resample(LONG, RATE, 8000)
    assert "same" in compare_waves(whole, b)["outcome"].to_pylist()


def test_every_occurrence_of_a_protected_clip_has_its_row(trimmed: Path) -> None:
    rows = Storage(trimmed).read_table("matches.parquet").to_pylist()
    offsets = [-row["offset_s"] for row in rows if row["b"] == "mine/train/long" and row["method"] == "waveform"]
    assert sorted(offsets) == pytest.approx([12.0, 24.0], abs=0.02)


def test_explain_and_the_report_describe_trimmed_clips(
    trimmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(trimmed), "mine/train/long"]) == 0
    story = capsys.readouterr().out
    assert "fate: written (trimmed)" in story and "mine/test/held" in story
    assert "10.00 to 11.0" in story
    out = tmp_path / "out"
    shutil.copytree(trimmed, out)
    page = Path(write_report(out)).read_text()
    assert "trimmed" in page and "mine/train/long" in page


def test_more_workers_and_a_second_run_change_nothing(trimmed: Path, leaking: Path, tmp_path: Path) -> None:
    build(trimming(leaking), str(tmp_path / "out"), LocalRunner(2))
    assert tree(tmp_path / "out") == tree(trimmed)
    build(trimming(leaking), str(tmp_path / "out"), LocalRunner(1))
    assert tree(tmp_path / "out") == tree(trimmed)


def test_another_treatment_of_leaks_is_a_new_plan_without_decoding(
    trimmed: Path, leaking: Path, tmp_path: Path, probed: list[str]
) -> None:
    mine, out, plain = tmp_path / "mine", tmp_path / "out", tmp_path / "plain"
    shutil.copytree(leaking, mine)
    for folder, leaks in ((plain, "withhold"), (out, "trim")):
        build(trimming(mine, leaks), str(folder), LocalRunner(1))
    assert outcome(out) == outcome(trimmed)
    assert fates(plain)["train/long"][0] == "withheld"
    assert "leaks" not in Manifest.open(plain).dataset["settings"]["fates"]
    with pytest.raises(InputError, match="leaks"):
        build(trimming(mine, "withhold"), str(out), LocalRunner(1))
    expected = outcome(out), outcome(plain)
    probed.clear()
    build(trimming(mine, "withhold"), str(out), LocalRunner(1), new_plan=True)
    build(trimming(mine), str(plain), LocalRunner(1), new_plan=True)
    assert (outcome(plain), outcome(out)) == expected and not probed
    assert verify(str(plain), "decode", LocalRunner(1)) == []


def test_a_trimmed_build_is_resharded_and_grows(trimmed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reshard(str(trimmed), str(out), 10**7, LocalRunner(1))
    assert verify(str(out), "decode", LocalRunner(1)) == []
    more = tmp_path / "more"
    with _table(more) as rows:
        _write(more / "train/again.flac", np.concatenate([noise(7, 9.0), 0.5 * HELD]))
        _write(more / "train/piece.flac", 0.5 * LONG[25 * RATE : 27 * RATE])
        rows += [("train/again.flac", "train", "noise"), ("train/piece.flac", "train", "more noise")]
    result = append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    found_fates = fates(out)
    assert found_fates["more/train/again"] == ("written", "trimmed", "mine/test/held")
    assert found_fates["more/train/piece"][0] == "withheld"  # found in sound that is in no shard
    assert result["leaks"] == 0
    (row, _, _) = samples(out, "more/train/again")[0]
    assert row["duration_s"] == pytest.approx(9.0 - MARGIN_S, abs=0.03)
    assert verify(str(out), "decode", LocalRunner(1)) == []


def test_a_clip_that_was_written_whole_is_trimmed_once_the_protected_one_can_be_read(
    trimmed: Path, leaking: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(leaking, mine)
    held = mine / "test/held.flac"
    sound = held.read_bytes()
    held.write_bytes(b"<html>429</html>")
    build(trimming(mine), str(out), LocalRunner(1), allow_unprotected=True)
    assert fates(out)["train/long"][1] == "kept"
    held.write_bytes(sound)
    build(trimming(mine), str(out), LocalRunner(1), retry="not_audio")
    assert outcome(out) == outcome(trimmed)
    assert verify(str(out), "decode", LocalRunner(1)) == []


def test_append_names_old_training_clips_that_share_sound_with_new_protected_clips(
    leaking: Path, tmp_path: Path
) -> None:
    plain, out, more = trimming(leaking), str(tmp_path / "out"), tmp_path / "more"
    rule = dataclasses.replace(plain.fates, protect=parse_protect("mine/test,more/test"))
    build(dataclasses.replace(plain, fates=rule), out, LocalRunner(1))
    with _table(more) as rows:
        _write(more / "test/new.flac", LONG[2 * RATE : 6 * RATE])  # of what is left of train/long
        rows.append(("test/new.flac", "test", "noise"))
    result = append(out, {}, {"more": str(more)}, LocalRunner(1))
    assert result["leaks"] == 1
    assert [row["clip_id"] for row in result["examples"]] == ["mine/train/long"]


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_trimmed_build_killed_at_any_step_ends_in_the_same_bytes(
    trimmed: Path, leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"steps": 0}
    original = Storage.write_table

    def step(*args: Any) -> None:
        left["steps"] -= 1
        if left["steps"] == 0:
            raise Killed
        original(*args)

    monkeypatch.setattr(Storage, "write_table", step)
    for death in itertools.count(1):
        left["steps"] = death
        out = tmp_path / f"out{death}"
        try:
            build(trimming(leaking), str(out), LocalRunner(1))
        except Killed:
            build(trimming(leaking), str(out), LocalRunner(1))
            assert tree(out) == tree(trimmed), death
        else:
            break
    assert death > 5


@pytest.mark.parametrize("form", [AudioForm("original"), AudioForm("opus", 24000, 2), AudioForm("wav", 16000)])
def test_every_form_of_sound_can_be_cut(form: AudioForm, leaking: Path, tmp_path: Path) -> None:
    plain = trimming(leaking)
    probe = dataclasses.replace(plain.probe, form=form, window_s=60.0, hop_s=60.0)
    build(dataclasses.replace(plain, probe=probe), str(tmp_path / "out"), LocalRunner(1))
    manifest = Manifest.open(tmp_path / "out")
    row = next(row for row in manifest.table.to_pylist() if row["clip_id"] == "mine/train/long")
    assert row["duration_s"] == pytest.approx(11.0, abs=0.03)
    assert row["audio"].endswith(form.window_codec) and row["rate"] == form.rate
    assert verify(str(tmp_path / "out"), "decode", LocalRunner(1)) == []
