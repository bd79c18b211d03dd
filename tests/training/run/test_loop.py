from __future__ import annotations

import dataclasses
import gc
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import SOUNDS, figures, lines, run_ranks, small_recipe, sound
from training import cli
from training.data import DataSettings, MixtureItem, Order, ShuffleSettings
from training.engine import checkpoint
from training.engine.distributed import Group
from training.engine.step import Engine, all_or_nothing
from training.evaluation.encoding import side_encoder
from training.evaluation.run import EvaluationSettings, evaluate
from training.models import hub
from training.models.retrieval import RetrievalModel
from training.run.loop import fit


@pytest.fixture(scope="module")
def learned(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns six kinds of sound."""
    folder = tmp_path_factory.mktemp("run") / "learned"
    overrides = ["optimizer.epochs=30", "optimizer.lr=5e-3", "validation.split=clotho/evaluation"]
    overrides += ["validation.every=40", "checkpoint.every=40", "data.masking.time_masks=0", "audio.patchout_freq=0"]
    fit(small_recipe(overrides), Manifest.open(build), folder, group)
    return folder


def test_a_run_learns_and_logs(learned: Path) -> None:
    log = lines(learned)
    assert [line["step"] for line in log] == list(range(120))
    assert all(line["applied"] and 0 <= line["data_wait"] <= 1 and line["clips_per_s"] > 0 for line in log)
    assert {"alignment", "uniformity", "tau"} <= log[0].keys()
    last = log[-1]["validation"]
    assert last["text_to_audio/mAP@10"] > 1.5 * last["text_to_audio/chance_mAP@10"]
    kept = [path.name for path in checkpoint.steps(learned / "checkpoints")]
    assert kept[-2:] == ["step-000000080", "step-000000120"]


def test_an_export_loads_in_one_call_and_knows_the_sounds(learned: Path) -> None:
    retriever = hub.load(learned / "export")
    draw = np.random.default_rng(5)
    waves = [torch.from_numpy(sound(kind, 1.5, draw).astype(np.float32)) for kind in range(len(SOUNDS))]
    sides = [retriever.encode_wave(wave)[0] for wave in waves]
    scores = retriever.score(retriever.encode_texts([f"A {name} is heard!" for name in SOUNDS]), (torch.cat(sides),))
    assert scores.shape == (6, 6)
    assert (scores.argmax(1) == torch.arange(6)).sum() >= 3
    assert "clotho/development" in (learned / "export/README.md").read_text()


def test_an_export_is_the_best_checkpoint(learned: Path) -> None:
    log = {
        line["step"] + 1: line["validation"]["text_to_audio/mAP@10"] for line in lines(learned) if "validation" in line
    }
    config = json.loads((learned / "export/config.json").read_text())
    assert log[config["step"]] == max(log.values())
    best = hub.open_checkpoint(checkpoint.load(learned / f"checkpoints/step-{config['step']:09d}"))
    exported = hub.load(learned / "export")
    for name, value in exported.model.state_dict().items():
        assert torch.equal(value, best.model.state_dict()[name]), name


def test_a_validated_step_is_saved_whenever_checkpoints_are_due(build: Path, group: Group, tmp_path: Path) -> None:
    overrides = ["optimizer.steps=5", "checkpoint.every=4", "checkpoint.keep_last=9", "checkpoint.keep_best=9"]
    overrides += ["validation.split=clotho/evaluation", "validation.every=3"]
    fit(small_recipe(overrides), Manifest.open(build), tmp_path, group)
    found = {one.step: bool(one.state["validation"]) for one in map(checkpoint.load, _checkpoints(tmp_path))}
    assert found == {3: True, 4: False, 5: True}


def _checkpoints(run: Path) -> list[Path]:
    return checkpoint.steps(run / "checkpoints")


def test_an_export_that_is_killed_while_it_replaces_one_leaves_a_whole_one(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, last = tmp_path / "export", checkpoint.load(checkpoint.find(learned))
    hub.save(last, target)
    remove = shutil.rmtree

    def killed(folder: Path, **options: Any) -> None:
        if Path(folder).exists():
            (Path(folder) / "model.safetensors").unlink(missing_ok=True)
            raise KeyboardInterrupt
        remove(folder, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.models.hub.shutil.rmtree", killed)
        hub.save(last, target)
    hub.load(target)
    hub.save(last, target)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_wave_that_is_no_recording_is_refused(learned: Path) -> None:
    retriever = hub.load(learned / "export")
    for wave in (np.zeros((2, 100)), np.full(100, np.nan), np.zeros(100, np.int16)):
        with pytest.raises(InputError, match="one row of finite"):
            retriever.encode_wave(wave)
    (vector,) = retriever.encode_wave(np.zeros(100))
    assert vector.isfinite().all()


def test_evaluation_repeats_the_validation_in_training(learned: Path, build: Path, group: Group) -> None:
    retriever = hub.open_model(learned)
    result = evaluate(
        side_encoder(retriever.model, retriever.recipe.data, torch.device("cpu")),
        Manifest.open(build),
        EvaluationSettings(
            "clotho/evaluation", relevance={"A whistle is heard.": {"clip 1001.x.wav": 1.0, "clip 1007.x.wav": 1.0}}
        ),
        group,
    )
    validation = json.loads((learned / "export/config.json").read_text())["validation"]
    for direction in ("text_to_audio", "audio_to_text"):
        for name, value in result[direction].items():
            assert value == pytest.approx(validation[f"{direction}/{name}"]), (direction, name)
    assert (result["clips"], result["captions"], result["queries"]) == (9, 18, 1)
    assert result["text_to_audio_multiple"]["chance_R@1"] == pytest.approx(2 / 9)


def test_vectors_of_clips_make_batches_of_neighbours(learned: Path, build: Path, tmp_path: Path) -> None:
    file = tmp_path / "clips.parquet"
    assert cli.main(["embed", str(learned / "export"), "--shards", str(build), "--out", str(file), "--json"]) == 0
    table = Manifest.open(build).table
    shuffle = ShuffleSettings(batches="neighbours", neighbours=str(file))
    settings = DataSettings(train=(MixtureItem("clotho/development"),), batch_size=6, shuffle=shuffle)
    order = Order(table, settings, 0)
    assert len({key for step in range(4) for key in order.batch(0, step).keys}) == 24
    file.write_text("no Parquet")
    with pytest.raises(InputError, match="earshot embed"):
        Order(table, settings, 0)


def test_a_step_that_is_not_finite_stops_the_run_or_is_skipped(build: Path, group: Group, tmp_path: Path) -> None:
    wild = ["optimizer.name=sgd", "optimizer.clip=0", "optimizer.lr=1e36", "optimizer.warmup_epochs=0"]
    with pytest.raises(InputError, match="not finite"):
        fit(small_recipe([*wild, "engine.zero=0"]), Manifest.open(build), tmp_path / "stop", group)
    culprit = json.loads((tmp_path / "stop/nonfinite.jsonl").read_text().splitlines()[0])
    assert len(culprit["keys"]) == 6
    for zero in (0, 1, 3):
        folder = tmp_path / f"skip{zero}"
        skip = [*wild, "engine.nonfinite=skip", "engine.max_skipped=1", f"engine.zero={zero}"]
        done = fit(small_recipe(skip), Manifest.open(build), folder, group)
        log = lines(folder)
        assert len(log) == 8
        assert not log[-1]["applied"]
        state = checkpoint.load(checkpoint.find(folder)).state
        assert state["updates"] == sum(line["applied"] for line in log) == 8 - done["skipped"]


def test_a_run_that_skips_too_many_steps_fails(build: Path, group: Group, tmp_path: Path) -> None:
    wild = ["optimizer.name=sgd", "optimizer.clip=0", "optimizer.lr=1e36", "optimizer.warmup_epochs=0"]
    with pytest.raises(InputError, match=r"of 4 steps were skipped because they were not finite"):
        fit(small_recipe([*wild, "engine.nonfinite=skip"]), Manifest.open(build), tmp_path, group)
    assert not (tmp_path / "export").exists()


def test_a_folder_that_vanishes_stops_the_run(build: Path, group: Group, tmp_path: Path) -> None:
    def remove(state: dict[str, Any]) -> None:
        shutil.rmtree(tmp_path / "run")

    recipe = small_recipe(["checkpoint.every=2"])
    with pytest.raises(InputError, match="the run's folder has vanished"):
        fit(recipe, Manifest.open(build), tmp_path / "run", group, remove)
    assert not (tmp_path / "run").exists(), "nothing makes it again"


def test_freezing_by_name_and_by_depth(build: Path, group: Group, tmp_path: Path) -> None:
    recipe = small_recipe(["optimizer.steps=2", "optimizer.freeze=['text.*']", "optimizer.freeze_below={audio: 1}"])
    first, second = tmp_path / "first", tmp_path / "second"
    fit(recipe, Manifest.open(build), second, group)
    fit(
        small_recipe(["optimizer.steps=1", "optimizer.lr=1e-30", "optimizer.final_lr=0"]),
        Manifest.open(build),
        first,
        group,
    )
    before, after = (checkpoint.load(checkpoint.find(folder)).model() for folder in (first, second))
    moved = {name for name, value in after.items() if not torch.allclose(value, before[name], atol=1e-12)}
    assert moved and all(name.startswith(("audio.net.blocks.1.", "audio.net.norm", "head.")) for name in moved)
    with pytest.raises(InputError, match="no parameter has such a name"):
        fit(small_recipe(["optimizer.freeze=['txt.*']"]), Manifest.open(build), tmp_path / "third", group)


def test_the_averaged_weights_are_exported(build: Path, group: Group, tmp_path: Path) -> None:
    fit(small_recipe(["optimizer.steps=3", "engine.ema=0.5"]), Manifest.open(build), tmp_path, group)
    found = checkpoint.load(checkpoint.find(tmp_path))
    average = found.moments()["average"]
    exported = hub.load(tmp_path / "export").model.state_dict()
    name = "head.audio_projection.weight"
    assert torch.equal(exported[name], average[name])
    assert not torch.equal(exported[name], found.model()[name])


def test_how_a_step_is_computed_changes_nothing(build: Path, group: Group, tmp_path: Path) -> None:
    """Dropout, patchout and masks included: they belong to the sample."""
    noisy = ["text.dropout=0.3", "audio.dropout=0.3", "optimizer.steps=3", "optimizer.clip=0", "data.batch_size=7"]
    ways = {
        "plain": [],
        "cached": ["engine.chunk=2"],
        "recomputed": ["engine.activation_checkpointing=true", "engine.chunk=5"],
        "on the device": ["data.spectrogram=device"],
        "by workers": ["data.workers=1", "engine.zero=0"],
    }
    for name, more in ways.items():
        fit(small_recipe(noisy + more), Manifest.open(build), tmp_path / name, group)
    fit(small_recipe([*noisy, "text.dropout=0.0"]), Manifest.open(build), tmp_path / "less noisy", group)
    plain = figures(tmp_path / "plain")
    for name in ways:
        for one, other in zip(plain, figures(tmp_path / name), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-5), name
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4), name
    assert figures(tmp_path / "less noisy")[0]["loss"] != pytest.approx(plain[0]["loss"], abs=1e-3)


def test_bf16_stays_near_float32_at_every_stage(build: Path, group: Group, tmp_path: Path) -> None:
    calm = ["optimizer.steps=3", "optimizer.warmup_epochs=0", "optimizer.lr=1e-4", "engine.nonfinite=stop"]
    fit(small_recipe(calm), Manifest.open(build), tmp_path / "fp32", group)
    for zero in range(4):
        overrides = [*calm, "engine.dtype=bf16", f"engine.zero={zero}", f"engine.chunk={2 * (zero % 2)}"]
        fit(small_recipe(overrides), Manifest.open(build), tmp_path / f"{zero}", group)
        for one, other in zip(lines(tmp_path / "fp32"), lines(tmp_path / f"{zero}"), strict=True):
            assert other["loss"] != one["loss"]
            assert other["loss"] == pytest.approx(one["loss"], rel=0.02)
        weights = checkpoint.load(checkpoint.find(tmp_path / f"{zero}")).model()
        assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())


def test_a_run_at_stage_3_does_not_change_torch(build: Path, group: Group, tmp_path: Path) -> None:
    """DeepSpeed has a linear function of its own there; runs that came after it in a process rounded otherwise."""
    linear = torch.nn.functional.linear
    gc.collect()
    before = sum(isinstance(each, RetrievalModel) for each in gc.get_objects())
    fit(small_recipe(["engine.zero=3", "optimizer.steps=1"]), Manifest.open(build), tmp_path, group)
    assert torch.nn.functional.linear is linear
    gc.collect()
    assert sum(isinstance(each, RetrievalModel) for each in gc.get_objects()) <= before  # and it kept the model


def test_a_temperature_alone_is_trained_in_chunks_as_at_once(build: Path, group: Group, tmp_path: Path) -> None:
    alone = ["loss.trainable_tau=true", "optimizer.freeze=[audio.*, text.*, head.*]", "optimizer.steps=3"]
    for zero in range(4):
        for chunk in (0, 2):
            overrides = [*alone, f"engine.zero={zero}", f"engine.chunk={chunk}", "optimizer.lr=1e-2"]
            fit(small_recipe(overrides), Manifest.open(build), tmp_path / f"{zero}-{chunk}", group)
        plain, cached = lines(tmp_path / f"{zero}-0"), lines(tmp_path / f"{zero}-2")
        assert [line["loss"] for line in cached] == pytest.approx([line["loss"] for line in plain], rel=1e-5)
        assert [line["grad_norm"] for line in cached] == pytest.approx([line["grad_norm"] for line in plain], rel=1e-4)
        assert all(line["grad_norm"] > 0 for line in plain)


def test_weights_that_are_not_finite_are_not_saved(
    build: Path, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Engine.step

    def poisoned(engine: Engine, batch: Any) -> Any:
        found = take_step(engine, batch)
        if engine.steps_taken == 3:
            engine.trained()[0].data.view(-1)[0] = math.nan
        return found

    monkeypatch.setattr(Engine, "step", poisoned)
    recipe = small_recipe(["checkpoint.every=1", "optimizer.steps=4"])
    with pytest.raises(InputError, match="1 parameters are not finite after 3 steps"):
        fit(recipe, Manifest.open(build), tmp_path, group)
    assert checkpoint.find(tmp_path).name == "step-000000002"


def test_a_loss_that_is_not_finite_moves_nothing_even_with_a_finite_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    loss = (x * torch.tensor([1.0, 1.0, 1.0])).sum() + math.inf
    all_or_nothing(loss, float(loss.detach())).backward()
    assert x.grad is not None and x.grad.isnan().all()


def test_a_held_out_clip_without_words_is_refused_before_training(build: Path, group: Group, tmp_path: Path) -> None:
    manifest = Manifest.open(build)
    rows = manifest.table.to_pylist()
    held_out = next(row for row in rows if row["split"] == "evaluation")
    for caption in held_out["captions"]:
        caption["text"] = "..."
    manifest = dataclasses.replace(manifest, table=pa.Table.from_pylist(rows, manifest.table.schema))
    with pytest.raises(InputError, match="no caption to be found by"):
        fit(small_recipe(["validation.split=clotho/evaluation"]), manifest, tmp_path / "run", group)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_cannot_work_is_refused_before_training(build: Path, group: Group, tmp_path: Path) -> None:
    for number, (override, message) in enumerate(
        (
            ("validation.split=clotho/evalution", "clotho/evaluation"),
            ("validation.split=clotho/development", "validation.split is trained on"),
            ("log.wandb=earshot", "pip install wandb"),
            ("data.batch_size=25", "lower batch_size"),
        )
    ):
        with pytest.raises(InputError, match=message):
            fit(small_recipe([override]), Manifest.open(build), tmp_path / str(number), group)


APART = """
import sys

sys.modules |= {"deepspeed": None, "ray": None}  # as if they were not installed
import torch
from training.models.hub import load

retriever = load(sys.argv[1])
side = retriever.encode_wave(torch.zeros(retriever.audio_input.rate))
print(retriever.score(retriever.encode_texts(["a hiss"]), side).shape)
"""


def test_an_export_needs_neither_deepspeed_nor_ray(learned: Path) -> None:
    command = [sys.executable, "-c", APART, str(learned / "export")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "torch.Size([1, 1])", done.stderr


@pytest.mark.slow
def test_damaged_samples_of_every_rank_are_counted(build: Path, tmp_path: Path) -> None:
    broken = tmp_path / "build"
    shutil.copytree(build, broken)
    table = Manifest.open(build).table.slice(0, 1).to_pylist()[0]
    with (broken / "shards" / table["shard"]).open("r+b") as file:
        file.seek(table["audio_offset"])
        file.write(bytes(table["audio_bytes"]))
    # 24 draws an epoch, of which each rank has one half: the clip is drawn once in each of two epochs
    run_ranks(2, broken, {"run": ["data.max_failures=2"]}, tmp_path)
    assert [line["damaged"] for line in lines(tmp_path / "run")][-1] == 2
