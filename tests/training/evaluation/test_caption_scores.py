"""Captions are written by a trained model, compared with those of people, and what is not measured is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe
from training import cli
from training.engine.distributed import Group
from training.evaluation.caption_scores import MEASURES, score_captions
from training.models.hub import load_any
from training.run.loop import fit

pytest.importorskip("aac_metrics")


def test_equal_captions_score_highest_and_nothing_is_skipped_silently() -> None:
    texts = ["a dog barks while rain falls hard", "somebody rings a small bell twice"]
    same = score_captions([text.upper() + "!" for text in texts], [[text, "a sound"] for text in texts])
    other = score_captions(texts[::-1], [[text] for text in texts])
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        assert same.figures[name] == pytest.approx(1.0) and other.figures[name] < 0.3
    assert same.figures["cider_d"] > 3 > other.figures["cider_d"]
    assert set(same.figures) - {"spider"} | set(same.skipped) == set(MEASURES)
    assert all(same.skipped.values())


def test_one_clip_has_no_cider_and_the_reason_is_given() -> None:
    scores = score_captions(["a dog"], [["a dog barks"]])
    assert "cider_d" in scores.skipped and "candidates" in scores.skipped["cider_d"]
    assert 0 < scores.figures["bleu_1"] < 1


def test_a_captioner_is_measured_by_one_command(
    build: Path, group: Group, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "task={name: captioning, width: 16, heads: 2, vocabulary: 280}"
    none = ["text=null", "head=null", "loss=null", "optimizer.freeze=['audio.*']"]
    recipe = small_recipe([task, *none, "optimizer.steps=3", "optimizer.warmup_epochs=0", "log.health=0"])
    fit(recipe, Manifest.open(build), tmp_path, group)
    words = ["caption", str(tmp_path), "--shards", str(build), "--split", "clotho/evaluation"]
    assert cli.main([*words, "--out", str(tmp_path / "captions.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["clips"] == 9 and 0 <= found["figures"]["bleu_1"] <= 1
    with (tmp_path / "captions.csv").open() as file:
        rows = {row["clip_id"]: row["caption"] for row in csv.DictReader(file)}
    assert len(rows) == 9
    assert load_any(tmp_path / "export").recipe.task.name == "captioning"
    assert cli.main([*words[:-1], "clotho/nowhere"]) == 2
