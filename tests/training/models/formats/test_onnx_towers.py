"""Exports as ONNX: onnxruntime computes Earshot's vectors for batches of any size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharding.common.errors import InputError
from tests.training.models.formats.conftest import Export
from training.models.formats import proof
from training.models.formats.conversion import convert

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (earshot[clients])")
SIZES = "source: random, width: 16, depth: 2, heads: 2"
NO_MASKS = "data.masking={time_masks: 0, freq_masks: 0}"


def test_both_towers_compute_the_same_vectors(export: Export, sounds: Path, tmp_path: Path) -> None:
    small = export("audio.depth=1", "text.depth=1")
    found = convert(small, "onnx", tmp_path / "out", proof.read_clips(str(sounds)))
    assert set(found.differences) == {"vectors of texts", "vectors of clips"}
    assert max(found.differences.values()) < 1e-5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"text.onnx", "audio.onnx", "audio.json", "tokenizer", "README.md"}
    assert json.loads((tmp_path / "out" / "audio.json").read_text())["front_end"] == "passt"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("audio", "text"),
    [
        (f"{{encoder: whisper, {SIZES}, segment_s: 1.0, max_s: 3.0}}", f"{{encoder: bert, {SIZES}, vocabulary: 280}}"),
        (
            f"{{encoder: ast, {SIZES}, segment_s: 1.0, max_s: 3.0}}",
            f"{{encoder: modernbert, {SIZES}, vocabulary: 280}}",
        ),
        (f"{{encoder: clap, {SIZES}, max_s: 30.0}}", f"{{encoder: mpnet, {SIZES}, vocabulary: 280}}"),
        (f"{{encoder: data2vec, {SIZES}, max_s: 3.0}}", f"{{encoder: deberta-v3, {SIZES}, vocabulary: 280}}"),
    ],
)
def test_other_encoders_do_too(audio: str, text: str, export: Export, sounds: Path, tmp_path: Path) -> None:
    source = export(f"audio={audio}", f"text={text}", NO_MASKS, "head.audio_pooling=attention")
    found = convert(source, "onnx", tmp_path / "out", proof.read_clips(str(sounds)))
    assert max(found.differences.values()) < 1e-5


def test_attention_has_no_towers(export: Export, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only dual encoders"):
        source = export("head={name: token-attention, dim: 16, heads: 2}")
        convert(source, "onnx", tmp_path / "out", proof.read_clips(str(sounds)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_published_towers_and_their_tokenizer_do_too(
    shared_models: Path, shared_data: Path, export: Export, tmp_path: Path
) -> None:
    source = export(
        f"audio={{encoder: whisper, source: {shared_models / 'whisper-tiny.en'}, max_s: 30.0}}",
        f"text={{encoder: bert, source: {shared_models / 'all-MiniLM-L6-v2'}}}",
        "head.dim=128",
        NO_MASKS,
    )
    found = convert(source, "onnx", tmp_path / "out", proof.read_clips(str(shared_data / "audio")))
    assert max(found.differences.values()) < 1e-5
