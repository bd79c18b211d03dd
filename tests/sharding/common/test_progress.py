from __future__ import annotations

import re
import time as clocks

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common import progress
from sharding.common.progress import Progress, clock, pace


class Clock:
    """A monotonic clock that tests set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_lines_come_now_and_then_and_one_at_the_end(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("probe", 100, "clips")
    for _ in range(99):
        time.now += 0.125
        shown.add(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6  # in twelve seconds
    assert lines[0] == "  probe: 16/100 clips, 8.0/s, 0:10 left"
    time.now += 0.125
    shown.add(1, {"silent": 1})
    shown.finish()
    assert capsys.readouterr().err == "  probe: 100/100 clips, 8.0/s, in 0:12, 1 failed\n"


@pytest.mark.parametrize(
    ("total", "done", "line"), [(14, 0, "0/14 clips"), (14, 3, "3/14 clips"), (None, 0, "0 clips")]
)
def test_work_says_once_that_it_began_where_its_first_units_take_long(
    total: int | None, done: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENT_S", 0.02)
    seen: list[int] = []
    shown = Progress("probe", total, "clips", lambda now: seen.append(now.done), done=done)
    clocks.sleep(0.2)
    assert capsys.readouterr().err == f"  probe: {line}, started 0.02 s ago\n"
    assert seen == [done]  # nothing was done, and no metric changed
    shown.finish()


@pytest.mark.parametrize("end", ["finished", "quiet", "failed", "another line"])
def test_work_that_ended_or_was_shown_does_not_say_that_it_began(
    end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENT_S", 0.02)
    shown: Progress | None = Progress("probe", 14, "clips", quiet=end == "quiet", every_s=0.0)
    assert shown is not None
    if end == "finished":
        shown.finish()
    elif end == "another line":
        shown.add(1)
    elif end == "failed":
        shown = None  # as where an error leaves the loop over the work
    capsys.readouterr()
    clocks.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_work_that_goes_on_counts_everything_but_the_rate(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("probe", 1028, "clips", done=256)
    time.now += 4
    shown.add(64)
    assert shown.rate == pytest.approx(16)
    assert capsys.readouterr().err == "  probe: 320/1028 clips, 16.0/s, 0:44 left\n"


def test_what_turns_out_to_be_done_already_does_not_count_for_the_rate(
    time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("match", 100, "pairs")
    shown.resume(60)
    time.now += 4
    shown.add(20)
    assert capsys.readouterr().err == "  match: 80/100 pairs, 5.0/s, 0:04 left\n"


@pytest.mark.parametrize(("total", "done"), [(0, 0), (5, 5), (None, 0)])
def test_nothing_is_said_where_there_was_nothing_to_do(
    total: int | None, done: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Progress("write", total, "shards", done=done).finish()
    assert capsys.readouterr().err == ""


def test_a_total_that_is_not_known_is_not_shown(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("list", None, "files")
    time.now += 65
    shown.add(130)
    assert capsys.readouterr().err == "  list: 130 files, 2.0/s, 1:05 so far\n"


def test_a_watcher_sees_every_change_also_of_quiet_work(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    shown = Progress("probe", 3, "clips", lambda progress: seen.append((progress.done, progress.failed)), quiet=True)
    shown.add(1)
    shown.add(2, {"silent": 1})
    shown.finish()
    assert seen == [(0, 0), (1, 0), (3, 1), (3, 1)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (2000.04, "2000.0/s"),
        (1.0, "1.0/s"),
        (0.999, "1.0/s"),
        (0.99, "1.0 s each"),
        (0.08, "12.5 s each"),
        (1 / 59.9, "59.9 s each"),
        (1 / 3723, "1:02:03 each"),
    ],
)
def test_slow_work_shows_how_long_each_unit_takes(rate: float, text: str) -> None:
    assert pace(rate) == text


@given(st.floats(1e-6, 1e6))
def test_no_pace_reads_as_nothing(rate: float) -> None:
    number = re.match(r"[\d.:]+", pace(rate))
    assert number is not None and float(number[0].replace(":", "")) >= 1


def test_slow_work_shows_seconds_for_each_unit_and_work_without_a_rate_none(
    time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("annotate", 48, "clips")
    time.now += 25
    shown.add(2)
    assert capsys.readouterr().err == "  annotate: 2/48 clips, 12.5 s each, 9:35 left\n"
    shown = Progress("annotate", 48, "clips")
    time.now += 25
    shown.add(0)
    assert capsys.readouterr().err == "  annotate: 0/48 clips, ? left\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (float("inf"), "?")])
def test_clock_shows_hours_only_where_there_are_any(seconds: float, text: str) -> None:
    assert clock(seconds) == text and re.fullmatch(r"[\d:?]+", text)
