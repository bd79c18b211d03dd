"""Runs in an object store: resumed on other machines, broken off during uploads, and used as models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sharding.common.errors import InputError
from sharding.common.storage import Storage, lease
from sharding.shards.manifest import Manifest
from tests.conftest import S3Failures
from tests.training.small_runs import REPOSITORY, figures, small_recipe
from training import cli
from training.engine.distributed import Group
from training.engine.remote import complete_steps, model_folder
from training.models.hub import open_model
from training.run.loop import fit
from training.search.models import open_whole_model
from training.search.store import SoundIndex

RECIPE = ["checkpoint.every=2", "optimizer.steps=6", "optimizer.warmup_epochs=0", "log.tensorboard=true"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Each call makes this process one of another machine: its cache is empty."""

    def move(name: str) -> Path:
        monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / name))
        return tmp_path / name

    move("first machine")
    yield move


def refusing(part: str, refused: list[str]) -> Any:
    def rule(request: dict[str, Any]) -> str | None:
        if request["REQUEST_METHOD"] in ("PUT", "POST") and part in request["PATH_INFO"]:
            refused.append(request["PATH_INFO"])
            return "403 Forbidden"
        return None

    return rule


def test_a_run_goes_on_on_another_machine_from_its_last_whole_upload(
    build: Path, group: Group, s3: str, s3_failures: S3Failures, elsewhere: Any, tmp_path: Path
) -> None:
    recipe, manifest, url = small_recipe(RECIPE), Manifest.open(build), f"{s3}/{tmp_path.name}/run"
    fit(recipe, manifest, tmp_path / "calm", group)
    refused: list[str] = []
    s3_failures.rule = refusing("step-000000004/state.json", refused)
    try:
        with pytest.raises(InputError, match="reading or writing failed"):
            fit(recipe, manifest, url, group)
    finally:
        s3_failures.rule = lambda request: None
    assert refused and complete_steps(Storage(url)) == ["step-000000002"]
    copy = elsewhere("second machine")
    result = fit(recipe, manifest, url, group)
    assert result["resumed_from"] == 2 and result["export"] == f"{url}/export"
    (folder,) = [path for path in (copy / "copies").iterdir() if path.is_dir()]
    assert figures(folder) == figures(tmp_path / "calm")
    assert Storage(url).read("metrics.jsonl") == (folder / "metrics.jsonl").read_bytes()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000006"]  # the copy is bounded
    assert complete_steps(Storage(url)) == ["step-000000004", "step-000000006"]  # keep_last of the recipe
    assert any(name.startswith("tensorboard/") for name in Storage(url).list())
    assert not Storage(url).exists(".lock")
    again = fit(recipe, manifest, url, group)
    assert (again["resumed_from"], again["steps"]) == (6, 6)


def test_a_model_in_an_object_store_is_used_like_a_local_one(
    build: Path, group: Group, s3: str, elsewhere: Any, tmp_path: Path
) -> None:
    frozen = small_recipe([*RECIPE, "optimizer.freeze=['text.*']"])
    url = f"{s3}/{tmp_path.name}/run"
    fit(frozen, Manifest.open(build), url, group)
    words = ["a low hum"]
    expected = open_model(url).encode_texts(words)[0]
    for place in (f"{url}/export", f"{url}/checkpoints/step-000000006", f"{url}/checkpoints"):
        elsewhere(place.rpartition("/")[2])
        assert (open_model(place).encode_texts(words)[0] - expected).abs().max() < 1e-6
    cache = elsewhere("from the run")
    Storage(url).remove_tree("export")
    assert (open_model(url).encode_texts(words)[0] - expected).abs().max() < 1e-6
    assert cli.main(["index", url, "--shards", str(build), "--out", str(tmp_path / "index")]) == 0
    open_whole_model(SoundIndex.open(tmp_path / "index"), None, False)  # from where the index says that it is
    started = small_recipe([*RECIPE, f"init_from.model={url}", "optimizer.steps=1"])
    fit(started, Manifest.open(build), tmp_path / "started", group)
    assert len(list((cache / "copies").glob("*.lock"))) == 1  # the second use found the copy of the first


def test_an_address_without_a_model_is_named_and_nothing_is_copied(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    Storage(f"{s3}/{tmp_path.name}").write("dataset.json", b"{}")
    with pytest.raises(InputError, match="no model here") as caught, model_folder(f"{s3}/{tmp_path.name}"):
        pass
    assert caught.value.file == f"{s3}/{tmp_path.name}" and not (tmp_path / "cache" / "copies").exists()


def test_a_damaged_checkpoint_in_the_store_is_skipped(
    build: Path, group: Group, s3: str, elsewhere: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, url = small_recipe(RECIPE), f"{s3}/{tmp_path.name}/run"
    fit(recipe, Manifest.open(build), url, group)
    Storage(url).write("checkpoints/step-000000006/model.safetensors", b"broken")
    elsewhere("second machine")
    assert fit(recipe, Manifest.open(build), url, group)["resumed_from"] == 4
    assert "skipped a checkpoint" in capsys.readouterr().err
    with pytest.raises(InputError, match="another recipe"):
        fit(small_recipe([*RECIPE, "seed=9"]), Manifest.open(build), url, group)


def test_a_cache_that_is_too_small_is_named_before_training(
    build: Path, group: Group, s3: str, elsewhere: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_CACHE_SIZE", "100kB")
    with pytest.raises(InputError, match="set EARSHOT_CACHE_SIZE to at least"):
        fit(small_recipe(RECIPE), Manifest.open(build), f"{s3}/{tmp_path.name}/run", group)


def test_a_second_trainer_is_kept_out_of_an_object_store(
    build: Path, group: Group, s3: str, elsewhere: Any, tmp_path: Path
) -> None:
    out = Storage(f"{s3}/{tmp_path.name}/run")
    with lease.hold_lock_file(out, ".lock", "training run"), pytest.raises(InputError, match="another training run"):
        fit(small_recipe(RECIPE), Manifest.open(build), out.url, group)


TRAIN = """
import sys
from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe
from training.engine.launch import ranks
from training.run.loop import fit

with ranks() as group:
    fit(small_recipe(sys.argv[3:]), Manifest.open(sys.argv[1]), sys.argv[2], group)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_killed_during_an_upload_the_previous_checkpoint_stands(
    build: Path, group: Group, s3: str, s3_failures: S3Failures, elsewhere: Any, tmp_path: Path, part: str
) -> None:
    url = f"{s3}/{tmp_path.name}/run"
    recipe = [*RECIPE, "log.tensorboard=false"]
    fit(small_recipe(recipe), Manifest.open(build), tmp_path / "calm", group)
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # their number decides how sums are rounded
    command = [sys.executable, "-c", TRAIN, str(build), url, *recipe]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | threads)

    def kill(request: dict[str, Any]) -> str | None:
        if request["REQUEST_METHOD"] in ("PUT", "POST") and f"step-000000004/{part}" in request["PATH_INFO"]:
            os.kill(process.pid, signal.SIGKILL)
            return "500 Internal Server Error"
        return None

    s3_failures.rule = kill
    try:
        assert process.wait(timeout=300) == -signal.SIGKILL
    finally:
        s3_failures.rule = lambda request: None
    assert complete_steps(Storage(url)) == ["step-000000002"]
    copy = elsewhere("second machine")
    assert fit(small_recipe(recipe), Manifest.open(build), url, group)["resumed_from"] == 2
    (folder,) = [path for path in (copy / "copies").iterdir() if path.is_dir()]
    assert figures(folder) == figures(tmp_path / "calm")
