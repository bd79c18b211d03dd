"""Distillation: teachers from stored vectors and from models that are run, through whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.training.models.test_hub import ENCODER
from tests.training.small_runs import figures, lines, run_ranks, small_recipe
from training.commands import teach
from training.data.batch import Batch
from training.data.captions import tokenise
from training.data.loader import Loader
from training.data.sampling.order import Order
from training.data.sound.features import AudioInput
from training.engine.distributed import Group
from training.evaluation.scores.writing import ScoringSettings, write_scores
from training.models.hub import load
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.tiled import score_all
from training.run.loop import fit
from training.tasks.retrieval import AUDIO, TEXT, RetrievalTask, make_task
from training.tasks.teacher_vectors import write_teacher
from training.tasks.teachers import StoredTeacher

STEPS = ["optimizer.steps=6", "optimizer.warmup_epochs=0", "data.masking.time_masks=0", "data.masking.freq_masks=0"]

LEARN = ["optimizer.epochs=30", "optimizer.lr=5e-3", "data.masking.time_masks=0", "audio.patchout_freq=0"]


@pytest.fixture(scope="module")
def taught(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small trained model's export, and the folder with its vectors."""
    folder = tmp_path_factory.mktemp("taught")
    fit(small_recipe([*LEARN, "seed=5"]), Manifest.open(build), folder / "run", group)
    write_teacher(load(folder / "run/export"), Manifest.open(build), None, Storage(folder / "vectors"))
    return folder / "run/export", folder / "vectors"


def first_batch(build: Path, *overrides: str) -> tuple[RetrievalTask, Batch]:
    recipe = small_recipe([*STEPS, "data.crop=start", *overrides])
    manifest = Manifest.open(build)
    task = make_task(recipe, manifest)
    order = Order(manifest.table, recipe.data, 0)
    audio = AudioInput.of(task.model.audio)
    loader = Loader(manifest, order, recipe.data, audio, task.model.text.tokenizer, train=False)
    return task, next(loader.epoch(0))


