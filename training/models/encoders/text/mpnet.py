"""MPNet (Song et al., 2020), as all-mpnet-base-v2 in papers/001 table 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, bert_sizes, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """MPNet; the defaults are all-mpnet-base-v2."""

    encoder: str = "mpnet"
    source: str = "sentence-transformers/all-mpnet-base-v2"


FAMILY = Family(
    model="MPNetModel",
    config="MPNetConfig",
    sizes=bert_sizes,
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    blocks="encoder.layer",
    shifted=True,
    pooling="mean",
    arguments=(("add_pooling_layer", False),),
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
