"""Exports in sentence-transformers itself: the vectors are Earshot's, and what cannot be right is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sharding.common.errors import InputError
from tests.training.models.formats.conftest import Export
from training.cli import main
from training.models import hub
from training.models.formats import proof
from training.models.formats.conversion import convert

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed (earshot[clients])")
ATTENTION = "head={name: token-attention, dim: 16, heads: 2}"


@pytest.fixture(scope="module")
def dual(export: Export, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "dual"
    arguments = ["convert", str(export()), "--to", "sentence-transformers", "--out", str(out), "--check", str(sounds)]
    assert main(arguments) == 0
    return out


def test_texts_and_sounds_get_the_vectors_that_earshot_gives_them(dual: Path, export: Export, sounds: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model, retriever = SentenceTransformer(str(dual), trust_remote_code=True, device="cpu"), hub.load(export())
    assert model.supports("text") and model.supports("audio") and model.get_embedding_dimension() == 16
    texts = ["A dog, BARKING", "rain"]
    np.testing.assert_allclose(model.encode(texts), retriever.encode_texts(texts)[0], atol=1e-5)
    wave, rate = soundfile.read(sounds / "3.wav", dtype="float32")
    expected = retriever.encode_wave(wave)[0][0].numpy()
    stereo = np.stack([wave, wave])
    decoded = {"array": wave, "sampling_rate": rate}
    inputs: list[Any] = [decoded, {"audio": decoded}, {"array": stereo, "sampling_rate": rate}, str(sounds / "3.wav")]
    for sound in inputs:
        np.testing.assert_allclose(model.encode(sound), expected, atol=1e-5)
    np.testing.assert_allclose(model.similarity(model.encode("rain"), model.encode(wave)).abs() <= 1 + 1e-6, True)


def test_commands_open_the_folder_again(dual: Path, export: Export) -> None:
    texts = ["rain"]
    assert torch.equal(hub.open_model(dual).encode_texts(texts)[0], hub.load(export()).encode_texts(texts)[0])


def test_nothing_runs_that_the_user_did_not_allow(dual: Path) -> None:
    from sentence_transformers import SentenceTransformer

    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(dual), device="cpu")
    assert not list(dual.rglob("*.py")) and not list(dual.rglob("*.bin"))


def test_a_model_that_was_trained_further_is_saved_with_its_new_weights(dual: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(dual), trust_remote_code=True, device="cpu")
    before = model.encode("rain")
    with torch.no_grad():
        model[0].model.head.text_projection.bias.add_(0.5)
    model.save_pretrained(str(tmp_path / "more"))
    again = SentenceTransformer(str(tmp_path / "more"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode("rain"), model.encode("rain"))
    assert np.abs(again.encode("rain") - before).max() > 1e-3


@pytest.mark.parametrize("head", ["token-attention", "sentence-attention"])
def test_attention_is_late_interaction_that_is_exact_for_one_segment(
    head: str, export: Export, sounds: Path, tmp_path: Path
) -> None:
    from sentence_transformers import MultiVectorEncoder

    source = export(ATTENTION.replace("token-attention", head))
    found = convert(source, "sentence-transformers", tmp_path / "out", proof.read_clips(str(sounds)))
    assert found.differences["scores of clips of one segment"] < 1e-5 and len(found.remarks) == 1
    assert "late interaction" in (tmp_path / "out" / "README.md").read_text()
    model = MultiVectorEncoder(str(tmp_path / "out"), trust_remote_code=True, device="cpu")
    wave, rate = soundfile.read(sounds / "1.wav", dtype="float32")
    words, heard = (
        model.encode_query(["rain on a roof"]),
        model.encode_document([{"array": wave, "sampling_rate": rate}]),
    )
    assert heard[0].shape == (1, 16) and (len(words[0]) == 1) == (head == "sentence-attention")
    retriever = hub.load(source)
    exact = retriever.score(retriever.encode_texts(["rain on a roof"]), retriever.encode_wave(wave))
    torch.testing.assert_close(model.similarity(words, heard), exact.float(), atol=1e-5, rtol=0)


def test_long_clips_alone_prove_nothing_for_late_interaction(export: Export, sounds: Path, tmp_path: Path) -> None:
    long = proof.read_clips(str(sounds / "3.wav"))
    with pytest.raises(InputError, match="longer than a segment"):
        convert(export(ATTENTION), "sentence-transformers", tmp_path / "out", long)
    assert not list(tmp_path.iterdir())


def test_a_head_without_vectors_is_refused(export: Export, sounds: Path, tmp_path: Path) -> None:
    source = export("head={name: text-aware-pooling, dim: 16}")
    with pytest.raises(InputError, match="neither products of two vectors nor late interaction"):
        convert(source, "sentence-transformers", tmp_path / "out", proof.read_clips(str(sounds)))
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_computes_something_else_leaves_nothing(
    export: Export, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "TOLERANCE", 1e-12)
    with pytest.raises(InputError, match="differ from Earshot's"):
        convert(export(), "sentence-transformers", tmp_path / "out", proof.read_clips(str(sounds)))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_converted_is_named(export: Export, sounds: Path, tmp_path: Path) -> None:
    clips = proof.read_clips(str(sounds))
    assert len(clips.recordings) == 5
    with pytest.raises(InputError, match="exists already"):
        convert(export(), "sentence-transformers", tmp_path, clips)
    with pytest.raises(InputError, match="there is no export"):
        convert(tmp_path, "sentence-transformers", tmp_path / "out", clips)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.txt").write_text("no sound")
    with pytest.raises(InputError, match="no file of the folder is a sound"):
        proof.read_clips(str(tmp_path / "sounds"))
    with pytest.raises(InputError, match="no such file"):
        proof.read_clips(str(tmp_path / "absent"))


def test_a_build_gives_its_clips_and_captions_to_compare_on(build: Path) -> None:
    clips = proof.read_clips(str(build))
    assert len(clips.recordings) == 8 and all(one.rate == 32000 and len(one.wave) for one in clips.recordings)
    assert any("is heard" in text for text in clips.texts)


def test_the_command_prints_what_it_compared(
    dual: Path, export: Export, sounds: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = ["convert", str(export()), "--to", "sentence-transformers", "--out", str(tmp_path / "o")]
    assert main([*arguments, "--check", str(sounds / "0.wav"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["clips"] == 1 and printed["differences"]["vectors of clips"] < 1e-5


@pytest.mark.slow
def test_published_towers_keep_their_vectors_on_real_recordings(
    shared_models: Path, shared_data: Path, export: Export, tmp_path: Path
) -> None:
    source = export(
        f"audio={{encoder: whisper, source: {shared_models / 'whisper-tiny.en'}, max_s: 30.0}}",
        f"text={{encoder: bert, source: {shared_models / 'all-MiniLM-L6-v2'}}}",
        "head.dim=128",
        "data.masking={time_masks: 0, freq_masks: 0}",
    )
    clips = proof.read_clips(str(shared_data / "audio"))
    found = convert(source, "sentence-transformers", tmp_path / "out", clips)
    assert len(clips.recordings) == proof.CLIPS and max(found.differences.values()) < 1e-5
