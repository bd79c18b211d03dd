"""Storage that fails under both jobs: a full disk, and an object store that errs, waits, hangs up and breaks off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sharding import cli
from sharding.common.storage import Storage
from tests.drills.hosts import Host
from tests.drills.jobs import DRILL, Job, fill, same_to_rounding, taken, training
from tests.drills.unsteady import Unsteady, unsteady_store
from tests.sharding.corpora import outcome, write_corpus

pytestmark = DRILL

FAULTS = 0.1  # share of the requests
ENDS_S = 120.0  # in which a job must have ended once its disk is full


@pytest.fixture
def store(hosts: list[Host], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[Unsteady]:
    for name in [name for name in environment if name.startswith("AWS_")]:
        monkeypatch.setenv(name, environment[name])
    with unsteady_store(seed=3) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, bytes]]:
    """The options of a small build, and what it has where nothing disturbs it."""
    folder = tmp_path_factory.mktemp("small")
    corpus = write_corpus(folder / "corpus", clips=60, seconds=1.0)
    options = [f"--source=mine={corpus}", "--protect=mine/test", "--window-s=10", "--shard-size=1MB"]
    assert cli.main(["build", f"--out={folder / 'out'}", *options]) == 0
    return options, outcome(folder / "out")


def test_a_build_whose_disk_is_full_says_so_and_continues(
    hosts: list[Host], run_job: Callable[..., Job], small: tuple[list[str], dict[str, bytes]], disk: Path
) -> None:
    out, ballast = disk / "out", fill(disk, leave=3 << 20)
    command = ["ray_jobs/build_shards.py", f"--out={out}", *small[0]]
    job = run_job(*command)
    said = job.fails()
    assert "no space left" in said.lower() and str(out) in said and "same command" in said, said
    ballast.unlink()
    run_job(*command).succeeds()
    assert outcome(out) == small[1]


def test_a_run_whose_disk_is_full_says_so_and_continues(
    hosts: list[Host], run_job: Callable[..., Job], calm_run: Path, disk: Path
) -> None:
    run = disk / "run"
    command = training(calm_run, run, "--min-workers=1", "--workers=1")
    job = run_job(*command)
    job.wait_until(lambda: taken(run) >= 7)
    ballast = fill(disk, leave=0)
    began = time.monotonic()
    said = job.fails()
    assert time.monotonic() - began < ENDS_S
    assert "no space left" in said.lower() and str(run) in said and "same command" in said, said
    ballast.unlink()
    run_job(*command).succeeds()
    same_to_rounding(calm_run / "pair", run)


def test_both_jobs_outlive_an_unsteady_object_store(
    store: Unsteady,
    run_job: Callable[..., Job],
    small: tuple[list[str], dict[str, bytes]],
    calm_run: Path,
    tmp_path: Path,
) -> None:
    """Every node has nothing but the store, of whose requests a tenth goes wrong."""
    shards = Storage("s3://earshot/shards")
    for file in sorted(path for path in (calm_run / "build").rglob("*") if path.is_file()):
        shards.write(file.relative_to(calm_run / "build").as_posix(), file.read_bytes())
    store.share = FAULTS
    run = "s3://earshot/run"
    jobs = [["ray_jobs/build_shards.py", "--out=s3://earshot/out", *small[0]]]
    jobs += [training(calm_run, run, "--min-workers=1", "--workers=1", "--shards=s3://earshot/shards")]
    for job in [run_job(*job) for job in jobs]:
        job.succeeds()
    assert len(store.faults) == 5, store.faults
    store.share = 0
    out = Storage("s3://earshot/out")
    assert {name: out.read(name) for name in out.list() if not name.startswith(".build/")} == small[1]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_bytes(Storage(run).read("metrics.jsonl"))
    same_to_rounding(calm_run / "pair", tmp_path / "run")
