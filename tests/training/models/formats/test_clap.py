"""Exports as a ``ClapModel``: transformers and sentence-transformers compute Earshot's vectors, without Earshot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sharding.common.errors import InputError
from tests.training.models.formats.conftest import Export
from training.models import hub
from training.models.formats import proof
from training.models.formats.conversion import convert

SIZES = "source: random, width: 16, heads: 2"
HEARS = (
    f"audio={{encoder: clap, {SIZES}, max_s: 30.0, depth: 1}}",
    "data.masking={time_masks: 0, freq_masks: 0}",
    "data.max_tokens=20",
)
READS = f"text={{encoder: clap-text, {SIZES}, depth: 2, vocabulary: 280}}"


@pytest.mark.parametrize(
    "changes",
    [(), (READS,), (READS, "head={name: clap, dim: 8}"), ("data.lower=false", "data.strip_punctuation=false")],
    ids=["roberta", "pooling layer", "both layers", "as written"],
)
def test_transformers_computes_the_same_vectors(
    changes: tuple[str, ...], export: Export, sounds: Path, tmp_path: Path
) -> None:
    found = convert(export(*HEARS, *changes), "clap", tmp_path / "out", proof.read_clips(str(sounds)))
    assert found.texts == len(proof.TEXTS) and max(found.differences.values()) < 1e-5
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json"] * 4 + [".md", ".safetensors"]


def test_sentence_transformers_loads_it_without_trusting_code(export: Export, sounds: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="not installed (earshot[clients])")
    convert(export(*HEARS), "clap", tmp_path / "out", proof.read_clips(str(sounds)))
    model, retriever = library.SentenceTransformer(str(tmp_path / "out"), device="cpu"), hub.load(export(*HEARS))
    wave, rate = soundfile.read(sounds / "2.wav", dtype="float32")
    wave = soxr.resample(wave, rate, 48000, quality="HQ")
    vectors = model.encode([{"array": wave, "sampling_rate": 48000}])
    np.testing.assert_allclose(vectors, retriever.encode_wave(wave)[0], atol=1e-5)
    texts = ["A Dog,  BARKS!", "bark " * 50]
    np.testing.assert_allclose(model.encode(texts), retriever.encode_texts(texts)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ((), "needs the audio encoder clap"),
        ((*HEARS, "audio.max_s=5.0"), "hears 10 s, and this model hears less"),
        ((*HEARS, f"text={{encoder: bert, {SIZES}, depth: 2, vocabulary: 280}}"), "needs the text encoder roberta"),
        ((*HEARS, "head={name: token-attention, dim: 16, heads: 2}"), "needs the head dual or clap"),
        ((*HEARS, "head.text_pooling=mean"), "first token"),
    ],
)
def test_what_a_clap_model_cannot_compute_is_refused(
    changes: tuple[str, ...], reason: str, export: Export, sounds: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        convert(export(*changes), "clap", tmp_path / "out", proof.read_clips(str(sounds)))
    assert not list(tmp_path.iterdir())
