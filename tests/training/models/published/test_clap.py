"""Published CLAP models give the vectors that their own library gives, and serve everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from tests.training.models.encoders.test_encoders import CAPTIONS
from tests.training.models.encoders.test_published import BERT, HTSAT, VOCABULARY
from tests.training.small_runs import small_recipe
from training import cli
from training.config.sections import InitSettings
from training.models import hub
from training.models.encoders.text.tokenizer import train_tokenizer
from training.run.initial import initialise
from training.tasks.retrieval import make_task
from training.tasks.teacher_vectors import write_teacher

WAVES = [np.random.default_rng(n).standard_normal(round(s * 48000)) * 0.1 for n, s in enumerate((1.3, 4.0, 10.0))]


def save_clap(folder: Path, fused: bool = False, **changes: Any) -> Any:
    """A small random ClapModel, saved with its tokenizer as the hub has it."""
    torch.manual_seed(3)
    audio = HTSAT | {"enable_fusion": fused, "projection_dim": 24}
    text = BERT | {"max_position_embeddings": 66, "projection_dim": 24}
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=24, **changes)
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(folder)
    train_tokenizer(CAPTIONS, VOCABULARY).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save_clap(folder)
    return folder


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_vectors_are_those_of_the_library(fused: bool, tmp_path: Path) -> None:
    model = save_clap(tmp_path, fused)
    retriever = hub.open_model(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["A dog barks!", *CAPTIONS]
    mode = {"truncation": "fusion"} if fused else {"truncation": "rand_trunc"}
    extract = transformers.ClapFeatureExtractor(frequency_min=50, **mode)
    with torch.inference_mode():
        text = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
        audio = []
        for wave in WAVES:
            mel = extract(wave, sampling_rate=48000, return_tensors="pt")["input_features"].float()
            # The library's extractor marks one short clip of a batch as long, whichever that is; here none is.
            found = model.get_audio_features(input_features=mel, is_longer=torch.zeros(1, 1, dtype=torch.bool))
            audio.append(found.pooler_output)
    close(retriever.encode_texts(texts)[0], text)
    sounds = torch.cat([retriever.encode_wave(wave)[0] for wave in WAVES])
    close(sounds, torch.cat(audio))
    close(retriever.score((text,), (sounds,)), text @ torch.cat(audio).t())
    assert retriever.recipe.loss.tau == pytest.approx(0.07)


def test_a_published_model_is_evaluated_and_taught_like_a_trained_one(
    published: Path, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = "clotho/evaluation"
    assert cli.main(["evaluate", str(published), "--shards", str(build), "--split", split, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["clips"] == 9 and 0 <= figures["text_to_audio"]["mAP@10"] <= 1
    retriever, manifest = hub.open_model(published), Manifest.open(build)
    assert write_teacher(retriever, manifest, [split], Storage(tmp_path / "vectors"))["width"] == 24


def test_a_run_starts_from_a_published_model(published: Path, build: Path) -> None:
    sections = [
        f"audio={{encoder: clap, source: {published}}}",
        f"text={{encoder: clap-text, source: {published}}}",
        "head={name: clap, dim: 24}",
        "data.crop_s=10",
    ]
    task = make_task(small_recipe(sections), Manifest.open(build))
    lines = initialise(task, InitSettings(str(published)), hub.open_any(published))
    assert len(lines) == 1, lines  # every tensor was found, and every one was used
    model = transformers.ClapModel.from_pretrained(published)
    weight = task.model.head.text_projection.linear2.weight
    assert torch.equal(weight, model.text_projection.linear2.weight)


def test_a_published_model_cannot_be_converted_and_the_error_says_what_it_is(published: Path) -> None:
    with pytest.raises(InputError, match="a model of another library"):
        hub.load(published)


def test_what_is_no_model_of_texts_and_sounds_is_refused(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "clap")
    (tmp_path / "clap/model.safetensors").rename(tmp_path / "clap/pytorch_model.bin")
    with pytest.raises(InputError, match="no model can be loaded"):
        hub.open_model(tmp_path / "clap")
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="does not score texts against sounds"):
        hub.open_model(tmp_path / "bert")
    config = json.loads((published / "config.json").read_text())
    config["text_config"]["attn_implementation"] = "somebody/kernel"
    shutil.copytree(published, tmp_path / "code")
    (tmp_path / "code/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="code on the hub"):
        hub.open_model(tmp_path / "code")


def test_a_name_on_the_hub_is_found_in_its_cache(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="there is no such folder here"):
        hub.open_model(Path("somebody/clap"))
    cached = tmp_path / "models--somebody--clap"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("a" * 40)
    shutil.copytree(published, cached / "snapshots" / ("a" * 40))
    retriever = hub.open_model(Path("somebody/clap"))
    assert retriever.recipe.audio.source == "somebody/clap"
    close(retriever.encode_texts(CAPTIONS)[0], hub.open_model(published).encode_texts(CAPTIONS)[0])
