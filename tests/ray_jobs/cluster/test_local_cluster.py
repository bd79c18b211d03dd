"""Real ``ray job submit`` against a cluster of this machine, as the demo uses it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from ray_jobs.cluster.local_cluster import local_cluster, submit
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.sharding.corpora import tree, write_corpus


@pytest.mark.slow
def test_a_submitted_job_builds_shards_and_a_failing_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    build = ["python", "ray_jobs/build_shards.py", f"--source=mine={corpus}", "--protect=mine/test"]
    with local_cluster(1, tmp_path / "ray.log") as address:
        submit(address, REPOSITORY, [*build, f"--out={out}"], tmp_path / "build.log")
        assert Manifest.open(out).table.num_rows > 8
        assert "probe: 14/14 clips" in capsys.readouterr().out
        with pytest.raises(InputError, match=r"build_shards\.py failed"):
            submit(address, REPOSITORY, [*build, f"--out={out}", "--rate=8000"], tmp_path / "again.log")
        assert "probe.form.rate: 32000 there, 8000 now" in (tmp_path / "again.log").read_text()


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses at which processes listen, in the kernel's hexadecimal."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            inodes |= {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:  # 0A: listening
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.slow
def test_every_process_of_the_cluster_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    with local_cluster(1, tmp_path / "ray.log"):
        time.sleep(10)  # the node's agent starts last
        names = {process.pid: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
        assert all(any(part in name for name in names.values()) for part in ("gcs_server", "raylet", "DashboardAgent"))
        found = listening_addresses(set(names))
    assert found and found <= loopback


@pytest.mark.slow
def test_a_job_that_is_stopped_says_so_in_one_sentence(tmp_path: Path) -> None:
    corpus, out = write_corpus(tmp_path / "corpus", clips=150, seconds=1.0), tmp_path / "out"
    command = ["python", "ray_jobs/build_shards.py", f"--source=mine={corpus}", "--protect=mine/test", f"--out={out}"]

    with local_cluster(1, tmp_path / "ray.log") as address:
        stopper = threading.Thread(target=signal_in_the_middle, args=(out, signal.SIGTERM))  # as `ray job stop` does
        stopper.start()
        with pytest.raises(InputError, match=r"build_shards\.py failed"):
            submit(address, REPOSITORY, command, tmp_path / "build.log")
        stopper.join()
    said = (tmp_path / "build.log").read_text()
    assert "build: interrupted; run the same command again to continue" in said
    assert "Traceback" not in said and "SIGTERM" not in said


def signal_in_the_middle(out: Path, number: signal.Signals) -> None:
    """Send a signal to the job that builds at ``out``, once it has kept its first facts."""
    deadline = time.monotonic() + 200
    while not list(out.glob(".build/facts/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if (process := job_process(out)) is not None:
        os.kill(process, number)


def job_process(out: Path) -> int | None:
    """The process of the job that builds at ``out``."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if f"--out={out}".encode() in words and words[1:2] == [b"ray_jobs/build_shards.py"]:
                    return int(folder.name)
    return None


@pytest.mark.slow
def test_a_job_whose_driver_is_killed_goes_on_when_it_is_submitted_again(tmp_path: Path) -> None:
    corpus, out = write_corpus(tmp_path / "corpus", clips=150, seconds=1.0), tmp_path / "out"
    options = [f"--source=mine={corpus}", "--protect=mine/test", "--shard-size=400kB"]
    assert main(["build", *options, "--out", str(tmp_path / "local")]) == 0
    command = ["python", "ray_jobs/build_shards.py", *options, f"--out={out}"]
    with local_cluster(1, tmp_path / "ray.log") as address:
        killer = threading.Thread(target=signal_in_the_middle, args=(out, signal.SIGKILL))
        killer.start()
        with pytest.raises(InputError, match=r"build_shards\.py failed"):
            submit(address, REPOSITORY, command, tmp_path / "first.log")
        killer.join()
        assert not (out / "dataset.json").exists()
        submit(address, REPOSITORY, command, tmp_path / "second.log")
    assert tree(out) == tree(tmp_path / "local")
