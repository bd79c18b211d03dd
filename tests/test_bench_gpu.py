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
    found = run("rate", "step", "multimodal", "loss", "scoring", "spectrogram", "zero", "resume")
    assert found["zero: failed"] == found["resume: failed"] == 0 and found["resume: weights"] > 0
    assert found["step: bf16, every negative, plain: clips/s"] > 0
    assert {name.partition(":")[0] for name in found} >= {"scoring", "spectrogram", "loss", "rate"}


def test_a_step_of_a_multimodal_model_takes_the_operations_that_the_docs_reckon_with() -> None:
    """Attention and adapters come on top of the parameters of the blocks, and weigh more in miniature."""
    found = run("multimodal")
    assert found["multimodal: 3B, adapters: clips/s"] > 0
    counted, reckoned = (found[f"multimodal: TFLOP of a step{name}"] for name in ("", " by arithmetic"))
    assert reckoned < counted < 2 * reckoned


def test_a_new_start_changes_no_weight() -> None:
    assert run("resume")["resume: failed"] == 0
