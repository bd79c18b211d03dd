"""The command that writes the HTML report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.cli import main


def test_report_prints_the_path_of_its_page(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out}/report/index.html\n"
    assert (out / "report/index.html").read_text().startswith("<!DOCTYPE html>")
