"""The command that finds damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.cli import main


@pytest.mark.parametrize("option", [[], ["--quick"], ["--decode"]])
def test_a_whole_build_has_no_damage(option: list[str], built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(built), *option]) == 0
    assert "no damage found" in capsys.readouterr().out


def test_damage_is_named_and_ends_with_status_1(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    shard = next((out / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[2000] ^= 1
    shard.write_bytes(data)
    assert main(["verify", str(out)]) == 1
    shown = capsys.readouterr().out
    assert "1 damaged file or sample" in shown and f"shards/{shard.name}, sample " in shown


def test_quick_and_decode_exclude_each_other(built: Path) -> None:
    with pytest.raises(SystemExit):
        main(["verify", str(built), "--quick", "--decode"])
