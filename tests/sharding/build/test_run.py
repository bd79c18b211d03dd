from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.schema import parse_key
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from sharding.shards.plan import PlanSettings
from tests.conftest import REPOSITORY
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree


def fates(out: Path) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in Storage(out).read_table("fates.parquet").to_pylist()}


def test_every_clip_ends_in_one_fate(built: Path) -> None:
    rows = fates(built)
    assert len(rows) == 14
    found = {clip.removeprefix("mine/"): (row["fate"], row["reason"], row["other"]) for clip, row in rows.items()}
    assert found["train/copy"] == ("duplicate", "same_interval", "mine/train/a0")
    assert found["train/leak"] == ("withheld", "shares_sound_with_protected", "mine/test/held")
    assert found["test/held"][0] == "written"
    assert found["train/page"][:2] == ("failed", "not_audio")
    assert found["train/gone"][:2] == ("failed", "missing")
    assert all(found[f"train/a{n}"][0] == "written" for n in range(8))
    assert len(rows["mine/train/long"]["keys"]) == 3  # 10 s, 10 s and 5 s


def test_shards_are_read_by_tarfile_and_by_webdataset(built: Path) -> None:
    import webdataset as wds

    manifest = Manifest.open(built)
    shards = [built / "shards" / shard["name"] for shard in manifest.dataset["shards"]]
    assert len(shards) > 2
    names = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            names += [member.name for member in archive]
    rows = manifest.table.to_pylist()
    assert names == [name for row in rows for name in (row["audio"], f"{row['key']}.json")]
    read = list(wds.WebDataset([str(shard) for shard in shards], shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == [row["key"] for row in rows]
    for sample, row in zip(read, rows, strict=True):
        assert parse_key(sample["__key__"]) == (row["clip_id"], row["window"])
        assert json.loads(sample["json"])["clip_id"] == row["clip_id"]
        wave, rate = sf.read(io.BytesIO(sample["flac"]))
        assert (rate, round(len(wave) / rate, 6)) == (32000, round(row["duration_s"], 6))


def test_two_workers_write_the_same_bytes_as_one(built: Path, corpus: Path, tmp_path: Path) -> None:
    build(settings_for(corpus), str(tmp_path / "out"), LocalRunner(2))
    assert tree(tmp_path / "out") == tree(built)


def test_a_finished_build_is_left_alone(built: Path, corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file() and path.name != "lock"}
    build(settings_for(corpus), str(built), LocalRunner(1))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_other_settings_are_refused_with_the_difference(built: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    other = dataclasses.replace(settings_for(corpus), plan=PlanSettings(shard_bytes=10**6))
    with pytest.raises(InputError, match=r"plan\.shard_bytes: 400000 there, 1000000 now"):
        build(other, str(out), LocalRunner(1))
    assert tree(out) == tree(built)
    build(other, str(out), LocalRunner(1), new_plan=True)
    assert len(Manifest.open(out).dataset["shards"]) < len(Manifest.open(built).dataset["shards"])


def test_a_folder_of_other_files_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no build wrote"):
        build(settings_for(corpus), str(tmp_path), LocalRunner(1))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_refused_build_leaves_no_folder(tmp_path: Path) -> None:
    gone = BuildSettings(sources={"mine": str(tmp_path / "gone")})
    for out in (tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError):
            build(gone, str(out), LocalRunner(1))
    assert [each.name for each in tmp_path.rglob("*")] == ["empty"]


def test_nothing_to_build_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clotho"):
        build(BuildSettings(), str(tmp_path / "out"), LocalRunner(1))


COMMAND = [
    *(sys.executable, "-m", "sharding", "build", "--protect", "mine/test", "--window-s", "10"),
    *("--shard-size", "4e5"),
]


def command_settings(corpus: Path) -> BuildSettings:
    """The settings of COMMAND."""
    settings = settings_for(corpus)
    return dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, tail_s=10.0))


def start(corpus: Path | str, out: Path | str, *more: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "--source", f"mine={corpus}", "--out", str(out), *more]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def test_a_second_builder_is_refused(corpus: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    with (out / ".build/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = start(corpus, out)
        _, message = second.communicate(timeout=120)
    assert second.returncode == 2
    assert b"another build is at work" in message


def killed_then_resumed(corpus: Path, out: Path, pauses: list[float]) -> None:
    for pause in pauses:
        process = start(corpus, out, "--workers", "2")
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "dataset.json").exists() or Manifest.open(out)
    process = start(corpus, out, "--workers", "2")
    _, message = process.communicate(timeout=240)
    assert process.returncode == 0, message.decode()


def reference(corpus: Path, out: Path) -> dict[str, bytes]:
    process = start(corpus, out)
    _, message = process.communicate(timeout=240)
    assert process.returncode == 0, message.decode()
    return tree(out)


@pytest.mark.slow
def test_a_build_killed_at_random_moments_ends_in_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    expected = reference(corpus, tmp_path / "undisturbed")
    lasts = time.monotonic() - begun
    rng = random.Random()
    for round_ in range(6):
        out = tmp_path / f"out{round_}"
        killed_then_resumed(corpus, out, [rng.uniform(0.3, lasts) for _ in range(3)])
        assert tree(out) == expected
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_full_disk_is_a_clear_stop_and_the_build_goes_on(corpus: Path, tmp_path: Path) -> None:
    expected = reference(corpus, tmp_path / "undisturbed")
    out = tmp_path / "out"
    limited = f"ulimit -f 300; exec {' '.join(COMMAND)} --source mine={corpus} --out {out}"
    stopped = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limited}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert stopped.returncode == 2, stopped.stderr
    assert "no space left" in stopped.stderr
    assert not (out / "dataset.json").exists()
    assert reference(corpus, out) == expected


def test_builds_from_and_into_an_object_store(s3: str, built: Path, corpus: Path, tmp_path: Path) -> None:
    source = Storage(f"{s3}/corpus-{tmp_path.name}")
    for name, data in tree(corpus).items():
        source.write(name, data)
    out = Storage(f"{s3}/out-{tmp_path.name}")
    process = start(source.url, out.url)
    _, message = process.communicate(timeout=240)
    assert process.returncode == 0, message.decode()
    there = {name: out.read(name) for name in out.list() if not name.startswith(".build/")}
    local = tmp_path / "local"
    build(command_settings(corpus), str(local), LocalRunner(1))
    assert there == {name: data for name, data in tree(local).items() if not name.startswith(".build/")}
    assert Manifest.open(out.url).table.num_rows == Manifest.open(local).table.num_rows
    assert not out.exists(".build/lock")


def test_the_commands_speak_to_people_and_machines(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(built), "mine/train/a1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["clip_id"] == "mine/train/a1"
    assert main(["inspect", str(built)]) == 0
    assert "samples" in capsys.readouterr().out
    assert main(["stats", str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["mine/test"]["clips"] == 1
    assert main(["inspect", str(built), "mine/train/a11"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["explain", str(built), "mine/train/leak"]) == 0
    assert "mine/test/held" in capsys.readouterr().out
    assert main(["stats", str(built.parent)]) == 2
    assert "this is not the folder of a build" in capsys.readouterr().err
