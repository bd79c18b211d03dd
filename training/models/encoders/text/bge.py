"""BGE (Xiao et al., 2023), a BERT; bge-base-en-v1.5 in papers/001 table 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.models.encoders.text.hub import Family, HubTextEncoder, HubTextSettings, bert_sizes, build_hub_text


@dataclass(frozen=True)
class Settings(HubTextSettings):
    """BGE; the defaults are bge-base-en-v1.5."""

    encoder: str = "bge"
    source: str = "BAAI/bge-base-en-v1.5"


FAMILY = Family(
    model="BertModel",
    config="BertConfig",
    sizes=bert_sizes,
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    blocks="encoder.layer",
    arguments=(("add_pooling_layer", False),),
)


def build(settings: Settings, captions: Iterable[str]) -> HubTextEncoder:
    """The encoder that ``settings`` describes."""
    return build_hub_text(settings, captions, FAMILY)
