"""`training.Earshot`: a folder opens in one call, and what is published says where it comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import training
from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.models.test_hub import write_run
from training.cli import main
from training.models import hub
from training.models.retriever import Retriever
from training.models.sources import training_sources


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    return hub.save(write_run(run, ["validation.split=clotho/evaluation"]), run / "export")


@pytest.fixture(scope="module")
def published(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that was saved and opened as the hub's own classes do it."""
    folder = tmp_path_factory.mktemp("published") / "model"
    training.Earshot.from_pretrained(export).save_pretrained(folder)
    return folder


def test_a_folder_opens_in_one_call_and_gives_the_same_vectors(export: Path, published: Path) -> None:
    wave, expected = np.sin(np.arange(40000) / 9), hub.load(export)
    for place in (export, export.parent, published):
        model = training.Earshot.from_pretrained(place)
        assert model.rate == 32000
        sounds, texts = model.encode_wave(wave), model.encode_texts(["A dog"])
        assert torch.equal(sounds[0], expected.encode_wave(wave)[0])
        assert torch.equal(model.score(texts, sounds), expected.score(expected.encode_texts(["A dog"]), sounds))


def test_the_card_is_read_by_the_hub_and_gives_figures_with_their_protocol(published: Path) -> None:
    card = ModelCard.load(published / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("a/R@1", 0.5, "clotho/evaluation")
    assert result.metric_args["candidates"] == "every clip of clotho/evaluation"
    assert card.data.library_name == "earshot" and card.data.to_dict()["training_datasets"] == ["clotho/development"]
    assert "Earshot.from_pretrained" in card.text


def test_push_writes_clips_hours_and_licences_of_what_was_trained_on(build: Path, tmp_path: Path) -> None:
    plan = Manifest.open(str(build)).dataset["plan"]
    trained = write_run(tmp_path / "run", [])
    export = hub.save(dataclasses.replace(trained, state=trained.state | {"plan": plan}), tmp_path / "export")
    out = tmp_path / "out"
    leaks = tmp_path / "leaks.yaml"
    leaks.write_text('{"evaluation_clips_in_training": [{"name": "clotho/evaluation", "held_by": {"sound": 0}}]}')
    arguments = ["push", str(export), "--shards", str(build), "--out", str(out), "--licence", "cc-by-4.0"]
    assert main([*arguments, "--leaks", str(leaks)]) == 0
    card = ModelCard.load(out / "README.md")
    (source,) = card.data.to_dict()["training_datasets"]
    assert (source["name"], source["clips"]) == ("clotho/development", 24) and source["hours"] > 0
    assert sum(source["licences"].values()) == 24 and card.data.license == "cc-by-4.0"
    assert "| clotho/development | 24 |" in card.text
    assert card.data.to_dict()["evaluation_clips_in_training"][0]["name"] == "clotho/evaluation"
    hub.load(out)
    leaks.write_text("[]")
    assert main([*arguments[:-4], "--out", str(tmp_path / "b"), "--leaks", str(leaks)]) == 2


def test_another_build_is_refused(build: Path, export: Path) -> None:
    data = hub.load(export).recipe.data
    with pytest.raises(InputError, match="trained on another build"):
        training_sources(Manifest.open(str(build)), data, "another plan")


def test_what_is_no_export_cannot_be_published(export: Path) -> None:
    retriever: Retriever = hub.load(export)
    with pytest.raises(InputError, match="only an export"):
        training.Earshot(retriever).publish("me/model")


def test_a_hub_that_does_not_answer_is_named(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="the hub refused the upload"):
        training.Earshot.open(export).publish("me/model")
    with pytest.raises(InputError, match="no model can be loaded"):
        training.Earshot.from_pretrained(export / "absent", local_files_only=True)
