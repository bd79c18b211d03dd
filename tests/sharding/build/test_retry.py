"""``build --retry CLASS``: ends in what a fresh build over the mended input would be, and decodes nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.integrity import verify
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, outcome, tree


@pytest.fixture
def mine(corpus: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shutil.copytree(corpus, folder)
    return folder


def mend(corpus: Path) -> None:
    """The web page becomes a sound, and the missing file appears: with the sound of a clip that was written."""
    sf.write(corpus / "train/page.flac", noise(300, 3.0), RATE, subtype="PCM_16")
    sf.write(corpus / "train/gone.flac", noise(200, 4.0)[: 3 * RATE] * 0.6, RATE, subtype="PCM_16")


def fresh_build(corpus: Path, out: Path) -> dict[str, bytes]:
    build(settings_for(corpus), str(out), LocalRunner(1))
    return outcome(out)


def test_only_the_clips_of_the_class_are_read_again(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(settings_for(mine), str(out), LocalRunner(1))
    mend(mine)
    expected = fresh_build(mine, tmp_path / "fresh")
    for path in mine.rglob("*.flac"):
        if path.name not in ("page.flac", "gone.flac"):
            path.write_bytes(b"whoever reads this fails")
    result = build(settings_for(mine), str(out), LocalRunner(1), retry="not_audio")
    assert result["reasons"]["failed/missing"] == 1
    assert "failed/not_audio" not in result["reasons"]
    assert verify(str(out), "decode", LocalRunner(1)) == []
    build(settings_for(mine), str(out), LocalRunner(1), retry="missing")
    assert outcome(out) == expected
    fates = {row["clip_id"]: row["fate"] for row in Storage(out).read_table("fates.parquet").to_pylist()}
    assert (fates["mine/train/page"], fates["mine/train/gone"]) == ("written", "withheld")


def test_a_class_that_no_clip_has_changes_nothing_and_says_so(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build(settings_for(mine), str(out), LocalRunner(1))
    before = tree(out)
    build(settings_for(mine), str(out), LocalRunner(1), retry="silent")
    assert "missing (1), not_audio (1)" in capsys.readouterr().err
    assert tree(out) == before


def test_what_still_fails_ends_in_the_same_build(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(settings_for(mine), str(out), LocalRunner(1))
    before = outcome(out)
    build(settings_for(mine), str(out), LocalRunner(1), retry="missing")
    assert outcome(out) == before


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_retry_killed_at_any_step_goes_on(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, built = tmp_path / "out", tmp_path / "built"
    build(settings_for(mine), str(built), LocalRunner(1))
    mend(mine)
    shutil.copytree(built, tmp_path / "undisturbed")
    build(settings_for(mine), str(tmp_path / "undisturbed"), LocalRunner(1), retry="missing")
    expected = tree(tmp_path / "undisturbed")
    steps = {"left": 0}

    def counted(name: str) -> Any:
        original = getattr(Storage, name)

        def step(*args: Any) -> Any:
            steps["left"] -= 1
            if steps["left"] == 0:
                raise Killed
            return original(*args)

        return step

    for name in ("write", "move", "remove", "remove_tree"):
        monkeypatch.setattr(Storage, name, counted(name))
    for death in range(1, 60):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(built, out)
        steps["left"] = death
        try:
            build(settings_for(mine), str(out), LocalRunner(1), retry="missing")
        except Killed:
            build(settings_for(mine), str(out), LocalRunner(1), retry="missing")
        assert tree(out) == expected, death
