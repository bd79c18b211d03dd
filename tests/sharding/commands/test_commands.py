"""Every command speaks to people (``--help``, clear errors) and to machines (``--json``)."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sharding.cli import COMMANDS, main
from sharding.commands.arguments import absolute, size
from sharding.reports.plots import write_plots
from sharding.reports.stats import source_rates, split_stats
from sharding.shards.manifest import Manifest, dataset_bytes
from tests.conftest import REPOSITORY
from tests.sharding.corpora import RATE, noise, outcome

READERS = [["verify"], ["verify", "--quick"], ["inspect"], ["stats"], ["report"], ["export", "--csv", "CSV"],
           ["reshard", "--out", "NEW", "--shard-size", "1MB"], ["append", "--source", "x=SOURCE"]]  # fmt: skip


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and "--json" in text and len(text) > 200


def arguments(words: list[str], out: Path, folder: Path) -> list[str]:
    verb, *rest = [
        str(folder / word.lower()) if word in ("CSV", "NEW") else word.replace("SOURCE", str(folder)) for word in words
    ]
    return [verb, str(out), *rest]


def half(out: Path) -> None:
    (out / "dataset.json").unlink()


def other_version(out: Path) -> None:
    dataset = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_bytes(dataset_bytes(dataset | {"format": 99}))


def empty(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (half, "no finished build"),
        (other_version, "format 99"),
        (empty, "no finished build"),
        (shutil.rmtree, "no finished build"),
    ],
)
def test_what_is_no_finished_build_is_refused_with_a_remedy(
    spoil: Callable[[Path], None], message: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    spoil(out)
    for words in READERS:
        status = main(arguments(words, out, tmp_path))
        shown = capsys.readouterr()
        if words[0] == "verify" and spoil is other_version:
            assert status == 1 and message in shown.out
            continue
        assert status == 2, words
        assert message in shown.err and "remedy:" in shown.err and "Traceback" not in shown.err


def test_every_command_gives_one_json_object(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)  # a report is written into it
    for words in READERS[:-1]:
        assert main([*arguments(words, out, tmp_path), "--json"]) == 0, words
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_tables_for_people_hold_every_row(built: Path, tmp_path: Path) -> None:
    assert main(["export", str(built), "--csv", str(tmp_path / "csv")]) == 0
    tables = {}
    for path in (tmp_path / "csv").iterdir():
        with path.open(newline="", encoding="utf-8-sig") as file:
            tables[path.stem] = list(csv.DictReader(file))
    assert {name: len(rows) for name, rows in tables.items() if name != "matches"} == {
        "clips": 14, "captions": 14, "fates": 14, "samples": Manifest.open(built).table.num_rows,
    }  # fmt: skip
    leak = next(row for row in tables["clips"] if row["clip_id"] == "mine/train/leak")
    assert (leak["fate"], leak["other"], leak["captions"]) == ("withheld", "mine/test/held", "1")
    long = next(row for row in tables["fates"] if row["clip_id"] == "mine/train/long")
    assert long["keys"].count(" | ") == 2


def stats_of(out: Path) -> dict[str, dict[str, Any]]:
    manifest = Manifest.open(out)
    return split_stats(manifest, source_rates(manifest))


def test_figures_count_clips_whole_and_their_picture_is_drawn(built: Path, tmp_path: Path) -> None:
    found = stats_of(built)
    train = found["mine/train"]
    assert (train["clips"], train["samples"], train["longest_s"]) == (9, 11, 25.0)
    assert train["source_rates"] == {"32000": 9} and train["captions"] == {"human": 10}
    bare = tmp_path / "bare"
    shutil.copytree(built, bare, ignore=shutil.ignore_patterns(".build"))
    assert stats_of(bare) == found
    assert main(["stats", str(built), "--plot", str(tmp_path / "deep/plot.png")]) == 0
    assert (tmp_path / "deep/plot.png").read_bytes().startswith(b"\x89PNG")
    assert main(["stats", str(built), "--plot", str(tmp_path / "plot.xyz")]) == 2
    write_plots({}, tmp_path / "nothing.png")  # of a build that wrote nothing
    assert (tmp_path / "nothing.png").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1e9", 10**9),
        ("500MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("64k", 64000),
        ("64KB", 64000),
        ("1", 1),
        ("1.5M", 1500000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert size(text) == count


def test_the_program_ends_with_its_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sharding", "stats", str(tmp_path)]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "no finished build" in found.stderr and found.stdout == ""


def test_a_catalogue_is_not_written_over_a_build(built: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (built / "catalogue/mine.parquet").read_bytes()
    assert main(["catalogue", "--source", f"mine={corpus}", "--out", str(built)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (built / "catalogue/mine.parquet").read_bytes() == before


def test_a_damaged_table_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / "fates.parquet").write_bytes(b"PAR1 not a table PAR1")
    assert main(["explain", str(out), "mine/train/x"]) == 2
    shown = capsys.readouterr().err
    assert "fates.parquet: damaged" in shown and "verify" in shown


def test_a_damaged_sample_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    row = Manifest.open(out).table.slice(0, 1).to_pylist()[0]
    with (out / "shards" / row["shard"]).open("r+b") as file:
        file.seek(row["json_offset"])
        file.write(b"\xff")
    assert main(["inspect", str(out), row["key"]]) == 2
    shown = capsys.readouterr().err
    assert row["key"] in shown and row["shard"] in shown and "verify" in shown


def test_a_failed_clip_is_explained_in_words(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/page"]) == 0
    assert "begins with" in capsys.readouterr().out


def test_what_cannot_be_compared_is_not_called_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, wave in (("short", noise(0, 0.1)), ("still", np.zeros(RATE)), ("sound", noise(1, 1.0))):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
    for name, told in (("short", "too_short"), ("still", "silent"), ("absent", "No such file")):
        assert main(["matches", "--pairs", str(tmp_path / "sound.wav"), str(tmp_path / f"{name}.wav")]) == 2
        shown = capsys.readouterr().err
        assert told in shown and f"{name}.wav" in shown
    assert main(["matches", "--pairs", *2 * [str(tmp_path / "sound.wav")]]) == 0


@pytest.mark.parametrize("file", ["settings.json", "catalogue.json"])
def test_a_damaged_work_folder_is_named(
    file: str, corpus: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / f".build/{file}").write_bytes(b"{")
    assert main(["append", str(out), "--source", f"more={corpus}"]) == 2
    assert f".build/{file}: damaged" in capsys.readouterr().err


def test_figures_do_without_the_facts(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / ".build/settled.parquet").unlink(missing_ok=True)
    shutil.rmtree(out / ".build/facts")
    assert stats_of(out) == stats_of(built)


def test_a_damaged_overview_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    (out / "overview.json").write_bytes(b"{")
    for verb in ("inspect", "report"):
        assert main([verb, str(out)]) == 2
        assert "overview.json: damaged" in capsys.readouterr().err


def test_a_split_that_ones_own_source_lacks_is_not_protected_in_silence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--source", f"mine={corpus}", "--out", str(tmp_path / "out"), "--protect"]
    assert main([*words, "mine/tset"]) == 2
    assert "mine has no such split to protect (found 'mine/tset')" in capsys.readouterr().err


def test_addresses_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert absolute("s3://bucket/folder/") == "s3://bucket/folder"
    monkeypatch.chdir(tmp_path)
    assert absolute("folder/") == str(tmp_path / "folder")
    for words in (["export", "out", "--csv", "s3://bucket/csv"], ["stats", "out", "--plot", "s3://bucket/a.png"]):
        with pytest.raises(SystemExit):
            main(words)
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_is_asked_to_end_leaves_nothing_behind(corpus: Path, tmp_path: Path) -> None:
    scratch, out = tmp_path / "tmp", tmp_path / "out"
    scratch.mkdir()
    command = [sys.executable, "-m", "sharding", "build", "--source", f"mine={corpus}", "--protect", "mine/test"]
    command += ["--workers", "2", "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True
    )
    while not any(scratch.glob("earshot-*")):  # workers are told what to do by a file there
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "run the same command again" in said
    assert not list(scratch.iterdir())
    for place in (out, tmp_path / "fresh"):
        assert subprocess.run([*command[:-1], str(place)], cwd=REPOSITORY, capture_output=True).returncode == 0
    assert outcome(out) == outcome(tmp_path / "fresh")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_while_it_begins_says_no_more(number: signal.Signals) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sharding", "build", "--help"]  # each import is a line
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while process.stderr.readline().rpartition("|")[2].strip() != "numpy":
            assert process.poll() is None
        process.send_signal(number)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 128 + number
