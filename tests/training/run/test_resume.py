"""Runs that are resumed: after a kill, with damaged checkpoints, by other launchers, on other numbers of ranks."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import (
    REPOSITORY,
    TREE,
    figures,
    kill_ranks,
    lines,
    run_ranks,
    small_recipe,
    write_sounds,
)
from training.config import resolved
from training.engine import checkpoint
from training.engine.distributed import Group
from training.models import hub
from training.run.loop import fit

SOME_OF_ALL = [
    "text.dropout=0.1",
    "audio.dropout=0.1",
    "optimizer.rates={'head.*': 3.0}",
    "optimizer.layer_decay=0.8",
    "engine.ema=0.9",
    "loss.trainable_tau=true",
    "checkpoint.every=2",
]


def test_a_run_starts_where_another_was_killed_while_it_wrote_its_tokenizer(
    build: Path, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(tokenizer: Any, folder: Path, *rest: Any, **more: Any) -> None:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "tokenizer.json").write_text("{")
        raise KeyboardInterrupt

    recipe = small_recipe(["optimizer.steps=1"])
    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", cut_short)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, Manifest.open(build), tmp_path, group)
    assert fit(recipe, Manifest.open(build), tmp_path, group)["steps"] == 1


def test_a_killed_run_resumes_bit_for_bit(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(SOME_OF_ALL)
    fit(recipe, Manifest.open(build), tmp_path / "whole", group)
    run_ranks(1, build, {"killed": SOME_OF_ALL}, tmp_path, die_after=4)
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss"')  # a line that the kill cut short
    assert len(lines_so_far(tmp_path / "killed/metrics.jsonl")) == 4
    assert fit(recipe, Manifest.open(build), tmp_path / "killed", group)["resumed_from"] == 4
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    ends = [checkpoint.load(checkpoint.find(tmp_path / name)) for name in ("whole", "killed")]
    reference, tensors = ({**end.model(), **_flat(end.moments())} for end in ends)
    assert tensors.keys() == reference.keys()
    assert all(torch.equal(tensors[name], reference[name]) for name in reference)


def lines_so_far(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.endswith("}")]


def _flat(moments: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{moment}/{name}": value for moment, named in moments.items() for name, value in named.items()}


def test_a_damaged_checkpoint_is_skipped(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(["checkpoint.every=2", "optimizer.steps=6", "optimizer.warmup_epochs=0"])
    fit(recipe, Manifest.open(build), tmp_path / "run", group)
    before = figures(tmp_path / "run")
    newest = checkpoint.steps(tmp_path / "run/checkpoints")[-1]
    (newest / checkpoint.MODEL).write_bytes(b"broken")
    assert fit(recipe, Manifest.open(build), tmp_path / "run", group)["resumed_from"] == 4
    assert figures(tmp_path / "run") == before


def test_a_run_is_not_resumed_with_another_recipe(build: Path, group: Group, tmp_path: Path) -> None:
    fit(small_recipe(["optimizer.steps=1"]), Manifest.open(build), tmp_path / "run", group)
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.001 -> 0\.01"):
        fit(small_recipe(["optimizer.steps=1", "optimizer.lr=0.01"]), Manifest.open(build), tmp_path / "run", group)


def test_a_run_is_not_resumed_with_a_recipe_that_was_changed_on_both_sides(
    build: Path, group: Group, tmp_path: Path
) -> None:
    fit(small_recipe(["optimizer.steps=1"]), Manifest.open(build), tmp_path / "run", group)
    changed = small_recipe(["optimizer.steps=1", "optimizer.lr=0.01"])
    (tmp_path / "run/recipe.yaml").write_text(resolved.dump(changed))
    with pytest.raises(InputError, match="recipe was changed after this checkpoint"):
        fit(changed, Manifest.open(build), tmp_path / "run", group)


def test_a_run_is_not_resumed_on_another_build(build: Path, group: Group, tmp_path: Path) -> None:
    write_sounds(tmp_path / "build", clips=30)
    recipe = small_recipe(["optimizer.steps=2"])
    fit(recipe, Manifest.open(build), tmp_path / "run", group)
    with pytest.raises(InputError, match="started on other data"):
        fit(recipe, Manifest.open(tmp_path / "build"), tmp_path / "run", group)


def test_a_run_without_checkpoints_leaves_no_tokenizer_to_the_next_one(
    build: Path, group: Group, tmp_path: Path
) -> None:
    for vocabulary in (280, 270):
        fit(small_recipe(["optimizer.steps=1", f"text.vocabulary={vocabulary}"]), Manifest.open(build), tmp_path, group)
        assert len(hub.open_model(tmp_path).tokenizer) == vocabulary
        shutil.rmtree(tmp_path / "checkpoints")  # as if killed before its first checkpoint
        shutil.rmtree(tmp_path / "export")


def test_a_folder_with_an_export_alone_starts_no_other_run(build: Path, group: Group, tmp_path: Path) -> None:
    fit(small_recipe(["optimizer.steps=1"]), Manifest.open(build), tmp_path, group)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(InputError, match="not the checkpoints that it came from"):
        fit(small_recipe(["optimizer.steps=1", "seed=9"]), Manifest.open(build), tmp_path, group)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(["optimizer.steps=1"])
    fit(recipe, Manifest.open(build), tmp_path, group)
    state = checkpoint.steps(tmp_path / "checkpoints")[0] / checkpoint.STATE
    state.write_text(state.read_text().replace('"step": 1', '"step": 0'))
    with pytest.raises(InputError, match=r"every checkpoint of the run is damaged.*state\.json"):
        fit(recipe, Manifest.open(build), tmp_path, group)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_launcher_gives_the_same_numbers(build: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TREE))
    launchers = {
        "one process": ["-m"],
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "--"],
        "deepspeed": ["-m", "deepspeed.launcher.runner", "--num_gpus=2", "--master_port=29511", "--module"],
    }
    for name, launcher in launchers.items():
        command = [sys.executable, *launcher, "training", "fit", str(recipe), "--shards", str(build)]
        done = subprocess.run(
            [*command, "--run", str(tmp_path / name), "--set", "optimizer.steps=5", "--set", "text.dropout=0.2"],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert figures(tmp_path / "deepspeed") == figures(tmp_path / "torchrun")
    for one, other in zip(figures(tmp_path / "one process"), figures(tmp_path / "torchrun"), strict=True):
        assert other["batch"] == one["batch"]
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_resumes_under_any_other_topology(build: Path, tmp_path: Path) -> None:
    calm = [*SOME_OF_ALL, "validation.split=clotho/evaluation", "validation.every=8", "validation.batch=2"]
    run_ranks(1, build, {"whole": calm}, tmp_path)
    reference = figures(tmp_path / "whole")
    for before, after in (((1, 1), (3, 2)), ((2, 3), (1, 0)), ((2, 2), (2, 3))):
        name = f"{before} to {after}"
        run_ranks(before[0], build, {name: [*calm, f"engine.zero={before[1]}"]}, tmp_path, die_after=4)
        assert len(lines(tmp_path / name)) == 4
        run_ranks(after[0], build, {name: [*calm, f"engine.zero={after[1]}"]}, tmp_path)
        for one, other in zip(reference, figures(tmp_path / name), strict=True):
            assert (other["step"], other["batch"], other["lr"]) == (one["step"], one["batch"], one["lr"])
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-5), name
        validations = [lines(tmp_path / run)[-1]["validation"] for run in ("whole", name)]
        assert validations[1] == pytest.approx(validations[0], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment(build: Path, tmp_path: Path) -> None:
    """The kill comes at any moment, also while a checkpoint is written."""

    steps = ["checkpoint.every=1", *SOME_OF_ALL[:-1]]
    run_ranks(2, build, {"whole": steps}, tmp_path)
    draw = np.random.default_rng(0)
    log = tmp_path / "killed/metrics.jsonl"
    for goal in (1, 4, 6):
        pause = float(draw.uniform(0, 0.3))

        def soon_after(goal: int = goal, pause: float = pause) -> None:
            deadline = time.monotonic() + 300
            while not (log.is_file() and len(lines_so_far(log)) >= goal):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(pause)

        kill_ranks(2, build, {"killed": steps}, tmp_path, soon_after)
    run_ranks(2, build, {"killed": steps}, tmp_path)
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    assert all(math.isfinite(line["loss"]) for line in figures(tmp_path / "killed"))
