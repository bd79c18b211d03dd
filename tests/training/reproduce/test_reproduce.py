"""Plans of papers: complete, listed without running, carried out once, and shown beside the published figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from sharding.build.run import build as build_shards
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.demo.synthesis import synthesise
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe, write_sounds
from training import cli
from training.engine.distributed import Group
from training.reproduce.carrying_out import Work, carry_out
from training.reproduce.needs import pairs_of
from training.reproduce.papers import PLANS
from training.reproduce.plotting import write_curves
from training.reproduce.small import shrink
from training.tasks.retrieval import assemble

EVERYWHERE = {
    "clotho/development",
    "audiocaps/train",
    "wavcaps/train",
    "tacos/development",
    "audioset/unbalanced_train",
}
EVERYWHERE |= {"audioset/balanced_train", "fsd50k/train", *(f"tut/fold{fold}" for fold in range(1, 5))}
EVERYWHERE |= {f"{name}/fold{fold}" for name in ("esc50", "urbansound8k") for fold in range(1, 11)}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_run_of_a_plan_has_a_recipe_at_both_scales(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]()
    full, small = (Work(plan, tmp_path, "", 3, steps) for steps in (0, 5))
    for run in plan.runs:
        recipe = full.recipe(run, 2, EVERYWHERE)
        assert recipe.seed == 2 and recipe.optimizer.steps is None
        assert small.recipe(run, 2, EVERYWHERE).optimizer.steps == 5
        assert shrink(recipe, EVERYWHERE, 5).head == recipe.head or recipe.head is not None
    for system in plan.systems.values():
        assert all(0 < value < 100 for value in system.published.values())
    assert all(0 < cell.published < 100 for row in plan.rows.values() for cell in row.values() if cell.published)
    assert plan.differences and bool(plan.systems) != bool(plan.rows)


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


def test_the_scaling_study_trains_two_sizes_on_parts_of_the_data_for_as_many_steps(tmp_path: Path) -> None:
    plan = PLANS["aurola-scaling"]()
    work = Work(plan, tmp_path, "", 1, 0)
    recipes = {name: work.recipe(name, 0, EVERYWHERE) for name in plan.runs}
    assert {recipe.text.source for recipe in recipes.values()} == {f"Qwen/Qwen2.5-Omni-{size}" for size in ("3B", "7B")}
    shares = {name: {item.share for item in recipe.data.train} for name, recipe in recipes.items()}
    assert shares["3B-1"] == {0.01} and shares["7B-10"] == {0.1} and shares["7B-100"] == {1.0}
    pairs = {name: pairs_of(recipe, None) for name, recipe in recipes.items()}
    assert len(set(pairs.values())) == 1 and set(plan.curve) == set(plan.systems)


def test_curves_are_drawn_of_plans_that_have_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = PLANS["aurola-scaling"]()
    figure = {"mean": 0.4, "least": 0.3, "most": 0.5}
    equal = {"mean": 0.3, "least": 0.1 + 0.2, "most": 0.3}  # seeds whose mean is rounded
    rows = {label: {"ours": {"text_to_audio": {"R@1": figure, "mAP@10": equal}}} for label in plan.curve}
    write_curves(rows, plan.curve, plan.axis, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends in \.png"):
        write_curves(rows, plan.curve, plan.axis, tmp_path / "curves.xyz")
    words = ["reproduce", "coattention", "--out", str(tmp_path), "--plot", "x.png", "--dry-run"]
    assert cli.main(words) == 2
    assert "aurola-scaling" in capsys.readouterr().err


@pytest.mark.slow
def test_the_scaling_study_is_carried_out_and_drawn(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "aurola-scaling",
        "--out",
        str(tmp_path / "plan"),
        "--shards",
        str(build),
        "--plot",
        str(tmp_path / "p.svg"),
    ]
    found = answer(capsys, *words, "--scale", "small", "--seeds", "1", "--steps", "2", "--set", "data.max_tokens=16")
    assert len(found["rows"]) == 6 and "<svg" in (tmp_path / "p.svg").read_text()


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
    shutil.rmtree(tmp_path / "plan/scores/partial/seed-1")  # as if it had been killed while this run was scored
    assert answer(capsys, *words)["rows"] == found["rows"] and export.stat().st_mtime_ns == before
    assert cli.main(["reproduce", *words]) == 0
    shown = capsys.readouterr().out
    assert "35.23" in shown and "say nothing about the methods" in shown


def test_the_loss_terms_of_collat_are_those_of_the_paper(tmp_path: Path) -> None:
    plan = PLANS["collat-table-3"]()
    work = Work(plan, tmp_path, "", 1, 0)
    weights = {
        name: (task.token_weight, task.global_weight, task.noise_weight)
        for name in plan.runs
        for task in [work.recipe(name, 0, EVERYWHERE).task]
    }
    assert weights == {
        "CoLLAT": (1.0, 0.1, 0.01),
        "(-) L_cross-token": (0.0, 0.1, 0.01),
        "(-) L_uni-token": (1.0, 0.1, 0.0),
        "(-) L_cross-global": (1.0, 0.0, 0.01),
    }
    assert plan.rows["(-) L_cross-token"]["FSD50K noisy"].published == 11.0


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with the splits of AudioSet and ESC-50 that CoLLAT's plans ask for."""
    root = tmp_path_factory.mktemp("labelled")
    splits = {"audioset/unbalanced_train": 12, "esc50/fold4": 6, "esc50/fold5": 12}
    splits |= {"audiocaps/train": 6, "audiocaps/test": 6}
    write_sounds(root, splits=splits, labels=True)
    return root


