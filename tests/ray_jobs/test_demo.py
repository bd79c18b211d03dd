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


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_demo_that_ends_early_leaves_no_process(number: int, status: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ray_jobs.demo", "--out", str(tmp_path / "demo"), "--clips", "60"]
    demo = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None and demo.stdout.readline().startswith("[1/5]")
    deadline, started = time.monotonic() + 100, []
    while not any(process.name() == "gcs_server" for process in started) and time.monotonic() < deadline:
        time.sleep(0.5)
        started = psutil.Process(demo.pid).children(recursive=True)
    assert len(started) > 1
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=200)
    assert demo.returncode == status
    assert number == signal.SIGKILL or said.splitlines()[-1] == "demo: interrupted", said
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
