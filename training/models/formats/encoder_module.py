"""A whole retrieval model as one module of sentence-transformers, which reads texts and recordings.

sentence-transformers imports this class by its name, so that whoever loads such a model needs Earshot installed and
says ``trust_remote_code=True``.  The folder of the module is an export.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from sharding.audio import AudioError, decode_segment
from sharding.common.errors import InputError
from training.data.captions import normalise, tokenise
from training.models import hub
from training.models.formats.late_interaction import sound_vectors, word_vectors
from training.models.retriever import Retriever


class EarshotEncoder(InputModule):
    """Texts and recordings to vectors.

    A dual encoder gives ``sentence_embedding [b, d]``.  Cross-attention from a caption's words gives
    ``token_embeddings [b, n, d]`` with ``attention_mask [b, n]``, for `MultiVectorEncoder`; see `late_interaction`.

    Args:
        retriever: the model.
        origin: where it comes from, as `training.models.hub.origin_of` reads it.
    """

    save_in_root = False

    def __init__(self, retriever: Retriever, origin: dict[str, Any]) -> None:
        super().__init__()
        self.retriever, self.origin = retriever, origin
        self.model = retriever.model

    @property
    def modalities(self) -> list[str]:
        return ["text", "audio"]

    @property
    def tokenizer(self) -> Any:
        return self.retriever.tokenizer

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text that are read."""
        return self.retriever.recipe.data.max_tokens

    def get_embedding_dimension(self) -> int:
        settings: Any = self.retriever.recipe.head
        if settings is None:  # the space is the text encoder's own
            return int(self.retriever.encode_texts(["a sound"])[0].shape[-1])
        return int(settings.dim)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Tokens of texts, or features of recordings; all inputs of a batch are of one kind."""
        if infer_batch_modality(inputs, supported_modalities=self.modalities) == "text":
            data = self.retriever.recipe.data
            texts = [normalise((prompt or "") + text, data) for text in inputs]
            tokens, mask = tokenise(self.tokenizer, texts, data)
            return {"modality": "text", "input_ids": tokens, "attention_mask": mask}
        rate = self.retriever.audio_input.rate
        features, frames = self.retriever.prepare_waves([_wave(sound, rate) for sound in inputs])
        return {"modality": "audio", "input_features": features, "frames": frames}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        head = self.model.head
        if features["modality"] == "text":
            text = self.model.encode_text(features["input_ids"], features["attention_mask"].bool())
            if (vectors := head.embedding(head.text_side(text))) is not None:
                return features | {"sentence_embedding": vectors}
            words, mask = word_vectors(head, text)
            return features | {"token_embeddings": words, "attention_mask": mask}
        frames = features["frames"]
        seeds = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
        audio = self.model.encode_audio(features["input_features"], frames, seeds)
        if (vectors := head.embedding(head.audio_side(audio))) is not None:
            return features | {"sentence_embedding": vectors}
        segments, mask = sound_vectors(head, audio)
        return features | {"token_embeddings": segments, "attention_mask": mask}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        hub.write(self.retriever, self.origin, Path(output_path))

    @classmethod
    def load(
        cls, model_name_or_path: str, subfolder: str = "", trust_remote_code: bool = False, **kwargs: Any
    ) -> EarshotEncoder:
        places = {name: kwargs.get(name) for name in ("token", "cache_folder", "revision")}
        local = bool(kwargs.get("local_files_only"))
        folder = cls.load_dir_path(model_name_or_path, subfolder, local_files_only=local, **places)
        if folder is None:
            raise InputError("there is no folder of the module", file=model_name_or_path, value=subfolder)
        return cls(hub.load(folder, trust_code=trust_remote_code), hub.origin_of(Path(folder)))


def _wave(sound: Any, rate: int) -> np.ndarray:
    """A recording ``[samples]`` float32 at ``rate``, from any kind of audio that sentence-transformers knows."""
    if isinstance(sound, dict) and "audio" in sound:
        sound = sound["audio"]
    own = rate
    if isinstance(sound, str):
        try:
            sound, own = decode_segment(Path(sound).read_bytes())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=sound, remedy="name a local file") from error
        except AudioError as error:
            raise InputError(f"no sound that decodes: {error}", file=sound) from error
    elif isinstance(sound, dict):
        sound, own = sound["array"], round(sound["sampling_rate"])
    elif hasattr(sound, "get_all_samples"):  # torchcodec's decoder, as the datasets library gives it
        decoded = sound.get_all_samples()
        sound, own = decoded.data, decoded.sample_rate
    samples = np.asarray(sound.detach().cpu() if isinstance(sound, Tensor) else sound)
    if samples.ndim == 2:  # the longer side is time
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError("a recording must have floating-point samples between -1 and 1", value=str(samples.dtype))
    samples = samples.astype(np.float32)
    return samples if own == rate else soxr.resample(samples, own, rate, quality="HQ")
