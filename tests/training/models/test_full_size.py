"""The published recipe at its full size, on a CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import psutil
import pytest

from tests.training.small_runs import REPOSITORY

NEEDED_GB = 16
PROGRAM = "import json; from bench.step import full_size; print(json.dumps(full_size()))"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_published_recipe_takes_steps_at_full_size() -> None:
    """PaSST and RoBERTa-large with random weights, two clips of 30 s, bf16, ZeRO-1."""
    free = psutil.virtual_memory().available / 1e9
    if free < NEEDED_GB:
        pytest.skip(f"{free:.0f} GB of memory are free; the full-size model with its optimizer takes {NEEDED_GB}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=os.environ | {"DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] > 3.8e8
    assert math.isfinite(found["first"]) and math.isfinite(found["last"])
    assert found["first"] == pytest.approx(math.log(2), abs=1.5)
