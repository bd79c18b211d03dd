import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ray_jobs.demo import run
from sharding.common.errors import InputError
from tests.conftest import REPOSITORY


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/mine.wav").write_bytes(b"mine")
    with pytest.raises(InputError, match="not made by a demo"):
        run(tmp_path, seed=0, clips=60)
    assert (tmp_path / "corpus/mine.wav").read_bytes() == b"mine"


def test_an_interrupted_demo_ends_what_it_started_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ray_jobs.demo", "--out", str(tmp_path / "demo"), "--clips", "60"]
    demo = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None and demo.stdout.readline().startswith("[1/5]")
    deadline, started = time.monotonic() + 100, []
    while not any(process.name() == "gcs_server" for process in started) and time.monotonic() < deadline:
        time.sleep(0.5)
        started = psutil.Process(demo.pid).children(recursive=True)
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=200)
    assert demo.returncode == 130 and said.splitlines()[-1] == "demo: interrupted", said
    assert len(started) > 1 and not any(process.is_running() for process in started)
