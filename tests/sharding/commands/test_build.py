"""The command that builds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharding.cli import main
from sharding.commands.build import reason_lines
from tests.conftest import REPOSITORY
from tests.sharding.corpora import outcome


def test_a_split_that_ones_own_source_lacks_is_not_protected_in_silence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--source", f"mine={corpus}", "--out", str(tmp_path / "out"), "--protect"]
    assert main([*words, "mine/tset"]) == 2
    assert "mine has no such split to protect (found 'mine/tset')" in capsys.readouterr().err


def test_clips_that_failed_are_named_with_their_reason() -> None:
    reasons = {"written/whole": 9, "duplicate/same_interval": 2, "failed/truncated": 4, "failed/silent": 1}
    failed = {"truncated": ["mine/all/a", "mine/all/b", "mine/all/c"], "silent": ["mine/all/d"]}
    assert [line.strip() for line in reason_lines(reasons, failed)] == [
        "2 duplicate: same_interval",
        "4 failed: truncated (such as mine/all/a, mine/all/b, mine/all/c)",
        "1 failed: silent (mine/all/d)",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_asked_to_end_leaves_nothing_behind(
    number: signal.Signals, corpus: Path, tmp_path: Path
) -> None:
    """The signal comes while workers are starting; Ctrl-C goes to them too."""
    scratch, out = tmp_path / "tmp", tmp_path / "out"
    scratch.mkdir()
    command = [sys.executable, "-m", "sharding", "build", "--source", f"mine={corpus}", "--protect", "mine/test"]
    command += ["--workers", "2", "--out", str(out)]
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not any(scratch.glob("earshot-*")):  # workers are told what to do by a file there
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert "run the same command again" in said and "Traceback" not in said
    assert not list(scratch.iterdir())
    for place in (out, tmp_path / "fresh"):
        assert subprocess.run([*command[:-1], str(place)], cwd=REPOSITORY, capture_output=True).returncode == 0
    assert outcome(out) == outcome(tmp_path / "fresh")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_while_it_begins_says_no_more(number: signal.Signals) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sharding", "build", "--help"]  # each import is a line
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while process.stderr.readline().rpartition("|")[2].strip() != "numpy":
            assert process.poll() is None
        process.send_signal(number)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 128 + number
