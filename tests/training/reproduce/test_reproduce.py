"""Plans of papers: complete, listed without running, carried out once, and shown beside the published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharding.build.run import build as build_shards
from sharding.common.runners import LocalRunner
from sharding.demo.synthesis import synthesise
from sharding.settings import BuildSettings
from training import cli
from training.reproduce.carrying_out import Work
from training.reproduce.papers import PLANS
from training.reproduce.small import shrink

EVERYWHERE = {"clotho/development", "audiocaps/train", "wavcaps/train", "tacos/development"}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_run_of_a_plan_has_a_recipe_at_both_scales(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]()
    full, small = (Work(plan, tmp_path, "", 3, steps) for steps in (0, 5))
    for run in plan.runs:
        recipe = full.recipe(run, 2, EVERYWHERE)
        assert recipe.seed == 2 and recipe.optimizer.steps is None
        assert small.recipe(run, 2, {"clotho/development"}).optimizer.steps == 5
        assert shrink(recipe, EVERYWHERE, 5).head.name == recipe.head.name
    for system in plan.systems.values():
        assert all(0 < value < 100 for value in system.published.values())
    assert plan.differences


def test_table_1_is_that_of_the_paper(tmp_path: Path) -> None:
    plan = PLANS["calvet-table-1"]()
    assert len(plan.systems) == 14 and sum(len(system.published) for system in plan.systems.values()) == 84
    best = plan.systems["Ensemble of the distilled, all datasets"]
    assert best.published[("text_to_audio_multiple", "mAP@16")] == 46.864 and len(best.runs) == 3
    distilled = Work(plan, tmp_path, "", 1, 0).recipe("token-all-distilled", 0, EVERYWHERE)
    assert distilled.distillation is not None and len(distilled.distillation.teachers) == 3
    assert (distilled.distillation.tau, distilled.distillation.supervised) == (0.05, 1.0)
    assert "wavcaps" not in {item.split.split("/")[0] for item in distilled.data.train}


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["reproduce", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_dry_run_says_what_is_left_how_long_it_takes_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "calvet-table-2", "--out", str(tmp_path), "--dry-run")
    assert found["left"] == 6 and found["runs"][0]["pairs"] == 19195
    least, most = found["hours"]
    assert least < 6 * 19195 * 11 / 60 / 3600 < most
    missing = "\n".join(found["missing"])
    assert "zenodo.org/records/4783391" in missing and "github.com/kkoutini/PaSST" in missing
    assert "give it as --relevance" in missing  # table 2 has figures of the improved captions alone
    assert cli.main(["reproduce", "calvet-table-2", "--out", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 runs are left" in shown and "What differs from the paper" in shown


def test_a_plan_is_carried_out_and_not_done_twice(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["filomeno-table-2", "--out", str(tmp_path / "plan"), "--shards", str(build)]
    words += ["--scale", "small", "--seeds", "2", "--steps", "2", "--set", "data.max_tokens=16"]
    found = answer(capsys, *words)
    ours = found["rows"]["PaSST + attention pooling"]["ours"]
    assert ours["seeds"] == 2 and ours["text_to_audio"]["mAP@10"]["low"] >= 0
    export = tmp_path / "plan/runs/partial/seed-1/export/model.safetensors"
    before = export.stat().st_mtime_ns
    assert answer(capsys, *words)["rows"] == found["rows"] and export.stat().st_mtime_ns == before
    assert answer(capsys, *words, "--dry-run")["left"] == 0
    assert cli.main(["reproduce", *words]) == 0
    shown = capsys.readouterr().out
    assert "35.23" in shown and "say nothing about the methods" in shown


def test_a_plan_needs_a_build_at_full_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "coattention", "--out", str(tmp_path)]) == 2
    assert "--shards OUT" in capsys.readouterr().err


@pytest.mark.slow
def test_table_1_whole_on_a_synthesised_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, shards = tmp_path / "corpus", tmp_path / "shards"
    synthesise(corpus, seed=0, clips=300)
    roots = {name: str(corpus / name) for name in ("clotho", "audiocaps", "wavcaps", "tacos")}
    build_shards(BuildSettings(roots=roots), str(shards), LocalRunner(2))
    words = ["calvet-table-1", "--out", str(tmp_path / "plan"), "--shards", str(shards)]
    words += ["--scale", "small", "--seeds", "1", "--steps", "10"]
    found = answer(capsys, *words)
    assert len(found["rows"]) == 14
    assert all(0 < row["ours"]["text_to_audio"]["mAP@10"]["mean"] < 1 for row in found["rows"].values())
