from __future__ import annotations

import pytest

from ray_jobs.cluster.metrics import TRAINING, of_step, run_label


@pytest.mark.parametrize("address", ["s3://bucket/runs/dual", "/data/runs/dual/", "dual"])
def test_a_run_is_labelled_by_the_end_of_its_address(address: str) -> None:
    assert run_label(address) == "dual"


def test_a_step_gives_every_metric_of_training() -> None:
    record = {"step": 6, "loss": 1.5, "clips_per_s": 20.0, "pairs_per_s": 30.0, "data_wait": 0.01, "damaged": 0}
    found = of_step(record)
    assert set(found) == set(TRAINING) and found["earshot_train_step"] == 7
