"""Re-ranking as a command: a run that is killed continues, and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.search.indexes import exported, untrained
from tests.training.small_runs import REPOSITORY
from training.cli import main


def parts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(build: Path, tmp_path: Path) -> None:
    shards, model, cut = ["--shards", str(build)], tmp_path / "model", tmp_path / "cut"
    exported(untrained(TINY), model)
    for split in ("development", "evaluation"):
        words = ["scores", str(model), *shards, "--split", f"clotho/{split}", "--out", str(tmp_path / split)]
        assert main(words) == 0
    files = ["--scores", str(tmp_path / "development"), "--tune", str(tmp_path / "evaluation")]
    judge = ["rerank", str(model), *shards, *files, "--top", "9", "--out"]
    assert main([*judge, str(tmp_path / "whole")]) == 0
    killed = subprocess.Popen(
        [sys.executable, "-m", "training", *judge, str(cut)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # sums round differently with another number of threads
        start_new_session=True,
    )
    while not parts(cut):
        assert killed.poll() is None, "it ended before it had written anything"
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    expected = parts(tmp_path / "whole")
    assert len(parts(cut)) < len(expected) == 5
    assert main([*judge, str(cut)]) == 0
    assert parts(cut) == expected