def test_stored_vectors_are_those_of_the_model(build: Path, taught: tuple[Path, Path]) -> None:
    export, vectors = taught
    task, batch = first_batch(build, f"distillation.teachers=[{export}, {vectors}]")
    sides = task.fixed_sides(batch)
    for name in (TEXT, AUDIO):
        model, stored = (sides[f"teacher {number} {name}"].side[0] for number in (0, 1))
        torch.testing.assert_close(model, stored, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def scored(build: Path, taught: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of the small model on what the students are trained on."""
    folder = tmp_path_factory.mktemp("scored") / "scores"
    write_scores(load(taught[0]), Manifest.open(build), ScoringSettings("m", "clotho/development", 4), str(folder))
    return folder


def test_stored_scores_are_those_of_stored_vectors(build: Path, taught: tuple[Path, Path], scored: Path) -> None:
    task, batch = first_batch(build, f"distillation.teachers=[{taught[1]}, {scored}]")
    sides = task.fixed_sides(batch)
    found = []
    for number, teacher in enumerate(task.terms()["distillation"].teachers):
        text, audio = (sides[f"teacher {number} {name}"].side for name in (TEXT, AUDIO))
        found.append(teacher.scorer.pair_scores(text, audio, ()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_clip_without_a_score_is_named(build: Path, taught: tuple[Path, Path], tmp_path: Path) -> None:
    settings = ScoringSettings("m", "clotho/evaluation", 4)
    write_scores(load(taught[0]), Manifest.open(build), settings, str(tmp_path / "few"))
    task, batch = first_batch(build, f"distillation.teachers=[{tmp_path / 'few'}]")
    with pytest.raises(InputError, match="no score of a"):
        task.fixed_sides(batch)


def test_distillation_alone_brings_the_scores_of_the_student_to_those_of_the_teacher(
    build: Path, group: Group, taught: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = small_recipe([*LEARN, f"distillation.teachers=[{taught[1]}]", "distillation.supervised=0"])
    fit(recipe, Manifest.open(build), tmp_path, group)
    log = lines(tmp_path)
    assert log[0]["loss_parts"].keys() == {"distillation"}
    assert log[0]["loss"] == pytest.approx(log[0]["loss_parts"]["distillation"])
    untrained, batch = first_batch(build)
    teacher = load(taught[0]).model
    correlations = []
    for model in (untrained.model.eval(), load(tmp_path / "export").model):
        scores = [pair_scores(of, batch) for of in (teacher, model)]
        correlations.append(float(np.corrcoef(*scores)[0, 1]))
    assert correlations[1] > 0.8 > correlations[0]


def pair_scores(model: RetrievalModel, batch: Batch) -> np.ndarray:
    """The scores of all pairs of a batch."""
    with torch.no_grad():
        tokens, mask = tokenise(model.text.tokenizer, batch.texts, small_recipe().data)
        text, audio = model.text_side(tokens, mask), model.audio_side(batch.features, batch.frames, batch.seeds)
        return score_all(model.head, text, audio).numpy().ravel()


def test_two_ranks_in_chunks_and_a_resume_distil_like_one(
    build: Path, taught: tuple[Path, Path], scored: Path, tmp_path: Path
) -> None:
    common = [*STEPS, f"distillation.teachers=[{taught[0]}, {taught[1]}, {scored}]", "distillation.weight=0.5"]
    runs = {"plain": common, "chunks": [*common, "engine.chunk=2", "engine.zero=2"]}
    for ranks in (1, 2):
        run_ranks(ranks, build, {f"{name} {ranks}": run for name, run in runs.items()}, tmp_path)
    expected = lines(tmp_path / "plain 1")
    assert expected[0]["loss_parts"].keys() == {"distillation", "ntxent"}
    parts = expected[0]["loss_parts"]
    assert expected[0]["loss"] == pytest.approx(0.5 * parts["distillation"] + parts["ntxent"])
    for name in ("chunks 1", "plain 2", "chunks 2"):
        found = lines(tmp_path / name)
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-4), name
        assert [line["batch"] for line in found] == [line["batch"] for line in expected]


def test_a_killed_distillation_goes_on_with_the_same_losses(
    build: Path, group: Group, taught: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = small_recipe([*STEPS, f"distillation.teachers=[{taught[1]}]", "checkpoint.every=2"])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(recipe, Manifest.open(build), whole, group)

    class Killed(Exception):
        pass

    def kill(state: dict) -> None:
        if state["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        fit(recipe, Manifest.open(build), parts, group, kill)
    fit(recipe, Manifest.open(build), parts, group)
    assert figures(parts) == figures(whole)


def test_a_clip_without_a_vector_is_named(build: Path, taught: tuple[Path, Path], tmp_path: Path) -> None:
    write_teacher(load(taught[0]), Manifest.open(build), ["clotho/evaluation"], Storage(tmp_path / "few"))
    task, batch = first_batch(build, f"distillation.teachers=[{tmp_path / 'few'}]")
    with pytest.raises(InputError, match="no vector of a") as caught:
        task.fixed_sides(batch)
    assert "teach MODEL" in str(caught.value.remedy)


def test_a_teacher_that_hears_otherwise_must_be_stored(build: Path, taught: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="a teacher hears"):
        recipe = small_recipe([f"distillation.teachers=[{taught[0]}]", "audio.segment_s=0.5"])
        make_task(recipe, Manifest.open(build))


def test_a_teacher_with_code_of_its_own_runs_only_if_it_is_trusted(
    build: Path, group: Group, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "mine.py"
    code.write_text(ENCODER)
    own = [f"audio={{encoder: {code}:Mine}}", "optimizer.steps=1", "optimizer.warmup_epochs=0"]
    fit(small_recipe(own), Manifest.open(build), tmp_path / "teacher", group)
    recipe = small_recipe([*own, f"distillation.teachers=[{tmp_path / 'teacher/export'}]"])
    with pytest.raises(InputError, match="--trust-code"):
        make_task(recipe, Manifest.open(build))
    make_task(recipe, Manifest.open(build), trust_code=True)
    assert "running the code of the audio encoder" in capsys.readouterr().err


def test_the_command_writes_a_teacher(build: Path, taught: tuple[Path, Path], tmp_path: Path) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    teach.add_arguments(parser)
    words = [str(taught[0]), "--shards", str(build), "--split", "clotho/development", "--out", str(tmp_path / "out")]
    result = teach.run(parser.parse_args(words))
    assert result["clips"] == 24 and "24 clips" in teach.show(result)
    recipe = small_recipe()
    assert StoredTeacher(Storage(tmp_path / "out"), recipe.data).scorer is not None
