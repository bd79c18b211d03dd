"""``build --max-failed``: a build stops at too many unreadable clips, and continues once they are repaired."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.build.failure_limit import FailureLimit
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import outcome


@pytest.mark.parametrize(
    ("text", "failed", "clips", "exceeded"),
    [("3", 3, 10, False), ("3", 4, 10, True), ("2%", 2, 100, False), ("2%", 3, 100, True), ("0.5", 6, 10, True)],
)
def test_a_limit_is_a_number_or_a_share(text: str, failed: int, clips: int, exceeded: bool) -> None:
    assert FailureLimit.parse(text).is_exceeded(failed, clips) == exceeded


@pytest.mark.parametrize("text", ["", "many", "-1", "200%", "1.5", "nan", "inf"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        FailureLimit.parse(text)


def test_a_build_stops_and_goes_on_once_files_are_mended(small: Path, tmp_path: Path) -> None:
    """One file is a web page, and one is not there, which is no failure."""
    out, settings, none = tmp_path / "out", settings_for(small), FailureLimit.parse("0")
    with pytest.raises(InputError, match="1 of 9 clips cannot be read; --max-failed allows 0"):
        build(settings, str(out), LocalRunner(1), max_failed=none)
    assert not (out / "dataset.json").exists()
    shutil.copy(small / "train/a1.flac", small / "train/page.flac")
    result = build(settings, str(out), LocalRunner(1), max_failed=none)
    assert result["reasons"].get("failed/not_audio") is None and result["failed"] == {"missing": ["mine/train/gone"]}
    build(settings, str(tmp_path / "calm"), LocalRunner(1))
    names = {name: data for name, data in outcome(out).items() if name.startswith("shards/")}
    assert names == {name: data for name, data in outcome(tmp_path / "calm").items() if name.startswith("shards/")}


def test_a_build_goes_on_once_more_is_allowed(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small)
    with pytest.raises(InputError, match="--max-failed"):
        build(settings, str(out), LocalRunner(1), max_failed=FailureLimit.parse("5%"))
    assert build(settings, str(out), LocalRunner(1), max_failed=FailureLimit.parse("1"))["samples"]
