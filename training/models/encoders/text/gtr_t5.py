"""GTR-T5 (Ni et al., 2021): the encoder of a T5, gtr-t5-large in papers/001 table 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """GTR-T5; the defaults are gtr-t5-large."""

    encoder: str = "gtr-t5"
    source: str = "sentence-transformers/gtr-t5-large"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 32128


def _sizes(settings: HubTextSettings, tokenizer: Any) -> dict[str, Any]:
    return {
        "d_model": settings.width,
        "d_kv": settings.width // settings.heads,
        "d_ff": 4 * settings.width,
        "num_layers": settings.depth,
        "num_heads": settings.heads,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }


FAMILY = Family(
    model="T5EncoderModel",
    config="T5Config",
    sizes=_sizes,
    dropout=("dropout_rate",),
    blocks="encoder.block",
    top="encoder.final_layer_norm",
    pooling="mean",
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
