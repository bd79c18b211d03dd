"""A sentence-transformers model that takes texts and audio, as a retriever.

The library does all that lies between a text or a wave and its vector.  So captions travel to the model as bytes, clips
as samples, and one clip is encoded at a time: what the library draws at random or pads then depends on the clip alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.config.sections import OptimizerSettings, Recipe
from training.data.sound.spectrogram import FRONT_ENDS
from training.engine.distributed import accumulation_dtype
from training.models.encoders import AudioEncoder, EncodedAudio, EncodedText, TextEncoder
from training.models.encoders.pooling import masked_mean
from training.models.encoders.published import refuse_code, unavailable
from training.models.heads.base import Side, VectorHead, unit
from training.models.published.clap import published_data
from training.models.retrieval import RetrievalModel
from training.models.retriever import Retriever
from training.objectives.pairs import build_loss
from training.objectives.pairs.ntxent import Settings as LossSettings
from training.tasks.retrieval import Settings as Retrieval

NAME = "sentence-transformers"
LONGEST_S = 30.0
LONGEST_BYTES = 4000  # of a caption
BYTE = 3  # the token of the byte 0
Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True)
class Settings:
    """Settings for the recipe of such a model; no run can train it."""

    source: str
    encoder: str = NAME


@dataclass(frozen=True)
class HeadSettings:
    """How vectors are compared."""

    similarity: Similarity
    name: str = NAME


def open_sentences(folder: Path) -> Retriever:
    """The retriever of a folder that sentence-transformers wrote, with safetensors.

    Raises:
        InputError: the library is absent, the folder needs code or pickles, the model takes no audio, or its similarity
            is neither cosine nor dot.
    """
    net = _load(folder)
    similarity = net.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise InputError("the model's scores are neither cosines nor dot products", file=folder, value=similarity)
    if not {"text", "audio"} <= set(net.modalities):
        raise InputError(
            "the model does not take both texts and audio", file=folder, value=", ".join(map(str, net.modalities))
        )
    settings, head_settings = Settings(str(folder)), HeadSettings(similarity)
    model = RetrievalModel(SentenceAudio(net, _rate(net, folder)), SentenceText(net), SentenceHead(head_settings))
    loss_settings = LossSettings()
    recipe = Recipe(
        task=Retrieval("retrieval"),
        audio=settings,
        text=settings,
        head=head_settings,
        loss=loss_settings,
        data=published_data(LONGEST_BYTES),
        optimizer=OptimizerSettings(clip=1.0),
    )
    return Retriever(model.eval(), build_loss(loss_settings).eval(), recipe)


class _Tower(nn.Module):
    """One model is both towers, so it is registered as a module in the audio tower only."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.dim: int = net.get_embedding_dimension()

    def blocks(self) -> list[nn.Module]:
        return []


class SentenceAudio(_Tower, AudioEncoder):
    """Whole clips, up to 30 s, one after the other."""

    segment_s = hop_s = max_s = LONGEST_S

    def __init__(self, net: Any, rate: int) -> None:
        super().__init__(net)
        self.net, self.rate = net, rate
        self.front_end = f"samples-{rate}"

    def forward(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors = torch.stack([self._encode(wave[0, :n]) for wave, n in zip(features, frames.tolist(), strict=True)])
        return vectors, vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)

    def _encode(self, wave: Tensor) -> Tensor:
        sound = {"array": wave.float().cpu().numpy(), "sampling_rate": self.rate}
        with _same_draws():
            vectors = self.net.encode([sound], convert_to_tensor=True, show_progress_bar=False)
        return vectors[0].to(wave.device)


class SentenceText(_Tower, TextEncoder):
    """Captions as bytes, which the tokenizer of ByT5 counts from 3."""

    max_tokens = LONGEST_BYTES

    def __init__(self, net: Any) -> None:
        import transformers

        super().__init__(net)
        self.tokenizer = transformers.ByT5Tokenizer(extra_ids=0, split_special_tokens=True)
        self._net = (net,)  # not a module of this one

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        rows = (bytes(token - BYTE for token in row if token >= BYTE) for row in tokens.tolist())
        texts = [{"text": row.decode(errors="ignore")} for row in rows]  # never taken for the address of a sound
        vectors = self._net[0].encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return vectors.to(tokens.device)[:, None]

    def encode(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        vectors = self(tokens, token_mask)
        return EncodedText(vectors, token_mask[:, :1], vectors[:, 0])


class SentenceHead(VectorHead):
    """The encoders' own vectors, compared by their cosine or their dot product."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.cosine = settings.similarity == "cosine"

    def audio_side(self, audio: EncodedAudio) -> Side:
        return (self._comparable(masked_mean(audio.segments, audio.segment_mask)),)

    def text_side(self, text: EncodedText) -> Side:
        assert text.pooled is not None
        return (self._comparable(text.pooled),)

    def _comparable(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors.to(accumulation_dtype(vectors.dtype))


def _load(folder: Path) -> Any:
    try:
        import sentence_transformers
        import transformers
    except ImportError as error:
        raise InputError(
            "sentence-transformers is not installed", file=folder, remedy="pip install earshot[clients]"
        ) from error

    _check(folder)
    transformers.utils.logging.disable_progress_bar()
    try:
        return sentence_transformers.SentenceTransformer(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            device="cpu",
        )
    except Exception as error:  # the libraries raise errors of many kinds
        raise unavailable("model", str(folder), error) from error


def _check(folder: Path) -> None:
    """``InputError`` for a folder that names code of its own, or holds weights that only a pickle has."""
    modules = _json(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) and "type" in module for module in modules):
        raise InputError("modules.json does not list modules", file=folder)
    kinds = [module["type"] for module in modules]
    own = next((kind for kind in kinds if not str(kind).startswith("sentence_transformers.")), None)
    if own is not None:
        raise InputError("the model needs code of its own, which is not run", file=folder, value=own)
    for config in folder.rglob("config.json"):
        found = _json(config)
        refuse_code(found if isinstance(found, dict) else {}, str(config.parent))
    for pickle in folder.rglob("*.bin"):
        if not list(pickle.parent.glob("*.safetensors")):
            raise InputError(
                "weights are only in a pickle, which is not read", file=pickle, remedy="save it with safetensors"
            )


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON: {error}", file=file) from error


def _rate(net: Any, folder: Path) -> int:
    """The sample rate that the model's audio processor takes."""
    for module in net.modules():
        processor = getattr(module, "processor", None)
        rate = getattr(getattr(processor, "feature_extractor", processor), "sampling_rate", None)
        if isinstance(rate, int) and f"samples-{rate}" in FRONT_ENDS:
            return rate
        if isinstance(rate, int):
            raise InputError("the model hears a sample rate that Earshot does not offer", file=folder, value=rate)
    raise InputError("the model does not say which sample rate it hears", file=folder)


@contextmanager
def _same_draws() -> Iterator[None]:
    """The generator from which the library draws windows of long clips starts anew, and goes on afterwards."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
