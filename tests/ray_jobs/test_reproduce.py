"""Plans of papers on a Ray cluster: what may begin, what a failure takes with it, and a plan that a job ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.cluster.local_cluster import local_cluster, submit
from ray_jobs.reproduce import OneRun, _lost_needs, _ready
from tests.training.small_runs import REPOSITORY, write_sounds
from training.models.hub import CONFIG, EXPORT
from training.reproduce.carrying_out import Work
from training.reproduce.papers import PLANS

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "DS_ACCELERATOR": "cpu"}


def start(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs", "reproduce", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)


def test_a_run_begins_when_those_are_trained_that_it_needs(tmp_path: Path) -> None:
    work = Work(PLANS["calvet-table-3"](), tmp_path, "", 2, 5)
    every = [OneRun(work, name, seed, None) for name, seed in work.left()]
    assert len(every) == 12
    assert {one.label for one in _ready(every)} == {
        f"{name}-all, seed {seed}" for name in ("dual", "sentence", "token") for seed in (0, 1)
    }
    for name in ("dual-all", "sentence-all", "token-all"):
        export = work.run(name, 1) / EXPORT
        export.mkdir(parents=True)
        (export / CONFIG).touch()
    assert "token-all-distilled, seed 1" in {one.label for one in _ready(every)}
    assert "token-all-distilled, seed 0" not in {one.label for one in _ready(every)}
    student = OneRun(work, "dual-all-distilled", 0, None)
    assert _lost_needs(student, {"token-all, seed 0": "no memory"}) == ["token-all, seed 0"]
    assert _lost_needs(student, {"token-all, seed 1": "no memory"}) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_failed_run_is_named_and_loses_no_other_and_the_same_command_does_it_again(tmp_path: Path) -> None:
    write_sounds(tmp_path / "build")
    plan = tmp_path / "plan"
    words = ["filomeno-table-2", f"--shards={tmp_path / 'build'}", f"--out={plan}", "--scale=small", "--seeds=1"]
    words += ["--steps=2", "--set=data.max_tokens=16"]
    (plan / "runs/partial").mkdir(parents=True)
    (plan / "runs/partial/seed-0").write_text("in the way")
    done = start(*words, "--address=local")
    assert done.returncode == 1, done.stderr
    assert "Runs that are not done" in done.stdout and "partial, seed 0" in done.stdout
    assert "Baseline (DCASE 2025)" in done.stdout and "PaSST + attention pooling" not in done.stdout
    export = plan / "runs/baseline/seed-0/export/model.safetensors"
    before = export.stat().st_mtime_ns
    (plan / "runs/partial/seed-0").unlink()
    log = tmp_path / "job.log"
    with local_cluster(2, tmp_path / "ray.log") as address:
        submit(address, REPOSITORY, ["python", "-m", "ray_jobs", "reproduce", *words, "--json"], log, show=False)
    found = json.loads([line for line in log.read_text().splitlines() if line.startswith("{")][-1])
    assert found["failed"] == {} and len(found["rows"]) == 2
    assert export.stat().st_mtime_ns == before
