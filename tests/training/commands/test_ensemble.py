"""``ensemble`` of models: scored once, weighted on the validation split alone, and the same as of their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe
from training import cli
from training.engine.distributed import Group
from training.run.loop import fit

MEASURED, VALIDATION = "clotho/evaluation", "clotho/development"


@pytest.fixture(scope="module")
def models(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models of one step, with weights of their own."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        recipe = small_recipe([f"seed={seed}", "optimizer.steps=1", "optimizer.warmup_epochs=0", "log.health=0"])
        fit(recipe, Manifest.open(build), folder / f"m{seed}", group)
    return [str(folder / "m1"), str(folder / "m2")]


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_models_are_scored_once_and_weighted_on_the_validation_split(
    models: list[str], build: Path, group: Group, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--shards", str(build), "--split", MEASURED, "--scores", str(tmp_path / "s")]
    words = ["ensemble", models[0], f"other={models[1]}", *places, "--validation-split", VALIDATION]
    found = outcome(words, capsys)
    assert set(found["combinations"]) == {"m1", "other", "m1 + other", "chosen weights"}
    assert (found["split"], found["validation"]) == (MEASURED, VALIDATION)
    assert found["combinations"]["m1"]["split"] == MEASURED
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*") if path.is_file()}
    (tmp_path / "s/clotho-development/other/part-000000.safetensors").unlink()  # as a killed command leaves it
    (tmp_path / "s/clotho-development/other/scores.json").rename(tmp_path / "s/clotho-development/other/started.json")
    assert outcome(words, capsys) == found
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*") if path.is_file()}
    changed = {path.parent for path in files if files[path] != again.get(path)}
    assert changed == {tmp_path / "s/clotho-development/other"}, "what is there is not done again"
    scores, validation = (
        [str(tmp_path / "s" / split.replace("/", "-") / name) for name in ("m1", "other")]
        for split in (MEASURED, VALIDATION)
    )
    assert outcome(["ensemble", *scores, "--validation", *validation], capsys) == found
    mixed = outcome(["ensemble", scores[0], f"other={models[1]}", *places], capsys)
    assert mixed["combinations"]["m1 + other"] == found["combinations"]["m1 + other"]
    with_scores = ["ensemble", scores[0], f"other={models[1]}", *places, "--validation-split", VALIDATION]
    assert cli.main(with_scores) == 2
    assert "m1 is a folder of scores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "give --shards, --split, --scores"),
        (["--shards", "x", "--split", MEASURED, "--scores", "y", "--validation-split", MEASURED], "measured on"),
        (["--batch", "0"], "--batch must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(
    more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ensemble", "runs/a", "runs/b", *more]) == 2
    assert said in capsys.readouterr().err


def test_one_system_is_no_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ensemble", "runs/a"]) == 2
    assert "2 to 8 systems" in capsys.readouterr().err
