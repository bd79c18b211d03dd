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


def test_a_clip_that_is_not_there_is_refused_with_the_table_of_all_clips(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(built), "nosuch"]) == 2
    shown = capsys.readouterr().err
    assert "no such clip" in shown and f"{built}/fates.parquet lists all clips" in shown
    assert main(["explain", str(built), "PAGE"]) == 2
    assert "did you mean mine/train/page?" in capsys.readouterr().err


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


def test_a_withheld_clip_is_explained_with_its_evidence(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/leak"]) == 0
    shown = capsys.readouterr().out
    assert "fate: withheld (shares_sound_with_protected), because of mine/test/held" in shown
    assert "same      waveform     mine/test/held" in shown
    assert "group (clips with the same sound): 1 other clips" in shown


def test_the_time_of_the_other_clip_is_that_in_the_clip_that_was_asked_for(built: Path) -> None:
    seen = [
        explain.run(argparse.Namespace(out=str(built), clip=clip)) for clip in ("mine/test/held", "mine/train/leak")
    ]
    offsets = [[m["offset_s"] for m in one["matches"] if m["method"] == "waveform"] for one in seen]
    assert offsets[0] == [-offset for offset in offsets[1]]


def test_the_windows_of_a_long_clip_are_timed(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/long"]) == 0
    assert "sample: mine~train~long@00002, 20.00 to 25.00 s of the clip" in capsys.readouterr().out


def test_an_unknown_clip_is_answered_with_the_nearest(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/lang"]) == 2
    assert "did you mean mine/train/long" in capsys.readouterr().err
