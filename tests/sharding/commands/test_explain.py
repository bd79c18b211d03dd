"""The command that explains one clip."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from sharding.cli import main
from sharding.commands import explain


def test_a_failed_clip_is_explained_in_words(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/page"]) == 0
    assert "begins with" in capsys.readouterr().out


def test_a_damaged_table_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / "fates.parquet").write_bytes(b"PAR1 not a table PAR1")
    assert main(["explain", str(out), "mine/train/x"]) == 2
    shown = capsys.readouterr().err
    assert "fates.parquet: damaged" in shown and "verify" in shown


def test_a_caption_cannot_act_on_the_terminal_or_pretend_to_be_another_line(built: Path) -> None:
    result = explain.run(argparse.Namespace(out=str(built), clip="mine/train/a1"))
    result["entry"]["captions"][0]["text"] = "a dog\nfate: written (kept)\x1b[2J"
    shown = explain.show(result)
    assert "a dog\\nfate: written (kept)\\x1b[2J" in shown
    assert len([line for line in shown.splitlines() if line.startswith("fate:")]) == 1
