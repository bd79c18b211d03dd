"""The text tower of CLIP (Radford et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """CLIP's text tower; the defaults are ViT-B/32's."""

    encoder: str = "clip-text"
    source: str = "openai/clip-vit-base-patch32"
    dropout: float = 0.0
    width: int = 512
    heads: int = 8
    vocabulary: int = 49408


def _sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    return {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
    }


FAMILY = Family(
    model="CLIPTextModel",
    config="CLIPTextConfig",
    sizes=_sizes,
    dropout=("attention_dropout",),
    blocks="encoder.layers",
    top="final_layer_norm",
    pooling="last",  # attention is causal: only the end token has read the whole caption
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