def test_a_table_of_tests_is_filled_in_as_far_as_the_build_allows(labelled: Path, group: Group, tmp_path: Path) -> None:
    whole = PLANS["collat-table-3"]()
    plan = replace(whole, **{name: {"CoLLAT": getattr(whole, name)["CoLLAT"]} for name in ("runs", "rows")})
    work, manifest = Work(plan, tmp_path, str(labelled), 1, 1), Manifest.open(str(labelled))
    cells = carry_out(work, manifest, group, None)["cells"]["CoLLAT"]
    assert 0 < cells["ESC-50 clean"]["mean"] <= 100 and cells["ESC-50 clean"]["published"] == 84.0
    assert "mean" in cells["ESC-50 noisy"] and "mean" in cells["AudioCaps text to sound (mAP@10)"]
    assert cells["FSD50K clean"]["skipped"] == "fsd50k/eval is not in the build"
    assert "vggsound/test" in cells["VGGSound sound to image (MRR)"]["skipped"]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    assert carry_out(work, manifest, group, None)["cells"]["CoLLAT"] == cells
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["collat-table-2", "collat-table-3", "collat-table-4", "collat-figure-2b"])
def test_plans_of_collat_are_carried_out(
    name: str, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [name, "--out", str(tmp_path / "plan"), "--shards", str(labelled)]
    words += ["--scale", "small", "--seeds", "1", "--steps", "1"]
    found = answer(capsys, *words)
    cells = [cell for row in found["cells"].values() for cell in row.values()]
    if name == "collat-table-2":
        assert found["cells"]["CoLLAT"]["ESC-50 probe"].keys() == {"published", "mean", "least", "most"}
        assert "mean" in found["cells"]["Supervise"]["ESC-50 probe"]
        assert "to train on" in found["cells"]["CoLLAT"]["FSD50K probe"]["skipped"]
    elif name == "collat-table-4":
        assert "mean" in found["cells"]["CoLLAT"]["bleu_1"]
    elif name == "collat-table-3":
        assert all("mean" in row["ESC-50 noisy"] for row in found["cells"].values())
        assert cli.main(["reproduce", *words]) == 0
        shown = capsys.readouterr().out
        assert "ESC-50 noisy" in shown and "not measured: fsd50k/eval" in shown and "say nothing about" in shown
    else:
        assert all(cell["skipped"] == "fsd50k/eval is not in the build" for cell in cells)


def test_a_table_of_tests_needs_something_to_train_on(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collat-figure-4b", "--out", str(tmp_path), "--shards", str(build), "--scale", "small"]
    assert cli.main(["reproduce", *words]) == 2
    assert "audioset/unbalanced_train" in capsys.readouterr().err


def test_a_plan_needs_a_build_at_full_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "coattention", "--out", str(tmp_path)]) == 2
    assert "--shards OUT" in capsys.readouterr().err


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Small encoders of Whisper's and BERT's kinds, as folders of transformers."""
    audio, text = (tmp_path_factory.mktemp("towers") / name for name in ("whisper", "bert"))
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    transformers.WhisperModel(transformers.WhisperConfig(**sizes)).save_pretrained(audio)
    bert = "text={encoder: bert, source: random, width: 16, depth: 1, heads: 2, vocabulary: 280}"
    made = assemble(small_recipe([bert]), ["a dog barks", "rain falls"])[0].text
    made.net.save_pretrained(text)
    made.tokenizer.save_pretrained(text)
    return audio, text


@pytest.mark.parametrize(
    ("plan", "options", "message"),
    [
        ("calvet-table-1", ["--towers", "openai/whisper-tiny.en", "a/b"], "--towers is for --scale small"),
        ("calvet-table-1", ["--scale=small", "--towers", "nowhere", "a/b"], "no such tower"),
        ("calvet-table-1", ["--scale=small", "--towers", "a/b", "./nowhere/b"], "no such tower"),
        ("filomeno-table-1", ["--scale=small", "--towers", "a/b", "c/d"], "the plan is about encoders"),
        ("aurola-scaling", ["--scale=small", "--towers", "a/b", "c/d"], "the plan is about encoders"),
        ("collat-table-3", ["--scale=small", "--towers", "a/b", "c/d"], "a table of tests"),
    ],
)
def test_towers_are_for_plans_of_one_pair_of_encoders(
    plan: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", plan, "--shards", "OUT", "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_heads_of_a_plan_are_trained_on_towers(
    build: Path, towers: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["filomeno-table-2", "--out", str(tmp_path / "plan"), "--shards", str(build), "--scale", "small"]
    words += ["--towers", *map(str, towers), "--seeds", "1", "--steps", "2", "--set", "data.max_tokens=16"]
    assert cli.main(["reproduce", *words]) == 0
    assert "heads on the named towers" in capsys.readouterr().out
    names = {path.name.partition("-")[0] for path in (tmp_path / "plan/stored").iterdir()}
    assert names == {"audio", "text"}, "the vectors of frozen towers are computed once"


def test_a_plan_does_not_go_into_an_object_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "calvet-table-1", "--shards", "OUT", "--out", "s3://bucket/plan"]) == 2
    assert "local folder" in capsys.readouterr().err


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
