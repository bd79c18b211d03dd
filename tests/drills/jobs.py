"""The two jobs, as somebody outside the cluster submits them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_jobs.cluster.local_cluster import submit
from tests.conftest import REPOSITORY
from tests.drills.hosts import DASHBOARD, permitted
from tests.training.small_runs import lines

PATIENCE_S = 600.0  # for what a drill waits for, on a machine that may be busy
MORE = ["checkpoint.every=5", "optimizer.epochs=12", "optimizer.lr=1e-4", "text.dropout=0.1"]
DRILL = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("EARSHOT_DRILLS" not in os.environ, reason="a drill: `make test-drills` runs it"),
    pytest.mark.skipif(not permitted(), reason="network namespaces are not permitted here"),
]
OPTIONS = ["--protect=mine/test", "--window-s=10", "--shard-size=4MB"]


class Job:
    """A job that is submitted from outside, through the dashboard's address.

    Args:
        command: what runs on the cluster.
        log: the file for its output.
    """

    def __init__(self, pool: ThreadPoolExecutor, command: list[str], log: Path) -> None:
        self._log = log
        self._future: Future[None] = pool.submit(submit, DASHBOARD, REPOSITORY, command, log)

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text() if self._log.exists() else ""

    def runs(self) -> bool:
        """Whether it has not ended."""
        return not self._future.done()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that happens while it runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert not self._future.done(), f"the job ended before: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"it did not happen in {PATIENCE_S:.0f} s: {self.log()[-3000:]}"
            time.sleep(0.1)

    def ends_well(self) -> bool:
        """Wait for its end; whether that is good."""
        return self._future.exception(timeout=PATIENCE_S) is None

    def succeeds(self) -> str:
        """Wait for its end, which is good; what it said."""
        assert self.ends_well(), self.log()[-5000:]
        return self.log()

    def fails(self) -> str:
        """Wait for its end, which is bad; what it said."""
        assert not self.ends_well(), self.log()[-5000:]
        return self.log()


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk, up to some bytes, with a file."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:  # others may write there at the same time
        while (free := shutil.disk_usage(disk).free - leave) > 0:
            file.write(bytes(min(free, 1 << 20)))
            file.flush()
    return ballast


def empty(disk: Path) -> None:
    """Remove all that is on a disk."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def building(corpus: Path, out: Path) -> list[str]:
    """The job that builds ``out``."""
    return ["ray_jobs/build_shards.py", f"--out={out}", f"--source=mine={corpus}", *OPTIONS]


def training(calm_run: Path, run: Path | str, *options: str) -> list[str]:
    """The job that trains in ``run``."""
    sets = [word for override in MORE for word in ("--set", override)]
    command = ["ray_jobs/train.py", str(calm_run / "recipe.yaml"), f"--shards={calm_run / 'build'}", f"--run={run}"]
    return [*command, "--workers=2", *options, *sets]


def taken(run: Path) -> int:
    """How many steps a run has taken."""
    return len(lines(run)) if (run / "metrics.jsonl").is_file() else 0


def same_to_rounding(undisturbed: Path, disturbed: Path) -> None:
    """The same steps with the same batches, and the same losses to rounding."""
    reference, ours = lines(undisturbed), lines(disturbed)
    assert [(line["step"], line["batch"]) for line in ours] == [(line["step"], line["batch"]) for line in reference]
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in reference], abs=1e-3)
