"""The audio half of Qwen2-Audio as a model of its own: the tower, and the layer that projects its tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.qwen2_audio.modeling_qwen2_audio import (
    Qwen2AudioEncoder,
    Qwen2AudioMultiModalProjector,
    Qwen2AudioPreTrainedModel,
)


class Qwen2AudioSound(Qwen2AudioPreTrainedModel):
    """`audio_tower` and `multi_modal_projector` of transformers' ``Qwen2AudioForConditionalGeneration``."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.audio_tower = Qwen2AudioEncoder._from_config(config.audio_config)
        self.multi_modal_projector = Qwen2AudioMultiModalProjector(config)
        self.post_init()

    def forward(self, features: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens ``[n, A, d]`` of ``features [n, F, T]``; ``attention_mask [n, 1, P, P]`` is over positions."""
        tokens: Tensor = self.audio_tower(features, attention_mask=attention_mask).last_hidden_state
        projected: Tensor = self.multi_modal_projector(tokens)
        return projected
