"""Dual encoders as two ONNX files: texts to vectors and spectrograms to vectors."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.data.captions import tokenise
from training.data.sound.features import find_front_end
from training.models.build import TOKENIZER
from training.models.encoders import EncodedAudio
from training.models.encoders.published import load_tokenizer
from training.models.formats.proof import CheckClips, Proof
from training.models.formats.spelling import spelling_tokenizer
from training.models.retriever import Retriever

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
TEXT, AUDIO = "text.onnx", "audio.onnx"
INPUT = "audio.json"  # what the audio tower reads: the fields of `training.data.sound.features.AudioInput`


class TextTower(nn.Module):
    """``input_ids [b, N]`` and ``attention_mask [b, N]``, int64, to ``vectors [b, d]`` of length 1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text, self.head = model.text, model.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vectors: Tensor = self.head.text_side(self.text.encode(input_ids, attention_mask > 0))[0]
        return vectors


class AudioTower(nn.Module):
    """``features [b, S, F, T]`` and ``frames [b, S]`` int64 to ``vectors [b, d]`` of length 1.

    Segments without sound (0 frames) are encoded like others, and have no part in the vector.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.audio, self.head = model.audio, model.head

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        flat = frames.flatten().clamp(min=1)
        pooled = self.audio(features.flatten(0, 1), flat, torch.zeros_like(flat))[0]
        mask = frames > 0
        segments = pooled.unflatten(0, frames.shape).masked_fill(~mask[..., None], 0)
        vectors: Tensor = self.head.audio_side(EncodedAudio(segments, mask))[0]
        return vectors


def write(retriever: Retriever, origin: dict[str, Any], folder: Path) -> None:
    """Write both towers, the tokenizer, and what the towers read.

    Raises:
        InputError: the model is no dual encoder, or torch cannot export one of its encoders.
    """
    model = retriever.model
    if model.head.uses_patches or model.head.embedding(retriever.encode_texts(["a sound"])) is None:
        raise InputError(
            "only dual encoders have a tower for texts and one for sounds",
            value=retriever.method,
            remedy="convert a model whose scores are products of two vectors",
        )
    export_text(retriever, folder / TEXT)
    audio = retriever.audio_input
    long = np.zeros(min(round(audio.max_s * audio.rate), 2 * audio.segment), np.float32)
    features, frames = retriever.prepare_waves([long, long[: audio.segment]])
    sounds = {"features": {0: "batch", 1: "segments"}, "frames": {0: "batch", 1: "segments"}}
    _export(AudioTower(model), (features, frames), sounds, folder / AUDIO)
    spelling_tokenizer(retriever.tokenizer, retriever.recipe.data).save_pretrained(folder / TOKENIZER)
    (folder / INPUT).write_text(json.dumps(asdict(audio), indent=2), encoding="utf-8")


def export_text(retriever: Retriever, file: Path) -> None:
    """Write the text tower of a dual encoder.

    Raises:
        InputError: torch cannot export it.
    """
    tokens, mask = tokenise(retriever.tokenizer, ["a dog barks", "rain"], retriever.recipe.data)
    texts = {"input_ids": {0: "batch", 1: "words"}, "attention_mask": {0: "batch", 1: "words"}}
    _export(TextTower(retriever.model), (tokens, mask.long()), texts, file)


def prove(retriever: Retriever, folder: Path, clips: CheckClips) -> Proof:
    """Run both files with onnxruntime, one by one and in batches, and compare their vectors with Earshot's."""
    import onnxruntime

    tokenizer = load_tokenizer(str(folder / TOKENIZER))
    text, audio = (onnxruntime.InferenceSession(folder / name) for name in (TEXT, AUDIO))
    rate = retriever.audio_input.rate
    proof = Proof(len(clips.recordings), len(clips.texts))
    expected = retriever.encode_texts(clips.texts)[0]
    for rows in (slice(0, 1), slice(None)):
        words = tokenizer(clips.texts[rows], padding=True, truncation=True, return_tensors="np")
        found = text.run(None, {name: words[name].astype(np.int64) for name in ("input_ids", "attention_mask")})[0]
        proof.compare("vectors of texts", found, expected[rows])
    waves = [one.at(rate) for one in clips.recordings]
    sides = torch.cat([retriever.encode_wave(wave)[0] for wave in waves])
    for rows in (slice(0, 1), slice(None)):
        features, frames = retriever.prepare_waves(waves[rows])
        found = audio.run(None, {"features": features.numpy(), "frames": frames.numpy()})[0]
        proof.compare("vectors of clips", found, sides[rows])
    return proof


def usage(retriever: Retriever) -> str:
    """How the files are used, in Markdown."""
    audio, data = retriever.audio_input, retriever.recipe.data
    return f"""`{TEXT}` and `{AUDIO}` run with onnxruntime; batches, words and segments may be of any number. Scores are
products of their vectors.

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER/{TOKENIZER}")
words = tokenizer(["a dog barks"], padding=True, truncation=True, max_length={data.max_tokens}, return_tensors="np")
read = {{name: words[name].astype("int64") for name in ("input_ids", "attention_mask")}}
texts = onnxruntime.InferenceSession("FOLDER/{TEXT}").run(None, read)[0]
```

The tokenizer spells texts as the model reads them. `{AUDIO}` reads two arrays:

- `features [b, S, {_bins(retriever)}, T]`, float32: the spectrograms of S segments of {audio.segment_s:g} s,
  {audio.hop_s:g} s apart, of which the last is padded with silence;
- `frames [b, S]`, int64: how many of the T frames hold sound, 0 where a clip has no such segment.

The spectrograms are Earshot's front end `{audio.front_end}`, at {audio.rate} Hz:
`training/data/sound/spectrogram.py` says what it computes and which class of transformers computes the same. Earshot
itself gives both arrays:

```python
from training.models.hub import load

features, frames = load("export").prepare_waves([wave])
```"""


def _bins(retriever: Retriever) -> int:
    return find_front_end(retriever.audio_input.front_end).bins


def _export(tower: nn.Module, inputs: tuple[Tensor, ...], dynamic: dict[str, dict[int, str]], file: Path) -> None:
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    axes = {name: dict.fromkeys(named, torch.export.Dim.DYNAMIC) for name, named in dynamic.items()}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tower.eval(),
                inputs,
                file,
                input_names=list(dynamic),
                output_names=["vectors"],
                dynamic_shapes=axes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"torch cannot export it: {reason}"[:400], file=file.name) from error
