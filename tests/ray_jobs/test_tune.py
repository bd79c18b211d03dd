"""Sweeps on Ray Tune: what is refused; a whole sweep that is killed, loses nothing to a failure, and ends as a job."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ray_jobs import __main__ as program
from ray_jobs.cluster.local_cluster import local_cluster, submit
from ray_jobs.tune import show
from tests.training.small_runs import REPOSITORY, TREE, write_sounds
from training.config.loading import load_recipe

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "DS_ACCELERATOR": "cpu"}
SPLITS = {"clotho/development": 24, "clotho/validation": 9, "clotho/evaluation": 9}
METRIC = "text_to_audio/mAP@10"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build")
    write_sounds(out, splits=SPLITS)
    return out


def write_recipe(folder: Path, split: str | None = "clotho/validation") -> Path:
    tree = TREE | {"validation": {"split": split, "every": 4}, "optimizer": TREE["optimizer"] | {"epochs": 6}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def words(recipe: Path, build: Path, out: Path, *more: str) -> list[str]:
    return ["tune", str(recipe), f"--shards={build}", f"--out={out}", *more]


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("clotho/validation", ["--over", "optimizer.lrr=1,2"], "did you mean 'lr'"),
        ("clotho/validation", ["--over", "optimizer.lr=1e-3,fast"], "--over optimizer.lr=fast: optimizer.lr must be a"),
        ("clotho/validation", ["--over", "optimizer.lr=1e-3,-1"], "--over optimizer.lr=-1: optimizer: lr must be"),
        (
            "clotho/validation",
            ["--over", "head.dim=8", "--over", "data.batch_size=6,1"],
            "--over data.batch_size=1: data",
        ),
        ("clotho/validation", ["--over", "validation.split=clotho/evaluation"], "--over validation.split=clotho/eval"),
        ("clotho/validation", ["--over", "head.dim=8", "--set", "optimizer.lr=-1"], ": --set optimizer.lr=-1: opt"),
        ("clotho/validation", ["--over", "head.dim"], "KEY=VALUES"),
        ("clotho/validation", ["--over", "head.dim=8,16", "--seeds=0"], "--seeds"),
        ("clotho/validation", ["--over", "head.dim=8,16", "--set", "checkpoint.keep_best=0"], "keep_best"),
        ("clotho/validation", ["--over", "validation.metric=text_to_audio/R@1,text_to_audio/R@5"], "one metric"),
        ("clotho/evaluation", ["--over", "head.dim=8,16"], "for tests"),
        (None, ["--over", "head.dim=8,16"], "recipe has none"),
        (
            None,
            ["--over", "validation.split=clotho/nowhere"],
            "--over validation.split=clotho/nowhere: the recipe names",
        ),
        (
            "clotho/validation",
            ["--over", "data.annotations=nowhere.parquet"],
            "--over data.annotations=nowhere.parquet",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_before_ray_starts(
    split: str | None,
    options: list[str],
    message: str,
    build: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = words(write_recipe(tmp_path, split), build, tmp_path / "sweep", "--address=local", *options)
    assert program.main(asked) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_the_winner_is_shown_as_options_and_a_failure_with_its_reason() -> None:
    run = {"seed": 0, "folder": "runs/x/seed-0", "value": 0.5, "step": 4, "state": "finished", "why": ""}
    broken = run | {"seed": 1, "state": "failed", "why": "no space left"}
    best = {"changes": ["a=['x', 1]"], "complete": True, "mean": 0.5, "least": 0.5, "most": 0.5, "runs": [run, run]}
    other = best | {"changes": ["a=2"], "complete": False, "runs": [run, broken]}
    result = {"recipe": "demo", "shards": "OUT", "out": "S", "split": "d/validation", "metric": METRIC}
    result |= {"settings": [best, other]}
    text = show(result | {"best": ["seed=1", "a=['x', 1]"]})
    assert shlex.split(text.splitlines()[-1])[:7] == [
        "earshot",
        "fit",
        "demo",
        "--set",
        "seed=1",
        "--set",
        "a=['x', 1]",
    ]
    assert "S/runs/x/seed-0" in text
    assert "(1 of 2 failed)" in text and "a=2, seed 1: no space left" in text
    assert "none is called the best" in show(result | {"best": None})


def sweep(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs", *words, "--address=local", "--json"]
    return subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_sweep_continues_and_a_failure_loses_no_other_trial(build: Path, tmp_path: Path) -> None:
    runs = tmp_path / "sweep/runs"
    options = words(write_recipe(tmp_path), build, runs.parent, "--over", "head.dim=8,16,24", "--stop-early")
    broken = runs / "head.dim=24/seed-0"
    broken.parent.mkdir(parents=True)
    broken.write_text("in the way")
    command = [sys.executable, "-m", "ray_jobs", *options, "--address=local"]
    first = subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (kept := list(runs.glob("*/seed-0/checkpoints/*/state.json"))):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()

    done = sweep(*options)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["complete"] for row in found["settings"]] == [True, True, False]
    (failed,) = found["settings"][2]["runs"]
    assert failed["folder"] == "runs/head.dim=24/seed-0" and failed["state"] == "failed" and "seed-0" in failed["why"]
    assert found["settings"][0]["mean"] >= found["settings"][1]["mean"] > 0
    assert found["best"] == found["settings"][0]["changes"]
    events = [json.loads(line) for line in (kept[0].parents[2] / "starts.jsonl").read_text().splitlines()]
    assert any(event["what"] == "start" and event["step"] > 0 for event in events)

    broken.unlink()  # what failed is done now, and the others are not touched
    exports = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/export/model.safetensors")}
    log = tmp_path / "job.log"
    with local_cluster(2, tmp_path / "ray.log") as address:
        submit(address, REPOSITORY, ["python", "-m", "ray_jobs", *options, "--json"], log, show=False)
    found = json.loads([line for line in log.read_text().splitlines() if line.startswith("{")][-1])
    assert exports and all(path.stat().st_mtime_ns == when for path, when in exports.items())
    assert all(row["complete"] for row in found["settings"])
    assert load_recipe(broken / "recipe.yaml").head.dim == 24  # a trial is a run of `earshot fit`
