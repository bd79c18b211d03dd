"""A text encoder that embeds sentences, trained on text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config.sections import Recipe
from training.data.captions import normalise, tokenise
from training.engine.dropout import SampleDropout
from training.models.encoders import TextEncoder
from training.models.encoders.randomness import splitmix64


class SentenceModel(nn.Module):
    """Turns each sentence into one vector of length 1.

    With ``sample_dropout``, what dropout drops in training is a hash of each sentence's seed.
    """

    def __init__(self, text: TextEncoder, sample_dropout: bool = False) -> None:
        super().__init__()
        self.text, self.sample_dropout = text, sample_dropout

    def forward(self, tokens: Tensor, mask: Tensor, seeds: Tensor | None = None, role: int = 0) -> Tensor:
        """``[b, d]`` of ``tokens [b, N]`` and ``mask [b, N]``.

        Args:
            tokens, mask: the sentences.
            seeds: ``[b]``, of the pairs that the sentences belong to; None: nothing is dropped.
            role: which sentence of its pair each is, so that the sentences of a pair lose different units.
        """
        if seeds is None or not (self.sample_dropout and self.training):
            return self._vectors(tokens, mask)
        with SampleDropout(splitmix64(seeds, torch.full_like(seeds, role))):
            return self._vectors(tokens, mask)

    def _vectors(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pooled = self.text.encode(tokens, mask).pooled
        assert pooled is not None
        return F.normalize(pooled, dim=-1)


@dataclass(frozen=True)
class SentenceEncoder:
    """A trained text encoder, ready to use: ``encoder = training.models.hub.load_any(folder)``."""

    model: SentenceModel
    loss: nn.Module
    recipe: Recipe

    @property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer."""
        return self.model.text.tokenizer

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[texts, dim]`` of length 1; their dot product says how much two sentences agree."""
        spelled = [normalise(text, self.recipe.data) for text in texts]
        tokens, mask = tokenise(self.tokenizer, spelled, self.recipe.data)
        device = next(self.model.parameters()).device
        vectors: Tensor = self.model(tokens.to(device), mask.to(device))
        return vectors

    def try_out(self) -> None:
        """Encode a sentence, so that a tokenizer which does not fit the model fails here and not later."""
        self.encode_texts(["a sound"])

    def usage(self) -> str:
        """Python lines for the model card."""
        return 'vectors = model.encode_texts(["a dog barks", "a cat meows"])\nprint(vectors @ vectors.T)'
