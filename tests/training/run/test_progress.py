"""The status line: rate, remaining time, and silence."""

from __future__ import annotations

import pytest

from training.run import progress
from training.run.progress import StatusLine, naming_run


def test_lines_are_rare_elsewhere_than_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    line = StatusLine("steps", 10, done=4)
    for done in range(5, 11):
        now += 4.0
        line.update(done, f"loss {done}")
    shown = capsys.readouterr().err.splitlines()
    assert [text.split()[1] for text in shown] == ["5/10", "8/10", "10/10"], "the first, after 10 s, and the last"
    assert shown[1] == "steps 8/10  4.0 s each  0:08 left  loss 8", "what was done before has no rate"


def test_a_quiet_line_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = StatusLine("steps", 10, quiet=True)
    line.update(10)
    line.say("text")
    assert capsys.readouterr().err == ""


def test_a_text_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    StatusLine("steps", 10).say("text")
    assert capsys.readouterr().err == "text\n"


def test_lines_name_their_run_where_several_share_an_output(capsys: pytest.CaptureFixture[str]) -> None:
    line = StatusLine("steps", 10)
    with naming_run("dual, seed 0"):
        line.update(4)
        line.say("text")
    line.say("no run")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("  dual, seed 0: steps 4/10") and said[1:] == ["  dual, seed 0: text", "no run"]
