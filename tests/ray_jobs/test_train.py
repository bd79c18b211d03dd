from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

from ray_jobs.cluster.ranks import FEWER, Ranks, run_on_ranks, shortage
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from tests.training.small_runs import REPOSITORY, TREE, lines, run_ranks, write_sounds
from training.engine import checkpoint

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "DS_ACCELERATOR": "cpu"}


def start(arguments: list[str], job: str = "train") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, f"ray_jobs/{job}.py", *arguments],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "optimizer.lrr=1"], "did you mean 'lr'"),
        (["--min-workers=0"], "at least 1"),
        (["--cpus=-1"], "a rank needs processor cores"),
    ],
)
def test_what_is_wrong_is_refused_before_ray_starts(options: list[str], message: str, tmp_path: Path) -> None:
    process = start(["demo", f"--shards={tmp_path}", f"--run={tmp_path / 'run'}", *options])
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert message in out


def test_a_job_that_waits_for_nodes_says_what_it_lacks() -> None:
    said = shortage({"CPU": 2.0}, {"CPU": 8.0}, "8 ranks need", FEWER)
    assert said is not None and "8 ranks need 8 CPUs, and the cluster has 2" in said and "--min-workers" in said
    said = shortage({"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 8.0}, "8 ranks need", FEWER)
    assert said is not None and "8 ranks need 8 GPUs, and the cluster has 4" in said
    assert shortage({"CPU": 8.0}, {"CPU": 8.0}, "8 ranks need", FEWER) is None


def test_a_file_where_the_runs_folder_should_be_is_said_before_any_rank_starts(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(InputError, match="a file stands where the run's folder should be") as refusal:
        run_on_ranks(print, None, f"{tmp_path}/runs/first", Ranks(1, 1, 0, 1, 0, None))
    assert refusal.value.file == tmp_path / "runs"


@pytest.mark.slow
def test_a_cluster_is_started_where_local_is_asked_for(tmp_path: Path) -> None:
    process = start(["--shards", str(tmp_path), "--split=a/b", "--address=local", str(tmp_path)], "evaluate")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "no finished build here" in out, out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_and_a_lost_node_change_nothing_but_time(tmp_path: Path) -> None:
    """Two nodes of one rank each: a rank is killed, then a node; the other ends the run alone, with the same losses."""
    build, recipe = tmp_path / "build", tmp_path / "recipe.yaml"
    write_sounds(build)
    more = ["checkpoint.every=5", "optimizer.epochs=12", "optimizer.lr=1e-4", "text.dropout=0.1"]
    recipe.write_text(yaml.safe_dump(TREE))
    run_ranks(1, build, {"alone": more}, tmp_path)
    sets = [word for override in more for word in ("--set", override)]
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = nodes.add_node(num_cpus=1)
        options = ["--workers=2", "--min-workers=1", f"--address={nodes.address}"]
        process = start([str(recipe), f"--shards={build}", f"--run={tmp_path / 'run'}", *options, *sets])
        _wait_for_steps(process, tmp_path / "run", 12)
        next(each for each in psutil.Process().children(recursive=True) if _is_rank(each)).kill()
        _wait_for_steps(process, tmp_path / "run", 25)
        nodes.remove_node(second, allow_graceful=False)
        out, _ = process.communicate(timeout=400)
    finally:
        nodes.shutdown()
    assert process.returncode == 0, out
    assert re.search(r" 2 ranks,.* steps [1-9]\d* to 48", out), out  # the killed rank's successor, before the node went
    assert "PreemptionWatcher" not in out, out
    _same_course(tmp_path / "alone", tmp_path / "run")
    assert (tmp_path / "run/export/config.json").is_file()
    last = checkpoint.load(checkpoint.find(tmp_path / "run")).state
    assert (last["step"], last["world"]) == (48, 1)


def _same_course(undisturbed: Path, disturbed: Path) -> None:
    """The same steps with the same batches, and the same losses to rounding."""
    reference, ours = lines(undisturbed), lines(disturbed)
    assert [line["step"] for line in ours] == [line["step"] for line in reference]
    for one, other in zip(reference, ours, strict=True):
        assert one["batch"] == other["batch"]
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-3)


def _wait_for_steps(process: subprocess.Popen[str], run: Path, steps: int) -> None:
    """Return when the run has taken so many steps."""
    deadline = time.monotonic() + 400
    while not ((run / "metrics.jsonl").is_file() and len(lines(run)) >= steps):
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            raise AssertionError(f"the run came not so far: {process.communicate()[0][-3000:]}")
        time.sleep(0.1)


def _is_rank(process: psutil.Process) -> bool:
    try:
        return "TrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_in_an_object_store_needs_no_shared_folder(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Build and run are in the store; a refusal reaches the driver through it as well."""
    monkeypatch.setitem(ENVIRONMENT, "EARSHOT_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setitem(ENVIRONMENT, name, os.environ[name])
    write_sounds(tmp_path / "build")
    place = Storage(f"{s3}/{tmp_path.name}")
    for file in Storage(tmp_path / "build").list():
        place.write(f"build/{file}", (tmp_path / "build" / file).read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TREE))
    sets = ["--set", "optimizer.steps=4", "--set", "optimizer.warmup_epochs=0"]
    options = [str(recipe), f"--shards={place.url}/build", f"--run={place.url}/run", "--workers=2", "--address=local"]
    process = start([*options, *sets])
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert f"model: {place.url}/run/export" in out
    assert "PlacementGroupCleaner" not in out, "an actor of Ray's complains about the dashboard that is not there"
    assert place.exists("run/export/config.json") and place.exists("run/checkpoints/step-000000004/state.json")
    process = start([*options, *sets, "--set", "seed=9"])
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "another recipe: seed" in out, out
