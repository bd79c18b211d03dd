"""The command that appends."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.cli import main


@pytest.mark.parametrize("file", ["settings.json", "catalogue.json"])
def test_a_damaged_work_folder_is_named(
    file: str, corpus: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / f".build/{file}").write_bytes(b"{")
    assert main(["append", str(out), "--source", f"more={corpus}"]) == 2
    assert f".build/{file}: damaged" in capsys.readouterr().err
