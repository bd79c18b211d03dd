"""ModernBERT (Warner et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """ModernBERT; the defaults are ModernBERT-base."""

    encoder: str = "modernbert"
    source: str = "answerdotai/ModernBERT-base"
    dropout: float = 0.0
    depth: int = 22
    vocabulary: int = 50368


def _sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    return {
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 3 * settings.width // 2,
        "bos_token_id": tokenizer.bos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }


FAMILY = Family(
    model="ModernBertModel",
    config="ModernBertConfig",
    sizes=_sizes,
    dropout=("attention_dropout", "embedding_dropout", "mlp_dropout"),
    blocks="layers",
    top="final_norm",
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
