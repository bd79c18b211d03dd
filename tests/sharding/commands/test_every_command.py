"""Every command speaks to people (``--help``, clear errors) and to machines (``--json``)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sharding.checks import checksummed_bytes
from sharding.cli import COMMANDS, main
from tests.conftest import REPOSITORY

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
    (out / "dataset.json").write_bytes(checksummed_bytes(dataset | {"format": 99}))


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


@pytest.mark.parametrize("verb", ["verify", "stats"])
def test_a_folder_that_is_not_there_is_called_so(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, str(tmp_path / "nosuch")]) == 2
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'nosuch'}: " in shown and "there is no such folder" in shown and "remedy:" in shown


@pytest.mark.parametrize("verb", ["report", "verify", "stats"])
def test_a_folder_of_sounds_is_no_build_and_can_become_one(
    verb: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(small)]) == 2
    shown = capsys.readouterr().err
    assert "this is not the folder of a build" in shown and "earshot build --source mine=FOLDER --out OUT" in shown


@pytest.mark.parametrize(("begun", "command"), [("settings.json", "build"), ("reshard.json", "reshard")])
def test_a_build_that_is_not_finished_continues(
    begun: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".build").mkdir()
    (tmp_path / ".build" / begun).write_text("{}")
    assert main(["report", str(tmp_path)]) == 2
    assert f"run `earshot {command}` to its end" in capsys.readouterr().err


def test_every_command_gives_one_json_object(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)  # a report is written into it
    for words in READERS[:-1]:
        assert main([*arguments(words, out, tmp_path), "--json"]) == 0, words
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_the_program_ends_with_its_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sharding", "stats", str(tmp_path)]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "no finished build" in found.stderr and found.stdout == ""
