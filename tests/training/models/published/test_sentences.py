"""sentence-transformers models with audio give the vectors that their own library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.models.encoders.test_encoders import CAPTIONS
from tests.training.models.encoders.test_published import BERT, VOCABULARY
from tests.training.models.published.test_clap import close, save_clap
from training.engine.distributed import LocalGroup
from training.evaluation.encoding import side_encoder
from training.evaluation.run import EvaluationSettings, evaluate
from training.models import hub
from training.models.encoders.text.tokenizer import train_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")
RATE = 48000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain, folder = tmp_path_factory.mktemp("clap"), tmp_path_factory.mktemp("sentences")
    save_clap(plain)
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    extract = transformers.ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    transformers.ClapProcessor(extract, tokenizer).save_pretrained(plain)
    sentence_transformers.SentenceTransformer(str(plain), device="cpu").save(str(folder))
    return folder


def test_vectors_are_those_of_the_library(folder: Path) -> None:
    net = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    retriever = hub.open_model(folder)
    texts = ["A dog  barks — <pad> “twice”!", "rain", "https://example.org/rain.mp3"]
    wave = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * 0.1
    expected = net.encode([" ".join(text.split()) for text in texts[:2]], convert_to_tensor=True)
    found = retriever.encode_texts(texts)[0]
    close(found[:2], expected)
    assert torch.isfinite(found[2]).all()  # a text that looks like an address is a text
    sound = retriever.encode_wave(wave)[0]
    close(sound, net.encode([{"array": wave, "sampling_rate": RATE}], convert_to_tensor=True))
    close(retriever.score((found,), (sound,)), net.similarity(found, sound))


def test_it_is_evaluated_like_a_trained_one(folder: Path, build: Path) -> None:
    retriever = hub.open_model(folder)
    encoder = side_encoder(retriever.model, retriever.recipe.data, torch.device("cpu"))
    one, many = (
        evaluate(encoder, Manifest.open(build), EvaluationSettings("clotho/evaluation", size), LocalGroup())
        for size in (2, 9)
    )
    assert one == many and one["clips"] == 9


def test_code_pickles_and_models_without_audio_are_refused(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "own"))
    modules = json.loads((own / "modules.json").read_text())
    modules[0]["type"] = "os.system"
    (own / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="code of its own"):
        hub.open_model(own)
    pickled = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="only in a pickle"):
        hub.open_model(pickled)


def test_a_model_of_texts_alone_is_refused(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
    train_tokenizer(CAPTIONS, VOCABULARY).save_pretrained(tmp_path / "bert")
    folder = tmp_path / "sentences"
    sentence_transformers.SentenceTransformer(str(tmp_path / "bert"), device="cpu").save(str(folder))
    with pytest.raises(InputError, match="does not take both texts and audio"):
        hub.open_model(folder)
