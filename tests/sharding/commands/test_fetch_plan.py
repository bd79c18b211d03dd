"""The plan of what to fetch, and builds of what is not unpacked yet."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sharding.cli import main
from sharding.commands import fetch_plan
from sharding.sources import DATASETS
from sharding.sources.origins import ORIGINS, File, Origin
from tests.sharding.sources.trees import clotho_split


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    assert main(["fetch-plan", *arguments, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found["datasets"]


def test_every_published_dataset_has_an_origin_with_commands_that_a_shell_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = ran(["--to", str(tmp_path / "my data")], capsys)
    assert set(plans) == set(ORIGINS) == set(DATASETS)
    for name, plan in plans.items():
        assert plan["licence"] and plan["publisher"].startswith("https://")
        for command in plan["commands"]:
            assert shlex.split(command)
        assert str(tmp_path / "my data" / name) in shlex.split(plan["commands"][0])
        for file in plan["files"]:
            assert file["md5"] is None or re.fullmatch("[0-9a-f]{32}", file["md5"])
    assert main(["fetch-plan", "tacos"]) == 0
    assert "1,629,958,981 bytes  md5 a1b11ed7a88d6b95109decb577c128fd" in capsys.readouterr().out


def test_what_lies_there_is_compared_with_what_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.md5(b"sound").hexdigest()
    files = [File("whole", "x", 5, digest), File("cut", "x", 5, digest), File("other", "x", None, digest)]
    files += [File("absent", "x"), File("any", "x")]
    monkeypatch.setattr(fetch_plan, "ORIGINS", {"tacos": Origin("https://x", "free", "1 GB", tuple(files))})
    for name, data in {"whole": b"sound", "cut": b"soun", "other": b"nuisance", "any": b"?"}.items():
        (tmp_path / "tacos").mkdir(exist_ok=True)
        (tmp_path / "tacos" / name).write_bytes(data)
    plan = ran(["tacos", "--to", str(tmp_path), "--check"], capsys, status=1)["tacos"]
    states = {file["name"]: file["state"] for file in plan["files"]}
    assert states == {"whole": "whole", "cut": "differs", "other": "differs", "absent": "missing", "any": "there"}
    assert main(["fetch-plan", "esc"]) == 2
    assert "no such published dataset" in capsys.readouterr().err


def test_a_build_of_archives_says_which_commands_unpack_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "clotho"
    clotho_split(root, "development", ["a.wav"])
    for sound in root.rglob("*.wav"):
        sound.unlink()
    (root / "clotho_audio_development.7z").write_bytes(b"7z")
    assert main(["build", "--clotho", str(root), "--out", str(tmp_path / "out"), "--protect", ""]) == 2
    said = capsys.readouterr().err
    assert "no recording of clotho/development can be read" in said
    assert "7z x clotho_audio_development.7z" in said
