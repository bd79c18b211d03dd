"""Training and evaluation as submitted jobs, and the errors that a submitted job shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ray_jobs.cluster.local_cluster import local_cluster, submit
from sharding.common.errors import InputError
from tests.training.small_runs import REPOSITORY, TREE, write_sounds
from training import cli


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_trains_and_another_evaluates_as_the_command_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, run, recipe = tmp_path / "build", tmp_path / "run", tmp_path / "recipe.yaml"
    write_sounds(build)
    recipe.write_text(yaml.safe_dump(TREE | {"validation": {"split": "clotho/evaluation", "batch": 2}}))
    split = ["--split", "clotho/evaluation", "--json"]
    with local_cluster(2, tmp_path / "ray.log") as address:
        train = ["python", "ray_jobs/train.py", str(recipe), "--shards", str(build), "--run", str(run)]
        submit(address, REPOSITORY, [*train, "--workers", "2"], tmp_path / "train.log")
        evaluate = ["python", "ray_jobs/evaluate.py", str(run / "export"), "--shards", str(build), *split]
        submit(address, REPOSITORY, evaluate, tmp_path / "evaluate.log")
        with pytest.raises(InputError, match="failed"):
            wrong = ["python", "ray_jobs/evaluate.py", str(run), "--shards", str(build), "--split", "clotho/evalution"]
            submit(address, REPOSITORY, wrong, tmp_path / "wrong.log")
    trained = (tmp_path / "train.log").read_text()
    assert "steps 8/8" in trained and "Reporting training result" not in trained  # the run's lines, not Ray Train's
    shown = next(line for line in (tmp_path / "evaluate.log").read_text().splitlines() if line.startswith("{"))
    result = json.loads(shown)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--shards", str(build), *split]) == 0
    assert result == json.loads(capsys.readouterr().out.splitlines()[-1])
    validation = json.loads((run / "export/config.json").read_text())["validation"]
    assert result["text_to_audio"]["mAP@10"] == pytest.approx(validation["text_to_audio/mAP@10"], abs=1e-6)
    said = (tmp_path / "wrong.log").read_text()
    assert "the shards have no such split" in said and "clotho/evaluation" in said
