"""The bench for a GPU runs in miniature without one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


def run(*parts: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--quick", "--only", *parts],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_every_part_runs_and_training_is_exact() -> None:
    found = run("rate", "step", "loss", "scoring", "spectrogram", "zero", "resume")
    assert found["zero: failed"] == found["resume: failed"] == 0 and found["resume: weights"] > 0
    assert found["step: bf16, every negative, plain: clips/s"] > 0
    assert {name.partition(":")[0] for name in found} >= {"scoring", "spectrogram", "loss", "rate"}


def test_a_new_start_changes_no_weight() -> None:
    assert run("resume")["resume: failed"] == 0
