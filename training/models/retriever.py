"""A trained model, ready to encode and score texts and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.config.sections import Recipe
from training.data.captions import normalise, tokenise
from training.data.sound.features import AudioInput
from training.models.encoders import EncodedAudio
from training.models.retrieval import RetrievalModel
from training.models.waves import prepare
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.tiled import score_all


@dataclass(frozen=True)
class Retriever:
    """A trained model with everything that is needed to use it: ``retriever = training.models.hub.load(folder)``."""

    model: RetrievalModel
    loss: PairLoss
    recipe: Recipe

    @property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer."""
        return self.model.text.tokenizer

    @property
    def audio_input(self) -> AudioInput:
        """The sample rate, the segments and the longest input of the audio encoder."""
        return AudioInput.of(self.model.audio)

    @property
    def method(self) -> str:
        """How the model scores: the name of its head, or of its task if the task does the scoring."""
        return (self.recipe.head or self.recipe.task).name

    @property
    def device(self) -> torch.device:
        """The device of the model, and of the sides that it computes."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """The text side of captions in any spelling; for a dual encoder one tensor ``[texts, dim]``."""
        data = self.recipe.data
        spelled = [normalise(text, data) for text in texts]
        tokens, mask = tokenise(self.tokenizer, spelled, data)
        return self.model.text_side(tokens.to(self.device), mask.to(self.device))

    @torch.inference_mode()
    def encode_wave(self, wave: Tensor | np.ndarray) -> tuple[Tensor, ...]:
        """The audio side of one recording, a batch of 1.

        Args:
            wave: mono, ``[samples]`` in floating point at ``audio_input.rate`` Hz; full scale is 1.  It may be a tensor
                or an array, as soundfile reads it.  What is beyond ``audio_input.max_s`` is cut off.

        Raises:
            InputError: ``wave`` is anything else.
        """
        features, frames = self.prepare_waves([wave])
        seeds = torch.zeros(1, dtype=torch.int64)
        return self.model.audio_side(*(tensor.to(self.device) for tensor in (features, frames, seeds)))

    @torch.inference_mode()
    def encode_together(self, wave: Tensor | np.ndarray, text: str) -> tuple[Tensor, ...]:
        """The audio side of one recording that the model hears while it reads a text, a batch of 1.

        Args:
            wave: as for `encode_wave`.
            text: in any spelling.

        Raises:
            InputError: the encoders are no multimodal language model, or ``wave`` is anything else.
        """
        from training.models.multimodal.listening import Listener  # imports transformers

        listener = self.model.audio
        if not isinstance(listener, Listener):
            remedy = "name a model whose recipe has audio.encoder and text.encoder multimodal"
            what = "this model cannot read a description together with a sound"
            raise InputError(what, value=self.recipe.audio.encoder, remedy=remedy)
        features, frames = self.prepare_waves([wave])
        present = frames[0] > 0
        (read,) = self.tokenizer.cut([normalise(text, self.recipe.data)], self.recipe.data.max_tokens)
        heard = features[0, present].to(self.device), frames[0, present].to(self.device)
        segments, patches, mask = listener.together(*heard, read)
        every = torch.ones(1, len(segments), dtype=torch.bool, device=self.device)
        encoded = EncodedAudio(segments[None], every, patches.flatten(0, 1)[None], mask.flatten()[None])
        return self.model.head.audio_side(encoded)

    def prepare_waves(self, waves: Sequence[Tensor | np.ndarray]) -> tuple[Tensor, Tensor]:
        """Recordings as the input of the audio encoder; see `training.models.waves.prepare`."""
        return prepare(waves, self.audio_input)

    def score(self, text: tuple[Tensor, ...], audio: tuple[Tensor, ...]) -> Tensor:
        """Similarity of every text to every recording, ``[texts, recordings]``."""
        return score_all(self.model.head, text, audio)

    def try_out(self) -> None:
        """Encode a text; a tokenizer that does not fit the model fails here."""
        self.encode_texts(["a sound"])
